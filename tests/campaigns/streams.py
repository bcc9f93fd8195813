"""Tables and streams of text that somebody else wrote: damaged by bytes, beyond all bounds, or no regular files at all.

Each case is a corpus folder with one file replaced, and `superb-eval corpus check` of it as typed: exit code 0, or 2
and a sentence of bounded length, within `fuzz.SECONDS` and `GIGABYTES` more, and nothing in the folder is changed.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from tests.campaigns import data_folders, mutations
from tests.campaigns.commands import type_command
from tests.campaigns.fuzz import GIGABYTES, MAX_CHARACTERS, bounded, time_limit

WORDS = (b'"', b",", b'""', b"../a.wav", b"u1", b"\t", b"\x1b[2J", b"\r", b"[" * 5000, b"{" * 5000, b"1" * 5000)
SPLITS, NAMES = ("train", "dev", "test"), ("a.wav", "b.wav", "c.wav", "d.wav")


@dataclass(frozen=True)
class Stream:
    """Files of a corpus of `task` by their path in its folder; those of `damaged` are replaced, one at a time."""

    task: str
    files: dict[str, str | bytes]
    damaged: tuple[str, ...]


def _each(file: str, content: str, splits: Sequence[str] = SPLITS) -> dict[str, str | bytes]:
    return {file.replace("SPLIT", split): content.replace("SPLIT", split) for split in splits}


def _both(rows: str) -> str:
    return rows.replace("SPLIT", "dev") + rows.replace("SPLIT", "test")


ROWS = [f"u{k},SPLIT/{NAMES[k]},SPLIT{k % 2},{('yes', 'no')[k % 2]},,\n" for k in range(4)]
TABLE = "id,path,speaker,keyword,start,end\n" + "".join(ROWS)
TURNS = [f"SPEAKER u{k} 1 {n} 1.5 <NA> <NA> {who} <NA> <NA>\n" for k in range(4) for n, who in enumerate("ab")]
TRIALS = "enroll,test,target\nu0,u2,1\nu0,u1,0\nu1,u3,1\n"
QUERIES = "id,path,speaker,split\n" + _both("qSPLIT,SPLIT/a.wav,s,SPLIT\n")
DOCS = "id,path,speaker,split\n" + _both("aSPLIT,SPLIT/b.wav,s,SPLIT\nbSPLIT,SPLIT/c.wav,s,SPLIT\n")
PAIRS = "split,query,doc,label\n" + _both("SPLIT,qSPLIT,aSPLIT,1\nSPLIT,qSPLIT,bSPLIT,0\n")
METADATA = "".join(
    json.dumps({"file_name": name, "speaker": f"s{k}", "keyword": ("yes", "no")[k % 2]}) + "\n"
    for k, name in enumerate(NAMES)
)
RECORDING = {**data_folders.RECORDING, "sources": [{"type": "file", "channels": [0], "source": "SPLIT/a.wav"}]}
RECORDING |= {"num_samples": 48_000, "duration": 3.0}
SUPERVISION = {**data_folders.SUPERVISION, "custom": {"keyword": "yes"}}


def _lhotse(kind: str, content: object) -> dict[str, str | bytes]:
    lines = _each(f"{kind}_SPLIT.jsonl.gz", json.dumps(content))
    return {file: gzip.compress(str(line).encode(), mtime=0) for file, line in lines.items()}


STREAMS = {
    "csv": Stream("ks", _each("ks/SPLIT.csv", TABLE), ("ks/train.csv", "ks/test.csv")),
    "description": Stream("ks", {**_each("ks/SPLIT.csv", TABLE), "corpus.json": '{"name": "mine"}'}, ("corpus.json",)),
    "trials": Stream(
        "asv",
        {**_each("asv/SPLIT.csv", TABLE), "asv/trials.csv": TRIALS, "asv/dev_trials.csv": TRIALS},
        ("asv/trials.csv",),
    ),
    "pairs": Stream(
        "qbe",
        {"qbe/queries.csv": QUERIES, "qbe/docs.csv": DOCS, "qbe/pairs.csv": PAIRS},
        ("qbe/pairs.csv", "qbe/docs.csv"),
    ),
    "rttm": Stream("sd", {**_each("sd/SPLIT.csv", TABLE), **_each("sd/SPLIT.rttm", "".join(TURNS))}, ("sd/dev.rttm",)),
    "json lines": Stream("ks", _each("SPLIT/metadata.jsonl", METADATA), ("train/metadata.jsonl",)),
    "lhotse": Stream(
        "ks",
        {**_lhotse("recordings", RECORDING), **_lhotse("supervisions", SUPERVISION)},
        ("supervisions_train.jsonl.gz", "recordings_train.jsonl.gz"),
    ),
    "kaldi": Stream(
        "asr",
        {
            **_each("SPLIT/wav.scp", "a a.wav\nb b.wav\n"),
            **_each("SPLIT/text", "a HI THERE\nb HI\n"),
            **_each("SPLIT/utt2spk", "a s\nb t\n"),
        },
        ("train/wav.scp", "train/text", "train/utt2spk"),
    ),
}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _bomb(path: Path) -> None:
    """A gigabyte in a megabyte where the reader decompresses, else as it is."""
    path.write_bytes(gzip.compress(b"[" * 2**30, 1, mtime=0) if path.suffix == ".gz" else b"a," * 2**20)


Replace = Callable[[Path], object]
"""Puts something in the place of a file."""

PLACES: dict[str, Replace] = {
    "pipe": _pipe,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("none"),
    "empty": lambda path: path.touch(),
    "sparse": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40),
    "one long line": lambda path: path.write_bytes(b"x" * 2**25),
    "many columns": lambda path: path.write_bytes(b",".join(b"c%d" % k for k in range(10**6))),
    "deep": lambda path: path.write_bytes(b'{"a":' * 10**5),
    "many digits": lambda path: path.write_bytes(b'{"name": %s}' % (b"9" * 10**5)),
    "other encoding": lambda path: path.write_bytes("id,path\nx,ä\n".encode("utf-16")),
    "nul": lambda path: path.write_bytes(bytes(10**5)),
    "bomb": _bomb,
}
"""What stands in the place of a file: no regular file, or one beyond all bounds."""


def run(mutated: int, seed: int = 0, places: Sequence[str] = tuple(PLACES)) -> Counter[str]:
    """Check so many damaged files of each stream, and each of `places`; return the counts of outcomes.

    The name of an outcome that must not occur is the case and what came of it.
    """
    counts: Counter[str] = Counter()
    for name, stream in STREAMS.items():
        rng = Random(f"{name} {seed}")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "corpus"
            write(stream, root)
            for case, file, replace in _cases(stream, rng, mutated, places):
                counts[_outcome(stream, root, file, replace, f"{name}, {case} for {file}")] += 1
    return counts


def _cases(stream: Stream, rng: Random, mutated: int, places: Sequence[str]) -> Iterator[tuple[str, str, Replace]]:
    for _ in range(mutated):
        file = rng.choice(stream.damaged)
        content = _changed(rng, stream.files[file])
        yield repr(content[:80]), file, partial(Path.write_bytes, data=content)
    for place in places:
        for file in stream.damaged:
            yield place, file, PLACES[place]


def _changed(rng: Random, content: str | bytes) -> bytes:
    """Return the file with bytes changed; of a compressed one, mostly of what it holds."""
    if isinstance(content, str):
        return mutations.mutate(rng, [content.encode()], WORDS)
    if rng.random() < 0.3:
        return mutations.mutate(rng, [content], WORDS)
    return gzip.compress(mutations.mutate(rng, [gzip.decompress(content)], WORDS), mtime=0)


def _outcome(stream: Stream, root: Path, file: str, replace: Replace, case: str) -> str:
    (root / file).unlink()
    replace(root / file)
    before = _snapshot(root)
    with bounded(GIGABYTES), time_limit():
        called = type_command("corpus", "check", stream.task, "--data", root)
    changed = _snapshot(root) != before
    _clear(root / file)
    _fill(root / file, stream.files[file])
    if changed:
        return f"{case}: changed the folder"
    if called.code == 0:
        return "accepted"
    if (
        called.refused
        and len(called.err) <= MAX_CHARACTERS
        and not any(text in called.err for text in ("\x1b", "memory ran out"))
    ):
        return "refused"
    return f"{case}: exit code {called.code}, {len(called.err)} characters: ...{called.err[-400:]}"


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


def write(stream: Stream, root: Path) -> None:
    """Write a stream's corpus, with audio of its own for each split."""
    for number, (split, name) in enumerate(product(SPLITS, NAMES)):
        (root / split).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / split / name, np.random.default_rng(number).normal(0, 0.1, 48_000), 16_000)
    for file, content in stream.files.items():
        (root / file).parent.mkdir(exist_ok=True)
        _fill(root / file, content)


def _fill(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _snapshot(root: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*"))


def main(words: Sequence[str]) -> int:
    """Run the long form, with so many damaged files of each stream; print the counts, and what must not occur."""
    counts = run(int(words[0]) if words else 80)
    for outcome, count in counts.items():
        print(f"{count} {outcome}")
    return int(not counts.keys() <= {"accepted", "refused"})
