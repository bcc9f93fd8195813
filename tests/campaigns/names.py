"""Hostile names, numbers and streams in every option of every command: `python -m tests.campaigns names [CASES]`.

The commands and their parameters are those of the command line itself, so that a new command is covered. Each case
ends within `fuzz.SECONDS` as a right result or as one sentence (exit code 2), and changes no file that was there
before.
"""

from __future__ import annotations

import os
import signal
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import typer

from superb_eval.cli.app import app
from tests.campaigns.commands import type_command

SECONDS = 60
LONGEST = 10_000
"""Characters of a refusal besides what was typed, which it may quote."""

SHORT = ("-o", "train.steps=2", "-o", "train.eval_every=1", "-o", "train.batch_size=4")
DATA = ("--data", "{data}")
BASE: dict[str, tuple[str, ...]] = {
    "run": ("ks", "-u", "fbank_nonorm", *DATA, "--out", "{out}", "--store", "{store}", *SHORT),
    "predict": ("{run}", "{data}/audio/no0.wav"),
    "onnx": ("{run}", "--out", "{out}/model.onnx"),
    "suite": (
        "-u",
        "fbank_nonorm",
        "--tasks",
        "ks",
        *DATA,
        "--out",
        "{out}",
        "--store",
        "{store}",
        "--dry-run",
        *SHORT,
    ),
    "plan": ("-u", "fbank_nonorm", "--tasks", "ks", *DATA, "--out", "{results}", "--store", "{store}", *SHORT),
    "board": ("{results}", "--once"),
    "quick": ("fbnk",),
    "pretrain": ("hubert_toy", "--out", "{out}", "--data", "audio={none}"),
    "distill": ("distilhubert_toy", "--out", "{out}", "--data", "audio={none}", "--teacher", "hubert_nano@random"),
    "cost": ("fbank", "--seconds", "0.5", "--rounds", "3"),
    "table": ("{results}",),
    "verify": ("{results}", "--quick"),
    "report": ("{results}", "--out", "{out}/report.html", "--audio-mb", "0"),
    "layers": ("fbank", *DATA, "--out", "{out}", "--store", "{store}", "-o", "train.stpes=2"),
    "merge": ("{results}", "--out", "{out}"),
    "export": ("{results}", "--model-card", "fbank_nonorm"),
    "upstream show": ("fbank",),
    "upstream check": ("fbank", "--no-cost"),
    "upstream new": ("my_encoder", "--out", "{out}"),
    "upstream export": ("hubert_nano@random", "--out", "{out}"),
    "recipe copy": ("ks", "--out", "{out}/ks.yaml"),
    "recipe rates": ("ks",),
    "recipe show": ("ks",),
    "corpus new": ("ks", "{words}", "--out", "{out}", "--speaker", r"^(\w+)_nohash"),
    "corpus check": ("ks", *DATA),
    "corpus export": ("ks", *DATA, "--out", "{out}"),
    "corpus synth": ("--out", "{out}", "--size", "nano", "--tasks", "ksx"),
}
"""Words with which each command ends soon."""

TEXTS = (
    *("", " ", "x" * 300, "a/" * 3000, "x" * 100_000, "\x1b[31mred\x07", "\u202egnp.exe", "line\nfeed", "tab\tbed"),
    *("nan", "-1", "1e999", "9" * 5000, "..", "../../etc/passwd", "@", ":", "=", ",", ",,,", "@random:", "a@b@c"),
    *("hubert@random:" + "9" * 30, "hubert@random:²", "hf:", "s3prl:", "checkpoint:", "x.py:", "torchaudio:\x1b[2J"),
    *("train.steps=1e20", "train=[", "a: &a [*a]", "x=" + "[" * 3000, "head=" + "{a: " * 3000, "*", "(((", "[" * 99),
    *("caf\u00e9", "\u65e5\u672c", "\udcff", "%s%n", "{data}", "${HOME}", "~", "ks,ks,ks", "all", "NAME=x", "x=y"),
)
FILES = ("loop", "dangling", "pipe", "null", "full", "zero", "folder", "file", "own", "locked", "loop/x", "file/x")
OUTPUTS = ("file", "gone")
"""Which a case may write; the second is behind the link `dangling`."""

INTEGERS = ("-1", "0", "4294967296", "9223372036854775808", "1" + "0" * 30, "nan", "1.5", "", "0x10", "1_000", "²")
NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1e308", "1e-320", "1e999", "", "1,5", "0x1p3")


