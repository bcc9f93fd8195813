"""Results of strangers: `python -m tests.campaigns records [RECORDS] [FOLDERS]`: 1 000 records, 300 results folders.

Every command that reads results ends, within `SECONDS`, in a right result or in a sentence. Nothing that a folder names
is run, and no file outside a command's own output changes. A bad run takes no other out of a table.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from superb_eval.results import record as records
from tests.campaigns import hostile_results
from tests.campaigns.commands import TypedCommand, type_command

SECONDS = 60
"""Of a command: none of these folders holds more than a few runs."""

SHORT = ("train.steps=20", "train.eval_every=10", "train.batch_size=8", "train.lr=1e-2")

GOOD = "fbank_nonorm"
"""The upstream of the runs that nobody touches."""


class HangError(BaseException):
    """A command took more than `SECONDS`; no `except Exception` may hide it."""


@dataclass
class Campaign:
    """Counts of how commands ended, by command, and the first case of each kind that must not occur."""

    root: Path
    run: Path = Path()
    """The run of the present case that is hostile."""
    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    @property
    def results(self) -> Path:
        """The results folder of the present case."""
        return self.root / "case" / "results"

    def call(self, case: str, command: str) -> TypedCommand:
        """Type a command on the present case, and note what must not occur."""
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        before, began = _snapshot(self.root / "case"), time.monotonic()
        try:
            outcome = _within(SECONDS, lambda: type_command(*COMMANDS[command](self, out)))
        except HangError:
            outcome = TypedCommand(1, "", f"more than {SECONDS} s")
        self.slowest = max(self.slowest, time.monotonic() - began)
        self._judge(f"{case}, {command}", command, outcome)
        if _snapshot(self.root / "case") != before:
            self._fault("a file changed", f"{case}, {command}")
        if (self.root / "ran").exists():
            self._fault("code ran", f"{case}, {command}")
            (self.root / "ran").unlink()
        return outcome

    def report_progress(self, number: int) -> None:
        """Print how far a long campaign is, every hundred cases."""
        if number % 100 == 99:
            sys.stdout.write(f"{number + 1} cases: {self}\n")
            sys.stdout.flush()

    def _judge(self, case: str, command: str, outcome: TypedCommand) -> None:
        if outcome.code == 0 or outcome.refused:
            self.counts["refused" if outcome.code else "done"] += 1
        else:
            last = (outcome.err.strip().splitlines() or [f"exit code {outcome.code}"])[-1]
            self._fault(f"{command}: {last[:160]}", f"{case}\n{outcome.err[-1500:]}")
        if "\x1b[2J" in outcome.out + outcome.err:
            self._fault("an escape was printed", case)
        if len(outcome.err) > 60_000:
            self._fault("a message of great length", case)
        if command == "table" and outcome.code == 0 and GOOD not in outcome.out:
            self._fault("a bad run took others out of the table", case)
        if command == "table" and outcome.code != 0:
            self._fault("no table of the other runs", f"{case}\n{outcome.err[-1500:]}")

    def _fault(self, kind: str, case: str) -> None:
        self.counts["other"] += 1
        self.faults.setdefault(kind, case)

    def __str__(self) -> str:
        counted = f"{self.counts['done']} done, {self.counts['refused']} refused with a sentence"
        return f"{counted}, {self.counts['other']} other; the slowest took {self.slowest:.1f} s"


def _export(campaign: Campaign, out: Path) -> Sequence[object]:
    return ("export", campaign.results, "--submission", "theirs", "--out", out / "submission")


COMMANDS: dict[str, Callable[[Campaign, Path], Sequence[object]]] = {
    "table": lambda c, out: ("table", c.results, "--format", "csv"),
    "table --against": lambda c, out: ("table", c.results, "--against", GOOD, "--out", out / "table.md"),
    "table --historical": lambda c, out: ("table", c.results, "--historical", "--format", "latex"),
    "report": lambda c, out: ("report", c.results, "--out", out / "report.html", "--audio-mb", 0),
    "verify --quick": lambda c, out: ("verify", c.results, "--quick"),
    "verify": lambda c, out: ("verify", c.results, "--data", c.root / "corpus"),
    "verify --again": lambda c, out: ("verify", c.results, "--again", 1, "--store", out / "store"),
    "merge": lambda c, out: ("merge", f"them={c.results}", "--out", out / "merged"),
    "export --submission": _export,
    "export --model-card": lambda c, out: ("export", c.results, "--model-card", GOOD),
    "export --hub": lambda c, out: (
        "export",
        c.results,
        "--model-card",
        GOOD,
        "--hub",
        "a/b",
        "--predictions",
        "--dry-run",
    ),
    "predict": lambda c, out: ("predict", c.run, c.root / "clip.flac", "--scores"),
    "onnx": lambda c, out: ("onnx", c.run, "--out", out / "model.onnx"),
}

RARE = {"verify --again": 0.1, "onnx": 0.03, "report": 0.4}
"""How often the dearer commands are drawn, beside 1."""


def _within(seconds: int, call: Callable[[], TypedCommand]) -> TypedCommand:
    def late(number: int, frame: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        return call()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, size and time of change of everything in a folder, links not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def prepare(root: Path) -> None:
    """Write a corpus, two runs of one upstream, one of another, and what the records of strangers may name."""
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate
    from tests.conftest import write_tones
    from tests.results.runs import ten_tasks

    corpus = write_tones(root / "corpus", {"train": 6, "dev": 3, "test": 3})
    shutil.copy(next((corpus / "audio/test").glob("*.flac")), root / "clip.flac")
    results = root / "base" / "results"
    for seed in (0, 1):
        evaluate(RunConfig(GOOD, "ks", corpus, overrides=SHORT, seed=seed, out=results, store=root / "store"))
    evaluate(RunConfig("fbank", "ks", corpus, overrides=SHORT, out=results, store=root / "store"))
    (results / "fbank").rename(results / "other")
    ten_tasks(root / "tasks", "theirs", 0.2, 1, profile="superb", corpus__official=True)
    (results / "layers/x").mkdir(parents=True)
    outside = root / "base" / "outside"
    outside.mkdir()
    os.mkfifo(outside / "pipe")
    (outside / "secret.csv").write_text("id,truth,answer,fold,speaker\nu,yes,no,1,s\n")
    (outside / "evil.py").write_text(f"from pathlib import Path\nPath({str(root / 'ran')!r}).touch()\nX = None\n")
    (outside / "evil.pt").write_bytes(b"\x80\x04cposix\nsystem\n.")


def _begin(campaign: Campaign, number: int) -> Path:
    """Make a fresh case; return the folder beside its results.

    The run to attack is one of KS with its head, or, in every other case, the predictions of one of the ten tasks.
    """
    case = campaign.root / "case"
    shutil.rmtree(case, ignore_errors=True)
    _copy_with_pipes(campaign.root / "base", case)
    (campaign.run,) = (path.parent for path in campaign.results.glob(f"other/*/*/{records.NAME}"))
    if number % 2:
        shutil.rmtree(campaign.results / "other")
        tasks = sorted(path.parent for path in campaign.root.glob(f"tasks/*/*/*/{records.NAME}"))
        task = tasks[number // 2 % len(tasks)]
        campaign.run = campaign.results / "theirs" / task.parts[-2] / task.name
        shutil.copytree(task, campaign.run)
    return case / "outside"


def _copy_with_pipes(source: Path, target: Path) -> None:
    """Copy a folder with its pipes, which shutil would read."""
    for place, _, files in os.walk(source):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True)
        for name in files:
            path = Path(place, name)
            if path.is_file():
                shutil.copy2(path, folder / name)
            else:
                os.mkfifo(folder / name)


def _draw(rng: Random, count: int) -> list[str]:
    """`table`, and some of the other commands."""
    names = [name for name in COMMANDS if name != "table"]
    weights = [RARE.get(name, 1.0) for name in names]
    return ["table", *dict.fromkeys(rng.choices(names, weights, k=count))]


def fuzz_records(campaign: Campaign, count: int, seed: int = 0) -> None:
    """Read results of which one run's record is edited."""
    rng = Random(f"records {seed}")
    for number in range(count):
        outside = _begin(campaign, number)
        path = campaign.run / records.NAME
        path.write_bytes(hostile_results.mutate_record(rng, path.read_bytes(), outside))
        for command in _draw(rng, 1):
            campaign.call(f"record {number} of seed {seed}", command)
        campaign.report_progress(number)


