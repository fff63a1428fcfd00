"""Tokenizers side by side: how fast they learn and how fast they encode, on two threads.

    python bench/tokenizer.py           # an hour or so; writes results/tokenizer.json
    python bench/tokenizer.py --quick   # a minute, one round of the small sizes, prints only

Every measurement is a fresh process that imports, warms up on a few words (which loads or compiles
what there is to compile) and then does the job once, from a file of UTF-8. Rounds are interleaved:
all contenders in turn, then all again, so that a slow minute of the machine hits everyone. Reported
are medians, the spread, peak memory and the ratio to the fastest peer.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

from record import in_fresh_process, machine, parser, record_path, write_record
from tqdm.auto import tqdm

from llm_core.runtime import peak_memory, timer

N_THREADS = 2
THREADS = {"RAYON_NUM_THREADS": str(N_THREADS), "TOKENIZERS_PARALLELISM": "true"}
DOCUMENT_CHARACTERS = 100_000
WORDS = "a few words, don't you think? 123 words! "
Measured = dict[str, Any]


# --- the corpus -----------------------------------------------------------------------------------


def write_corpus(path: Path, n_megabytes: int) -> dict[str, Any]:
    """Python source of the installed packages, in an order that mixes them; what it is, in words.

    Files come by the hash of their path below site-packages. If they do not suffice, they repeat.
    """
    folder = Path(sysconfig.get_paths()["purelib"])
    files = [p for p in folder.rglob("*.py") if p.is_file() and "__pycache__" not in p.parts]
    files.sort(key=lambda p: hashlib.sha256(p.relative_to(folder).as_posix().encode()).digest())
    wanted = n_megabytes * 10**6
    distinct = min(wanted, sum(source.stat().st_size for source in files))
    with path.open("wb") as corpus:
        for source in cycle(files):
            text = source.read_bytes()[: wanted - corpus.tell()]
            corpus.write(text.decode("utf-8", errors="ignore").encode("utf-8"))
            if wanted - corpus.tell() < 4:  # bytes, which may be part of a character
                break
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    what = "Python source of the installed packages (site-packages/**/*.py)"
    return {"what": what, "megabytes": n_megabytes, "distinct_bytes": distinct, "sha256": digest}


def documents(path: Path) -> Iterator[str]:
    """The text in documents of about 100,000 characters, cut at line ends."""
    with path.open(encoding="utf-8", newline="") as file:
        while lines := file.readlines(DOCUMENT_CHARACTERS):
            yield "".join(lines)


# --- learning: (corpus, vocab_size) -> number of tokens -------------------------------------------


def learn_llm_core(corpus: Path, vocab_size: int) -> int:
    from llm_core.tokenizer import train_bpe

    return train_bpe(corpus, vocab_size, n_processes=N_THREADS).vocab_size


def learn_rustbpe(corpus: Path, vocab_size: int) -> int:
    import rustbpe

    from llm_core.scanner import GPT2_PATTERN

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(documents(corpus), vocab_size, pattern=GPT2_PATTERN)
    return len(tokenizer.get_mergeable_ranks())


def learn_tokenizers(corpus: Path, vocab_size: int) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2's pattern
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents(corpus), trainer)
    return tokenizer.get_vocab_size()


def learn_naively(corpus: Path, vocab_size: int) -> int:
    """The definition in Python: distinct pre-tokens, all pairs counted anew for every merge."""
    import regex

    from llm_core.scanner import GPT2_PATTERN

    counts = Counter(regex.findall(GPT2_PATTERN, corpus.read_text(encoding="utf-8")))
    words = [(list(word.encode("utf-8")), count) for word, count in counts.items()]
    for new in range(256, vocab_size):
        pairs: Counter[tuple[int, int]] = Counter()
        for word, count in words:
            for pair in pairwise(word):
                pairs[pair] += count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        for word, _ in words:
            k = 0
            while k < len(word) - 1:
                if (word[k], word[k + 1]) == best:
                    word[k : k + 2] = [new]
                k += 1
    return vocab_size


LEARNERS: dict[str, Callable[[Path, int], int]] = {
    "llm_core": learn_llm_core,
    "rustbpe": learn_rustbpe,
    "tokenizers": learn_tokenizers,
    "naive": learn_naively,
}


def measure_learning(contender: str, corpus: Path, vocab_size: int) -> Measured:
    learn = LEARNERS[contender]
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder, "words.txt")
        words.write_text(WORDS, encoding="utf-8")
        learn(words, 260)
    with timer() as clock:
        n_tokens = learn(corpus, vocab_size)
    return {"seconds": clock.seconds, "n_tokens": n_tokens}


# --- encoding: text in memory or file -> ids ------------------------------------------------------


def digest_of(ids: Any) -> str:
    """Identifies a sequence of ids."""
    import numpy as np

    return hashlib.sha256(np.asarray(ids, dtype="<u4").tobytes()).hexdigest()


def encode_llm_core(tokenizer: Any, corpus: Path, n_threads: int) -> Measured:
    """Texts are in memory before; ids are in files, with their hash, after."""
    import numpy as np

    texts = list(documents(corpus))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ids")
        with timer() as clock:
            manifest = tokenizer.encode_to_file(texts, path, n_threads, progress=False)
        ids = [np.fromfile(path.with_name(row["file"]), "<u2") for row in manifest["shards"]]
        return {"seconds": clock.seconds, "digest": digest_of(np.concatenate(ids))}


def encode_tiktoken(tokenizer: Any, corpus: Path, n_threads: int) -> Measured:
    """The batch call alone: texts are in memory before, ids stay in lists."""
    encoding, texts = tokenizer.to_tiktoken(), list(documents(corpus))
    with timer() as clock:
        ids = encoding.encode_ordinary_batch(texts, num_threads=n_threads)
    return {"seconds": clock.seconds, "digest": digest_of([i for part in ids for i in part])}


def encode_tokenizers(tokenizer: Any, corpus: Path, n_threads: int) -> Measured:
    """The batch call alone, by 100 texts, for all of them would not fit into memory."""
    import tokenizers

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.to_hf(Path(folder, "t.json"))
        peer = tokenizers.Tokenizer.from_file(str(Path(folder, "t.json")))
    texts, ids = list(documents(corpus)), []
    seconds = 0.0
    for k in range(0, len(texts), 100):
        with timer() as clock:
            encodings = peer.encode_batch_fast(texts[k : k + 100], add_special_tokens=False)
        seconds += clock.seconds
        ids += [i for encoding in encodings for i in encoding.ids]
    return {"seconds": seconds, "digest": digest_of(ids)}


def encode_python_cache(tokenizer: Any, corpus: Path, n_threads: int) -> Measured:
    """regex, and a dict from pre-token to ids in front of tiktoken: cold, then warm."""
    import regex

    encoding, texts = tokenizer.to_tiktoken(), list(documents(corpus))
    find_all = regex.compile(tokenizer.pattern).findall
    known: dict[str, list[int]] = {}
    seconds, ids = [], []
    for _ in ("cold", "warm"):
        ids = []
        with timer() as clock:
            for text in texts:
                for piece in find_all(text):
                    if piece not in known:
                        known[piece] = encoding._encode_single_piece(piece)
                    ids.extend(known[piece])
        seconds.append(clock.seconds)
    return {"seconds": seconds[0], "seconds_warm": seconds[1], "digest": digest_of(ids)}


ENCODERS: dict[str, tuple[Callable[[Any, Path, int], Measured], int]] = {
    "llm_core": (encode_llm_core, N_THREADS),
    "tiktoken": (encode_tiktoken, N_THREADS),
    "tokenizers": (encode_tokenizers, N_THREADS),
    "llm_core, one thread": (encode_llm_core, 1),
    "tiktoken, one thread": (encode_tiktoken, 1),
    "python cache, one thread": (encode_python_cache, 1),
}
JOB = ("task", "megabytes", "vocab_size")
PEERS_IN_ENCODING = {2: ("tiktoken", "tokenizers"), 1: ("tiktoken, one thread",)}


def measure_encoding(contender: str, corpus: Path, tokenizer_file: Path) -> Measured:
    from llm_core.tokenizer import Tokenizer

    encode, n_threads = ENCODERS[contender]
    tokenizer = Tokenizer.load(tokenizer_file)
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder, "words.txt")
        words.write_text(WORDS, encoding="utf-8")
        encode(tokenizer, words, n_threads)
    return encode(tokenizer, corpus, n_threads)


def measure_first_call() -> Measured:
    """Importing and learning from a few words: it compiles, if the cache folders are empty."""
    with timer() as clock:
        from llm_core.tokenizer import train_bpe

        train_bpe(WORDS, 260).encode_array(WORDS)
    return {"seconds": clock.seconds}


# --- running --------------------------------------------------------------------------------------


def do(job: dict[str, Any]) -> Measured:
    """One job, in this process."""
    if job["task"] == "learn":
        done = measure_learning(job["contender"], Path(job["corpus"]), job["vocab_size"])
    elif job["task"] == "encode":
        done = measure_encoding(job["contender"], Path(job["corpus"]), Path(job["tokenizer"]))
    else:
        done = measure_first_call()
    return {**done, "peak_memory": peak_memory()}


def summary(job: dict[str, Any], runs: list[Measured]) -> dict[str, Any]:
    """The row of one contender: all times, their median, speed, the most memory."""
    seconds = [run["seconds"] for run in runs]
    row = {key: job[key] for key in ("task", "contender", "megabytes", "vocab_size") if key in job}
    row |= {"seconds": seconds, "median_seconds": statistics.median(seconds)}
    if "megabytes" in job:
        row["megabytes_per_second"] = job["megabytes"] / row["median_seconds"]
    if "seconds_warm" in runs[0]:
        row["median_seconds_warm"] = statistics.median(run["seconds_warm"] for run in runs)
    row["peak_memory_megabytes"] = max(run["peak_memory"] for run in runs) / 10**6
    return row


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """To each row how many times as fast it was as the fastest peer at the same job."""
    for row in rows:
        if row["task"] == "first call":
            continue
        names = ("rustbpe", "tokenizers")
        if row["task"] == "encode":
            names = PEERS_IN_ENCODING[1 if "one thread" in row["contender"] else 2]
        same_job = [r for r in rows if all(r.get(k) == row[k] for k in JOB)]
        peers = [r["median_seconds"] for r in same_job if r["contender"] in names]
        row["times_best_peer"] = min(peers) / row["median_seconds"]
        if "median_seconds_warm" in row:
            row["times_best_peer_warm"] = min(peers) / row["median_seconds_warm"]


def jobs(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """What is measured in each round."""
    learning = [(1, 4096)] if quick else [(m, v) for m in (1, 10, 100) for v in (4096, 32768)]
    todo: list[dict[str, Any]] = []
    for megabytes, vocab_size in learning:
        corpus = str(folder / f"{megabytes}.txt")
        job = {"task": "learn", "megabytes": megabytes, "vocab_size": vocab_size, "corpus": corpus}
        todo += [{**job, "contender": name} for name in LEARNERS if name != "naive"]
    naive_size = 320 if quick else 4096
    job = {
        "task": "learn",
        "megabytes": 1,
        "vocab_size": naive_size,
        "corpus": str(folder / "1.txt"),
    }
    todo.append({**job, "contender": "naive"})
    if quick:
        todo += [{**job, "contender": name} for name in LEARNERS if name != "naive"]
    for megabytes in (1,) if quick else (10, 100):
        job = {"task": "encode", "megabytes": megabytes, "vocab_size": 32768}
        job |= {"corpus": str(folder / f"{megabytes}.txt"), "tokenizer": str(folder / "t.json")}
        todo += [{**job, "contender": name} for name in ENCODERS]
    return todo


def measure_all(folder: Path, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """All rounds of all jobs; the naive trainer only in the first, for it takes minutes."""
    todo = jobs(folder, quick)
    runs: list[list[Measured]] = [[] for _ in todo]
    with tqdm(total=rounds * len(todo) + 2) as bar:
        for number in range(rounds):
            for job, done in zip(todo, runs, strict=True):
                bar.set_description(f"{job['task']} {job['megabytes']} MB {job['contender']}")
                if number == 0 or job["contender"] != "naive":
                    done.append(in_fresh_process(job, **THREADS))
                bar.update()
        first = {"LLM_CORE_CACHE": str(folder / "c"), "NUMBA_CACHE_DIR": str(folder / "n")}
        rows = []
        for name in ("llm_core, compiling", "llm_core, from the cache"):
            job = {"task": "first call", "contender": name}
            rows.append(summary(job, [in_fresh_process(job, **THREADS, **first)]))
            bar.update()
    digests: dict[int, set[str]] = {}
    for job, done in zip(todo, runs, strict=True):
        if job["task"] == "encode":
            digests.setdefault(job["megabytes"], set()).update(run["digest"] for run in done)
    if any(len(found) > 1 for found in digests.values()):
        raise SystemExit("the contenders' ids differ; no speed is worth comparing")
    rows = [summary(job, done) for job, done in zip(todo, runs, strict=True)] + rows
    add_ratios(rows)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table on the screen."""
    head = ("task", "MB", "vocab", "contender", "median s", "x peer", "memory")
    print("{:10} {:>4} {:>6} {:26} {:>9} {:>7} {:>6}".format(*head))
    for row in rows:
        ratio = f"{row['times_best_peer']:.2f}" if "times_best_peer" in row else ""
        warm = row.get("median_seconds_warm")
        print(
            f"{row['task']:10} {row.get('megabytes', ''):>4} {row.get('vocab_size', ''):>6} "
            f"{row['contender']:26} {row['median_seconds']:9.3f} {ratio:>7} "
            f"{row['peak_memory_megabytes']:6.0f}" + (f"  warm {warm:.3f}" if warm else "")
        )


def main() -> None:
    """Read the command line, measure, print, write."""
    arguments = parser(__doc__, "tokenizer", "small sizes", rounds=5).parse_args()
    if arguments.job:
        print(json.dumps(do(json.loads(arguments.job))))
        return
    here = machine()
    from llm_core.tokenizer import train_bpe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = (1,) if arguments.quick else (1, 10, 100)
        corpora = [write_corpus(folder / f"{size}.txt", size) for size in sizes]
        train_bpe(folder / f"{sizes[:2][-1]}.txt", 32768).save(folder / "t.json")
        rows = measure_all(folder, arguments.quick, 1 if arguments.quick else arguments.rounds)
    show(rows)
    out = record_path(arguments, "tokenizer")
    packages = ("tiktoken", "tokenizers", "rustbpe", "numba", "numpy", "regex")
    write_record(out, here, packages, threads=N_THREADS, corpora=corpora, rows=rows)


if __name__ == "__main__":
    main()