@dataclass(frozen=True)
class Case:
    """A command, the words that are typed after it, and the parameter with the hostile value."""

    command: str
    words: tuple[str, ...]
    parameter: str

    def __str__(self) -> str:
        return f"{self.command} [{self.parameter}] {' '.join(word[:80] for word in self.words)!r}"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command of the command line, by its words."""

    def walk(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in sorted(group.commands.items()):
            if hasattr(command, "commands"):
                yield from walk(command, (*words, name))
            else:
                yield " ".join((*words, name)), command

    return walk(typer.main.get_command(app), ())


def cases(places: dict[str, str]) -> list[Case]:
    """Return every hostile value in every parameter of every command; `places` fill the words of `BASE`."""
    found = []
    for name, command in commands():
        base = [_filled(word, places) for word in BASE.get(name, ())]
        for place, parameter in enumerate(command.params):
            for value in _values(parameter, places):
                if parameter.param_type_name == "argument":
                    words = [*base[:place], value, *base[place + 1 :]]
                else:
                    words = [*base, f"{parameter.opts[-1]}={value}"]
                found.append(Case(name, tuple(words), parameter.name))
    return found


def _filled(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(f"{{{name}}}", path)
    return word


def _values(parameter: Any, places: dict[str, str]) -> Sequence[str]:
    kind = str(parameter.type_descriptor.annotation)
    if "int" in kind:
        return INTEGERS
    if "float" in kind:
        return NUMBERS
    if "bool" in kind:
        return ()
    hostile = [f"{places['hostile']}/{name}" for name in FILES]
    return [*hostile, *TEXTS]


def make_places(folder: Path) -> dict[str, str]:
    """Write what the commands read, and hostile files; return their paths by name."""
    places = {name: str(folder / name) for name in ("data", "words", "results", "store", "hostile", "none", "out")}
    _write_audio(folder)
    _write_hostile(folder / "hostile")
    called = type_command("run", *(_filled(word, {**places, "out": places["results"]}) for word in BASE["run"]))
    assert called.code == 0, called.err
    places["run"] = str(next((folder / "results").glob("*/*/*/result.json")).parent)
    return places


def _write_audio(folder: Path) -> None:
    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        for word in ("no", "yes"):
            wave = 0.1 * rng.standard_normal(1600)
            clip = folder / "words" / word / f"s{number}_nohash_0.wav"
            for path in (clip, folder / "data/audio" / f"{word}{number}.wav"):
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, wave, 16_000)
            rows.append(f"{word}{number},audio/{word}{number}.wav,s{number},{word}")
    (folder / "data/ks").mkdir()
    for split in ("train", "dev", "test"):
        (folder / f"data/ks/{split}.csv").write_text("\n".join(["id,path,speaker,keyword", *rows]) + "\n")


def _write_hostile(folder: Path) -> None:
    """Write the files named in `FILES`; `own` is a folder of a user's with the names that commands write."""
    (folder / "folder").mkdir(parents=True)
    for name in ("log.csv", "recipe.yaml", "ks/train.csv", "train/metadata.parquet", "config.json", "README.md"):
        path = folder / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a user's own")
    (folder / "file").write_text("some text\n")
    (folder / "locked").mkdir(mode=0)
    os.mkfifo(folder / "pipe")
    # Links, so that a command that replaces its output replaces no device of this machine.
    targets = {"loop": "loop", "dangling": "gone", "null": "/dev/null", "full": "/dev/full", "zero": "/dev/zero"}
    for name, target in targets.items():
        (folder / name).symlink_to(target)


def attempt(case: Case, places: dict[str, str], folder: Path) -> str:
    """Type a case's command; return "accepted", "refused", or what must not occur."""
    before = _snapshot(folder)
    out = tempfile.mkdtemp(dir=folder, prefix="out")
    words = [word.replace(places["out"], out) if word.startswith(places["out"]) else word for word in case.words]
    started = time.monotonic()
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    try:
        called = type_command(*case.command.split(), *words)
    finally:
        signal.alarm(0)
    changed = [path for path, content in before.items() if _content(Path(path)) != content]
    if changed:
        return f"changed {changed[0]}"
    if time.monotonic() - started > SECONDS:
        return "late"
    if called.code == 0:
        return "accepted"
    if called.refused and len(called.err) <= LONGEST + 2 * sum(map(len, words)):
        return "refused"
    return f"exit code {called.code}: {called.err.strip()[-300:]}"


def _late(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _snapshot(folder: Path) -> dict[str, str]:
    """Return what must stay: everything but the feature store, and files that a case may name as its output."""
    kept = ("data", "words", "results", "hostile")
    paths = (path for name in kept for path in [folder / name, *(folder / name).rglob("*")])
    return {str(path): _content(path) for path in paths if path.name not in OUTPUTS and "layers" not in path.parts}


def _content(path: Path) -> str:
    """Return the kind of a file, and what it holds or points to."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return "gone"
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"
    return path.read_bytes().hex() if stat.S_ISREG(mode) and path.stat().st_size < 10**5 else str(stat.S_IFMT(mode))


def run(count: int | None, seed: int = 0, only: Sequence[str] = ()) -> tuple[Counter[str], list[str]]:
    """Try `count` cases drawn by a seed (None: all) of the commands `only`; return counts, and what must not occur."""
    counts: Counter[str] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        places = make_places(folder)
        chosen = [case for case in cases(places) if not only or case.command in only]
        if count is not None:
            chosen = Random(seed).sample(chosen, min(count, len(chosen)))
        home = Path.cwd()
        work = folder / "work"
        work.mkdir()
        os.chdir(work)
        try:
            for case in chosen:
                outcome = attempt(case, places, folder)
                known = outcome in ("accepted", "refused")
                counts[outcome if known else "other"] += 1
                faults += [] if known else [f"{case}: {outcome}"]
        finally:
            os.chdir(home)
        (folder / "hostile/locked").chmod(0o700)
    return counts, faults


def main(arguments: Sequence[str]) -> int:
    """Run the long form; the arguments are a number of cases, or names of commands."""
    count = int(arguments[0]) if arguments and arguments[0].isdecimal() else None
    counts, faults = run(count, only=[] if count is not None else arguments)
    for fault in faults:
        print(f"  {fault}")
    print(f"names: {counts['accepted']} accepted, {counts['refused']} refused with a sentence, {counts['other']} other")
    return int(bool(faults))