def fuzz_folders(campaign: Campaign, count: int, seed: int = 0) -> None:
    """Read results in which a file, or several, is none, or holds something else."""
    rng = Random(f"folders {seed}")
    for number in range(count):
        outside = _begin(campaign, number)
        cases = [_set_trap(campaign, rng, outside) for _ in range(rng.choice((1, 1, 2)))]
        for command in _draw(rng, 3):
            campaign.call(f"folder {number} of seed {seed}: {' and '.join(cases)}", command)
        campaign.report_progress(number)


def _set_trap(campaign: Campaign, rng: Random, outside: Path) -> str:
    run = campaign.run
    heads = run / "probe-1.safetensors"
    kind = rng.randrange(10)
    if kind in (0, 4, 5):
        name, text = rng.choice(sorted(hostile_results.TABLES.items()))
        return _replace(run / records.PREDICTIONS, name, lambda path: path.write_text(text))
    if kind == 1:
        text = rng.choice(hostile_results.LABELS)
        return _replace(run / records.LABELS, text, lambda path: path.write_text(text))
    if kind == 2:
        return _replace(heads, "a bomb", lambda path: path.write_bytes(hostile_results.header_bomb(rng)))
    if kind == 3 and heads.is_file() and not heads.is_symlink() and 1000 < heads.stat().st_size < 10**8:
        hostile_results.other_head(rng, heads)
        return "another head"
    names = (
        records.NAME,
        records.PREDICTIONS,
        records.HISTORICAL,
        records.LABELS,
        heads.name,
        "origin.json",
        "run.log",
    )
    target = rng.choice(
        [
            *(run / name for name in names),
            campaign.results / "cost.json",
            campaign.results / "layers/x/layers.json",
            run,
            run.parent,
            campaign.results / "extra",
        ]
    )
    name, trap = rng.choice(sorted(hostile_results.TRAPS.items()))
    return _replace(target, name, lambda path: trap(path, outside, rng))


def _replace(target: Path, name: str, write: Callable[[Path], object]) -> str:
    if not target.parent.parent.is_dir() or (os.path.lexists(target.parent) and not target.parent.is_dir()):
        return f"nothing more: {target.parent} is no folder"
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    target.parent.mkdir(exist_ok=True)
    write(target)
    return f"{name} as {target.name}"


def main(words: Sequence[str]) -> int:
    """Run the campaign; print its counts, and the first case of each fault."""
    warnings.simplefilter("ignore")
    record_count, folder_count = (int(word) for word in (*words, *("1000", "300")[len(words) :]))
    failed = 0
    for fuzz, count in ((fuzz_records, record_count), (fuzz_folders, folder_count)):
        with tempfile.TemporaryDirectory() as folder:
            campaign = Campaign(Path(folder))
            prepare(campaign.root)
            fuzz(campaign, count)
        sys.stdout.write(f"{fuzz.__name__}: {count} cases: {campaign}\n")
        for kind, case in campaign.faults.items():
            sys.stdout.write(f"  {kind}\n    {case}\n")
        failed += campaign.counts["other"]
    return int(failed > 0)
