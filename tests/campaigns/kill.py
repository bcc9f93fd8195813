"""SIGKILL at random moments: `python -m tests.campaigns.kill [KILLS] [SEED]` over the ten nano tasks.

A suite runs in a process group of its own, from synthesising the corpus to the last record; it is killed, all of it, at
random moments, and begun again by the same command. When it is through, every figure, curve, prediction and head has to
equal that of a suite that nobody disturbed.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from superb_eval.results import record as records
from superb_eval.suite import jobs
from superb_eval.suite.job_state import JobStates

IDLE, SYNTHESIS = "between cells", "synthesis"

KEPT = ("predictions.csv", "predictions-historical.csv", "labels.json", "probe-*.safetensors")
"""Files of a run that must come out the same, to the bit."""


@dataclass
class Campaign:
    """A folder in which a suite is killed again and again; `stages` counts what was killed."""

    folder: Path
    tasks: str = "all"
    overrides: Sequence[str] = ()
    upstreams: str = "fbank_nonorm"
    stages: Counter[str] = field(default_factory=Counter)

    def start(self) -> subprocess.Popen[bytes]:
        """Begin, or go on: make the corpus, then the cells."""
        corpus = self.folder / "corpus"
        options = [word for text in self.overrides for word in ("-o", text)]
        synth = [sys.executable, "-m", "superb_eval", "corpus", "synth", "--size", "nano", "--out", str(corpus)]
        synth += ["--tasks", self.tasks] if self.tasks != "all" else []
        suite = [sys.executable, "-m", "superb_eval", "suite", "-u", self.upstreams, "--tasks", self.tasks]
        suite += ["--profile", "nano", "--data", str(corpus), "--out", str(self.folder / "results"), "--jobs", "1"]
        suite += ["--store", str(self.folder / "store"), *options]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", f"{shlex.join(synth)} && exec {shlex.join(suite)}"],
                start_new_session=True,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def kill(self, process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        """Kill the whole group, and note at what it was."""
        self.stages[self.stage()] += 1
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait()

    def stage(self) -> str:
        """Return what the suite is at, as the ledger and the corpus tell."""
        if not (self.folder / "corpus/corpus.json").is_file():
            return SYNTHESIS
        results = self.folder / "results"
        ledger = JobStates(results)
        for job in ledger.planned() if (results / jobs.PLACE).is_dir() else []:
            claim = ledger.claimed(job)
            if claim is not None:
                return f"{job.task}: {claim.stage.partition(',')[0] or 'starting'}"
        return IDLE

    def finish(self) -> None:
        """Let it run to its end."""
        process = self.start()
        if process.wait() != 0:
            raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])


STAGES = 12
"""Stages that a suite comes through at most before it is killed: a cell has four."""

DELAYS = (3.0, 3.0, 3.0, 30.0)
"""Seconds that it lives on at most in the last of them; the longest lets slow trainings come to a saved state."""


def lived(campaign: Campaign, process: subprocess.Popen[bytes], rng: random.Random, most: int) -> bool:
    """Let a suite live for a random time; return whether it is still there to be killed.

    One life in five is counted in seconds from its beginning; the others in stages, so that however slow the machine
    is, each of them comes to be killed. Where synthesis has been killed `most` times, that is let be.
    """
    early, changes, delay = rng.random() < 0.2, rng.randrange(STAGES), rng.uniform(0.0, rng.choice(DELAYS))
    waits = {IDLE} if campaign.stages[SYNTHESIS] < most else {IDLE, SYNTHESIS}
    seen = IDLE
    while not early and changes >= 0 and process.poll() is None:
        time.sleep(0.05)
        now = campaign.stage()
        changes -= now not in {seen, *waits}
        seen = now
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    return process.poll() is None


def undone(campaign: Campaign, rng: random.Random) -> None:
    """Take some records away, so that there is work again."""
    there = sorted((campaign.folder / "results").glob(f"*/*/*/{records.NAME}"))
    for path in rng.sample(there, min(5, len(there))):
        path.unlink()


def differences(one: Path, other: Path) -> list[str]:
    """Return in words what two results folders don't share."""
    found = []
    runs = [{path.parent.relative_to(root): path.parent for path in records.find(root)} for root in (one, other)]
    if runs[0].keys() != runs[1].keys():
        found.append(f"runs: {sorted(map(str, runs[0].keys() ^ runs[1].keys()))}")
    for name in sorted(runs[0].keys() & runs[1].keys()):
        found += [f"{name}: {what}" for what in _run_differences(runs[0][name], runs[1][name])]
    return found


def _run_differences(one: Path, other: Path) -> Iterator[str]:
    ours, theirs = (records.read(folder / records.NAME) for folder in (one, other))
    if ours.metrics != theirs.metrics:
        yield "metrics"
    if ours.corpus.digest != theirs.corpus.digest:
        yield "the corpus"
    for mine, its in zip(ours.training, theirs.training, strict=True):
        if [rate.curve for rate in mine.rates] != [rate.curve for rate in its.rates] or mine.tuned != its.tuned:
            yield f"training of fold {mine.fold}"
    names = [{path.name for pattern in KEPT for path in folder.glob(pattern)} for folder in (one, other)]
    for name in sorted(names[0] | names[1]):
        pair = [folder / name for folder in (one, other)]
        if not all(path.is_file() for path in pair) or pair[0].read_bytes() != pair[1].read_bytes():
            yield name


def left_behind(folder: Path) -> list[str]:
    """Return what nothing needs any more: temporary files, claims, states of training."""
    return [str(path) for pattern in ("*.tmp", "*.part", "*.claim.json", "last.pt") for path in folder.rglob(pattern)]


def run(folder: Path, kills: int, seed: int = 0, **settings: object) -> tuple[list[str], Counter[str]]:
    """Run the campaign; return the differences, and what was killed."""
    places = [folder / name for name in ("unbroken", "killed")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    unbroken, killed = (Campaign(place, **settings) for place in places)  # type: ignore[arg-type]
    unbroken.finish()
    rng = random.Random(seed)
    while sum(killed.stages.values()) < kills:
        process = killed.start()
        if lived(killed, process, rng, most=kills // 5):
            killed.kill(process)
            print(f"{sum(killed.stages.values())}: {dict(killed.stages)}", file=sys.stderr)
        elif process.returncode == 0:
            undone(killed, rng)
        else:
            return [(killed.folder / "log").read_text(errors="replace")[-2000:]], killed.stages
    killed.finish()
    found = differences(*(place / "results" for place in places))
    return found + [f"left behind: {path}" for path in left_behind(killed.folder)], killed.stages


def main() -> int:
    """Run the long form."""
    given = sys.argv[1:3]
    kills, seed = (int(text) for text in (*given, *("50", "0")[len(given) :]))
    with tempfile.TemporaryDirectory() as folder:
        found, stages = run(Path(folder), kills, seed)
    print(f"{kills} kills: {dict(stages)}")
    print("\n".join(found) or "every metric, curve, prediction and head equals the unbroken run's")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
