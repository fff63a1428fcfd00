"""Downloads from a server on this machine that breaks off, lies, refuses and recovers."""

import hashlib
import http.server
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest

from llm_core import download
from llm_core.download import ChecksumError, DownloadError, OfflineError, RemoteFile

BODY = random.Random(0).randbytes(1_500_000)
OTHER = random.Random(1).randbytes(1_500_000)
REMEDY = "run this elsewhere"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Site:
    """What the server does; lists hold one entry a request, in order, then the normal behavior."""

    body: bytes = BODY
    statuses: list[int] = field(default_factory=list)
    break_after: list[int] = field(default_factory=list)  # bytes of the body, then the line is cut
    announce: int | None = None  # a false Content-Length
    ranges: bool = True
    etag: str | None = '"v1"'
    retry_after: str | None = None
    pause_seconds: float = 0.0
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_):
        pass

    def do_GET(self):
        site, asked = self.site, self.headers.get("Range")
        site.asked.append(asked)
        if site.statuses and (status := site.statuses.pop(0)) != 200:
            self.send_response(status)
            if site.retry_after:
                self.send_header("Retry-After", site.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
        if self.headers.get("If-Range") not in (None, site.etag):
            first = 0
        if first and first >= len(site.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_body(site.body[first:], first)

    def send_body(self, body: bytes, first: int):
        site = self.site
        self.send_response(206 if first else 200)
        if first:
            whole = len(site.body)
            self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
        if site.etag:
            self.send_header("ETag", site.etag)
        length = len(body) if site.announce is None else site.announce - first
        self.send_header("Content-Length", str(length))
        self.end_headers()
        cut = site.break_after.pop(0) if site.break_after else len(body)
        for start in range(0, cut, 50_000):
            self.wfile.write(body[start : min(start + 50_000, cut)])
            time.sleep(site.pause_seconds)
        self.wfile.flush()
        self.close_connection = True


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("LLM_CORE_OFFLINE", raising=False)
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.001)
    served = Site()
    handler = type("SiteHandler", (Handler,), {"site": served})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/data.bin"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield served
        server.shutdown()


def fetch(site: Site, folder, known: str | None = sha256(BODY)):
    file = RemoteFile("data.bin", (site.url,), known)
    return download.fetch(file, folder, REMEDY, progress=False)


def visible(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# --- what goes well -----------------------------------------------------------------------------


def test_a_file_arrives_and_is_not_asked_for_again(site, tmp_path):
    path = fetch(site, tmp_path)
    assert path.read_bytes() == BODY
    assert fetch(site, tmp_path) == path
    assert site.asked == [None]
    assert visible(tmp_path) == ["data.bin"]


def test_a_download_that_breaks_off_is_resumed_where_it_broke(site, tmp_path):
    site.break_after = [400_000, 300_000]
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert site.asked == [None, "bytes=400000-", "bytes=700000-"]
    assert visible(tmp_path) == ["data.bin"]


def test_a_process_killed_while_downloading_leaves_a_part_that_the_next_one_resumes(site, tmp_path):
    site.pause_seconds = 0.05
    code = (
        "from llm_core import download; from pathlib import Path;"
        f"file = download.RemoteFile('data.bin', ({site.url!r},), {sha256(BODY)!r});"
        f"download.fetch(file, Path({str(tmp_path)!r}), '', progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    part = tmp_path / "data.bin.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    assert 0 < had < len(BODY)
    site.pause_seconds = 0.0
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert site.asked == [None, f"bytes={had}-"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data.bin", ".data.bin.part.lock"}, "nothing of the killed one is left behind"


def test_a_server_that_ignores_ranges_makes_the_download_start_over(site, tmp_path):
    site.break_after, site.ranges = [400_000], False
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert site.asked == [None, "bytes=400000-"]


def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_part(site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(OTHER[:500_000])
    (tmp_path / "data.bin.part.json").write_text(f'{{"url": "{site.url}", "version": "\\"v0\\""}}')
    assert fetch(site, tmp_path).read_bytes() == BODY


def test_a_part_of_unknown_origin_is_thrown_away_where_no_hash_could_expose_it(site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(OTHER[:500_000])
    assert fetch(site, tmp_path, known=None).read_bytes() == BODY
    assert site.asked == [None]


def test_a_busy_server_is_asked_again_until_it_recovers(site, tmp_path):
    site.statuses = [503, 429, 502]
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert len(site.asked) == 4


def test_a_server_that_says_when_to_come_back_is_obeyed(site, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    site.statuses, site.retry_after = [503, 503], "7"
    fetch(site, tmp_path)
    assert waits[:2] == [7, 7]


def test_waiting_grows_from_attempt_to_attempt(site, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    site.statuses = [503] * 4
    fetch(site, tmp_path)
    ratios = [later / earlier for earlier, later in itertools.pairwise(waits[:4])]
    assert ratios == pytest.approx([2, 2, 2])


def test_a_mirror_is_tried_when_the_first_address_fails(site, tmp_path):
    site.statuses = [404]
    file = RemoteFile("data.bin", (f"{site.url}?gone", site.url), sha256(BODY))
    assert download.fetch(file, tmp_path, REMEDY, progress=False).read_bytes() == BODY


def test_progress_is_shown_only_when_wanted(site, tmp_path, capfd):
    fetch(site, tmp_path)
    assert capfd.readouterr().err == ""
    file = RemoteFile("again.bin", (site.url,), sha256(BODY))
    download.fetch(file, tmp_path, REMEDY)
    assert "again.bin" in capfd.readouterr().err


# --- what does not ------------------------------------------------------------------------------


def test_wrong_bytes_are_removed_and_both_hashes_are_named(site, tmp_path):
    site.body = OTHER
    with pytest.raises(ChecksumError) as raised:
        fetch(site, tmp_path)
    assert sha256(BODY) in str(raised.value)
    assert sha256(OTHER) in str(raised.value)
    assert visible(tmp_path) == []


def test_a_damaged_file_in_the_folder_is_replaced(site, tmp_path):
    (tmp_path / "data.bin").write_bytes(BODY[:-1] + b"x")
    assert fetch(site, tmp_path).read_bytes() == BODY


def test_a_server_that_announces_more_than_it_sends_is_found_out(site, tmp_path):
    site.announce, site.ranges = len(BODY) + 1000, False
    with pytest.raises(DownloadError, match=f"failed {download.ATTEMPTS} times"):
        fetch(site, tmp_path)
    assert not (tmp_path / "data.bin").exists()


def test_a_false_length_does_no_harm_where_the_server_can_tell_the_end(site, tmp_path):
    site.announce = len(BODY) + 1000
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert site.asked == [None, f"bytes={len(BODY)}-"]


def test_a_server_that_announces_less_than_the_file_is_found_out(site, tmp_path):
    site.announce = len(BODY) - 1000
    with pytest.raises(ChecksumError, match=sha256(BODY[:-1000])):
        fetch(site, tmp_path)
    assert visible(tmp_path) == []


def test_a_missing_file_is_an_error_at_once(site, tmp_path):
    site.statuses = [404] * 9
    with pytest.raises(DownloadError, match="404"):
        fetch(site, tmp_path)
    assert len(site.asked) == 1


def test_a_server_that_stays_down_is_given_up(site, tmp_path):
    site.statuses = [503] * 99
    with pytest.raises(DownloadError, match="503") as raised:
        fetch(site, tmp_path)
    assert not isinstance(raised.value, OfflineError)
    assert len(site.asked) == download.ATTEMPTS


def test_a_download_that_always_breaks_is_given_up_but_keeps_what_came(site, tmp_path):
    site.break_after, site.ranges = [300_000] * 99, False
    with pytest.raises(DownloadError, match="broke"):
        fetch(site, tmp_path)
    assert len(site.asked) == download.ATTEMPTS
    assert (tmp_path / "data.bin.part").read_bytes() == BODY[:300_000]


def test_without_a_network_the_error_says_what_to_do(site, tmp_path):
    nobody = RemoteFile("data.bin", ("http://127.0.0.1:9/data.bin",), sha256(BODY))
    with pytest.raises(OfflineError, match=f"no network.*{REMEDY}"):
        download.fetch(nobody, tmp_path, REMEDY, progress=False)


def test_offline_mode_asks_nobody_and_says_what_to_do(site, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_CORE_OFFLINE", "1")
    with pytest.raises(OfflineError, match=rf"data\.bin is absent.*{REMEDY}"):
        fetch(site, tmp_path)
    (tmp_path / "data.bin").write_bytes(OTHER)
    with pytest.raises(OfflineError, match="not the right file"):
        fetch(site, tmp_path)
    (tmp_path / "data.bin").write_bytes(BODY)
    assert fetch(site, tmp_path).read_bytes() == BODY
    assert site.asked == []


# --- trust on first use -------------------------------------------------------------------------


def test_a_file_without_a_published_hash_is_trusted_once_and_then_held_to_it(
    site, tmp_path, capsys
):
    fetch(site, tmp_path, known=None)
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert sha256(BODY) in told
    assert (tmp_path / "data.bin.sha256").read_text() == f"{sha256(BODY)}  data.bin\n"
    (tmp_path / "data.bin").unlink()
    site.body = OTHER
    with pytest.raises(ChecksumError, match=sha256(OTHER)):
        fetch(site, tmp_path, known=None)
    site.body = BODY
    fetch(site, tmp_path, known=None)
    assert capsys.readouterr().out == ""


def test_two_downloads_of_one_file_at_once_do_not_disturb_each_other(site, tmp_path):
    site.pause_seconds = 0.002
    racing = [threading.Thread(target=fetch, args=(site, tmp_path)) for _ in range(3)]
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join(timeout=30)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert len(site.asked) == 1
