"""Files from the network: resumed after a break, checked by sha256, kept in a folder.

pooch decides whether a file is there, whole and in its place; the transfer itself is ours, because
pooch starts a broken one over: two gigabytes on a train deserve better. No chapter derives this
module; ``corpora`` lists what can be fetched.

A partial file lies beside its target as ``NAME.part``. It is continued with an HTTP Range request,
and only if the server still has the version that it was begun from (``If-Range``) or if the sha256
is known. A file without a known sha256 is trusted the first time: its hash goes to ``NAME.sha256``
(in the form that ``sha256sum -c`` reads) and every later download is held against it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_core import runtime

ATTEMPTS = 5  # in a row without a new byte
FIRST_WAIT_SECONDS = 0.5  # doubled after each attempt
LONGEST_WAIT_SECONDS = 30.0
TIMEOUT_SECONDS = (10, 60)  # to connect, between two pieces
CHUNK_BYTES = 1 << 18
HEADER = re.compile(r"[!-~][ -~]{0,999}")  # what a header may hold
TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


class DownloadError(OSError):
    """A file could not be fetched."""


class OfflineError(DownloadError):
    """A file is absent and there is no network, or none may be used."""


class ChecksumError(DownloadError):
    """A file arrived whole, but is not the one expected."""


class _Broken(Exception):
    """A transfer ended early or was refused for now; it is worth another attempt."""

    def __init__(self, reason: str, wait_seconds: float = 0.0, reached: bool = True) -> None:
        super().__init__(reason)
        self.wait_seconds, self.reached = wait_seconds, reached


@dataclass(frozen=True)
class RemoteFile:
    """A file and where to get it. ``urls`` are mirrors in order of preference."""

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None
    n_bytes: int | None = None


# --- one transfer -------------------------------------------------------------------------------


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note_path(part: Path) -> Path:
    """Where the version that a partial file was begun from is noted."""
    return part.with_name(f"{part.name}.json")


def _version(headers: Any) -> str | None:
    """What ``If-Range`` may name: a strong ETag, else the time of the last change."""
    etag = headers.get("ETag")
    strong = etag and not etag.startswith("W/")
    version: str | None = etag if strong else headers.get("Last-Modified")
    return version


def _version_begun(url: str, part: Path) -> str | None:
    """The version that a partial file was begun from; None where no sound note says so."""
    try:
        begun = json.loads(_note_path(part).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    version = begun.get("version") if isinstance(begun, dict) and begun.get("url") == url else None
    return version if isinstance(version, str) and HEADER.fullmatch(version) else None


def _request_headers(url: str, part: Path, sha256: str | None) -> dict[str, str]:
    """Headers that ask for the rest of a partial file; a part that cannot be trusted is removed."""
    headers = {"Accept-Encoding": "identity"}  # a range of compressed bytes would be of no use
    if not _size(part):
        return headers
    version = _version_begun(url, part)
    if version is None and sha256 is None:
        part.unlink()
        return headers
    headers["Range"] = f"bytes={_size(part)}-"
    if version is not None:
        headers["If-Range"] = version
    return headers


def _offset_served(response: Any, part: Path) -> int:
    """The byte that the body of a good answer begins with; raises for every other answer."""
    status, had = response.status_code, _size(part)
    served = response.headers.get("Content-Range", "")
    if status == 200:
        return 0
    if status == 206 and served.startswith(f"bytes {had}-"):
        return had
    if status in (206, 416):
        part.unlink(missing_ok=True)
        raise _Broken(f"the server has no bytes from {had} on (Content-Range: {served or 'none'})")
    if status in TEMPORARY:
        after = response.headers.get("Retry-After", "")
        raise _Broken(f"status {status}", float(after) if after.isdecimal() else 0.0)
    raise DownloadError(
        f"{response.url} answered {status} {response.reason}; the file has moved or needs a "
        "permission: look for its new address, or fetch it by hand"
    )


def _receive(response: Any, part: Path, offset: int, bar: Any) -> None:
    """Write the body behind ``offset``; raises _Broken if it is shorter than announced."""
    announced = response.headers.get("Content-Length", "")
    expected = offset + int(announced) if announced.isdecimal() else None
    bar.total, bar.n = expected, offset
    with part.open("ab" if offset else "wb") as file:
        # read1 hands over what has come; read would lose the last piece when the line breaks.
        while chunk := response.raw.read1(CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))
    if expected is not None and _size(part) != expected:
        raise _Broken(f"it announced {expected} bytes and sent {_size(part)}")


def _attempt(url: str, part: Path, sha256: str | None, bar: Any) -> None:
    """One request: the whole file or what is missing of it. Raises _Broken or DownloadError."""
    import requests
    import urllib3

    headers, reached = _request_headers(url, part, sha256), False
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
            reached = True
            complete = f"bytes */{_size(part)}"
            if response.status_code == 416 and response.headers.get("Content-Range") == complete:
                return  # the last attempt had brought everything, more was announced
            offset = _offset_served(response, part)
            if not offset:
                part.unlink(missing_ok=True)  # before the note speaks of another version
            with runtime.atomic_write(_note_path(part), "w") as file:
                json.dump({"url": url, "version": _version(response.headers)}, file)
            _receive(response, part, offset, bar)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        reason = f"no answer ({type(error).__name__})"
        if reached:
            reason = f"the connection broke after {_size(part)} bytes"
        raise _Broken(reason, reached=reached) from error


def _transfer(url: str, part: Path, sha256: str | None, progress: bool) -> None:
    """Repeat attempts until the file is whole; give up after ATTEMPTS that brought nothing new."""
    from tqdm import tqdm

    name = part.name.removesuffix(".part")
    failures, furthest = 0, 0
    with tqdm(desc=name, unit="B", unit_scale=True, leave=False, disable=not progress) as bar:
        while True:
            try:
                _attempt(url, part, sha256, bar)
                return
            except _Broken as broken:
                failures = 1 if _size(part) > furthest else failures + 1
                furthest = max(furthest, _size(part))
                if failures == ATTEMPTS:
                    kind = DownloadError if broken.reached else OfflineError
                    raise kind(f"{url} failed {ATTEMPTS} times, at last: {broken}") from broken
                wait = max(broken.wait_seconds, FIRST_WAIT_SECONDS * 2 ** (failures - 1))
                time.sleep(min(wait, LONGEST_WAIT_SECONDS))


# --- one file -----------------------------------------------------------------------------------


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Let one process at a time write a partial file; chapters may run in parallel."""
    import fcntl

    with part.with_name(f".{part.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _trusted_hash(target: Path) -> str | None:
    record = target.with_name(f"{target.name}.sha256")
    if not record.exists():
        return None
    known = record.read_bytes().split(maxsplit=1)[:1]
    if not known or not re.fullmatch(b"[0-9a-fA-F]{64}", known[0]):
        raise ChecksumError(f"{record} holds no sha256; delete it to trust what comes next")
    return known[0].decode()


def _trust(target: Path, sha256: str) -> None:
    with runtime.atomic_write(target.with_name(f"{target.name}.sha256"), "w") as file:
        file.write(f"{sha256}  {target.name}\n")
    print(f"{target.name}: no published sha256, from now on held against {sha256}")


def _imported_pooch() -> Any:
    """pooch, which brings tqdm's bars for notebooks; without widgets these would warn on import."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import pooch
    return pooch


def _retrieve(url: str, target: Path, known: str | None, progress: bool) -> None:
    """Let pooch fetch a file through our transfer and check it; then put it into place.

    What pooch writes meanwhile lies in a folder that the next attempt clears: a process that is
    killed leaves nothing else behind.
    """
    pooch, part = _imported_pooch(), target.with_name(f"{target.name}.part")
    aside = target.with_name(f".{target.name}.new")

    def download(url: str, output_file: str, _pooch: object) -> None:
        _transfer(url, part, known, progress)
        os.replace(part, output_file)
        _note_path(part).unlink(missing_ok=True)

    pooch.get_logger().setLevel("ERROR")  # the bar says enough
    with _alone(part):
        if _is_right(target, known):  # another process was first
            return
        shutil.rmtree(aside, ignore_errors=True)
        try:
            pooch.retrieve(
                url,
                known_hash=None if known is None else f"sha256:{known}",
                fname=target.name,
                path=aside,
                downloader=download,
            )
            os.replace(aside / target.name, target)
        except ValueError as error:  # pooch names the expected and the actual hash
            raise ChecksumError(f"{url}: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _is_right(target: Path, known: str | None) -> bool:
    if not target.exists():
        return False
    return known is None or bool(_imported_pooch().file_hash(str(target)) == known)


def is_present(file: RemoteFile, folder: Path) -> bool:
    """Whether the file lies in the folder with the right sha256 (any, if none is known)."""
    target = folder / file.name
    return _is_right(target, file.sha256 or _trusted_hash(target))


def fetch(file: RemoteFile, folder: Path, remedy: str, *, progress: bool = True) -> Path:
    """The path of a file in ``folder``, downloaded first if it is not there.

    ``remedy`` says how to get it where there is no network. Under ``LLM_CORE_OFFLINE=1`` nothing is
    asked for. Raises OfflineError, ChecksumError (the wrong file is removed) or DownloadError.
    """
    target = folder / file.name
    if is_present(file, folder):
        return target
    if os.environ.get("LLM_CORE_OFFLINE", "0") not in ("", "0"):
        state = "there, but not the right file" if target.exists() else "absent"
        raise OfflineError(f"{target} is {state} and LLM_CORE_OFFLINE is set; {remedy}")
    known = file.sha256 or _trusted_hash(target)
    problems: list[DownloadError] = []
    for url in file.urls:
        try:
            _retrieve(url, target, known, progress)
        except DownloadError as error:
            problems.append(error)
            continue
        if known is None:
            _trust(target, _imported_pooch().file_hash(str(target)))
        return target
    told = "; ".join(str(problem) for problem in problems)
    if all(isinstance(problem, OfflineError) for problem in problems):
        raise OfflineError(f"no network: {told}; {remedy}")
    raise type(problems[-1])(told) from problems[-1]
