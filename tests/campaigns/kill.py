"""SIGKILL at random moments: `python -m tests.campaigns kill [KILLS] [SEED]` over the ten nano tasks.

A suite runs in its own process group, from synthesising the corpus to the last record; the whole group is killed at
random moments, and started again by the same command. When it is finished, every figure, curve, prediction and head has
to equal that of an undisturbed suite.
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

IDLE, SYNTHESIS = "between runs", "synthesis"

COMPARED = ("predictions.csv", "predictions-historical.csv", "labels.json", "probe-*.safetensors")
"""Files of a run that must be identical."""

STEPS = 12
"""Steps that a suite completes at most before it is killed: a run has four."""


@dataclass
class Campaign:
    """A folder in which a suite is killed repeatedly; `kills` counts the steps at which it was.

    `steps` bounds those that are waited for: as many as a suite that ended unkilled was seen to take, and one more
    after each kill, up to `STEPS`.
    """

    folder: Path
    tasks: str = "all"
    overrides: Sequence[str] = ()
    upstreams: str = "fbank_nonorm"
    kills: Counter[str] = field(default_factory=Counter)
    steps: int = STEPS

    def start(self) -> subprocess.Popen[bytes]:
        """Start or resume: make the corpus, then the runs."""
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
        """Kill the whole group, and count the step at which it was."""
        self.kills[self.step()] += 1
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait()

    def step(self) -> str:
        """Return the current step, by the states of the runs and the corpus."""
        if not (self.folder / "corpus/corpus.json").is_file():
            return SYNTHESIS
        results = self.folder / "results"
        states = JobStates(results)
        for job in states.planned() if (results / jobs.SUITE_FOLDER).is_dir() else []:
            lease = states.lease(job)
            if lease is not None:
                return f"{job.task}: {lease.step.partition(',')[0] or 'starting'}"
        return IDLE

    def finish(self) -> None:
        """Run the suite to its end."""
        process = self.start()
        if process.wait() != 0:
            raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])


DELAYS = (3.0, 3.0, 3.0, 30.0)
"""Seconds after which it is killed in the last of them at most; the longest lets slow trainings save a state."""


def run_for_a_while(campaign: Campaign, process: subprocess.Popen[bytes], rng: random.Random, most: int) -> bool:
    """Let a suite run for a random time; return whether it still runs.

    One time in five is measured in seconds from the start; the others in steps, so that each step gets killed however
    slow the machine is. Synthesis is killed `most` times at most.
    """
    early, wait_for, delay = rng.random() < 0.2, rng.randrange(campaign.steps), rng.uniform(0.0, rng.choice(DELAYS))
    waits = {IDLE} if campaign.kills[SYNTHESIS] < most else {IDLE, SYNTHESIS}
    seen, changes = IDLE, 0
    while not early and changes <= wait_for and process.poll() is None:
        time.sleep(0.05)
        now = campaign.step()
        changes += now not in {seen, *waits}
        seen = now
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    running = process.poll() is None
    if running:
        campaign.steps = min(STEPS, campaign.steps + 1)
    elif not early:
        campaign.steps = max(1, changes)
    return running


def remove_records(campaign: Campaign, rng: random.Random) -> None:
    """Remove some records, so that there is work again."""
    records_ = sorted((campaign.folder / "results").glob(f"*/*/*/{records.NAME}"))
    for path in rng.sample(records_, min(5, len(records_))):
        path.unlink()


def differences(one: Path, other: Path) -> list[str]:
    """Return the differences of two results folders, a text each."""
    texts = []
    runs = [{path.parent.relative_to(root): path.parent for path in records.find(root)} for root in (one, other)]
    if runs[0].keys() != runs[1].keys():
        texts.append(f"runs: {sorted(map(str, runs[0].keys() ^ runs[1].keys()))}")
    for name in sorted(runs[0].keys() & runs[1].keys()):
        texts += [f"{name}: {difference}" for difference in _run_differences(runs[0][name], runs[1][name])]
    return texts


def _run_differences(one: Path, other: Path) -> Iterator[str]:
    ours, theirs = (records.read(folder / records.NAME) for folder in (one, other))
    if ours.metrics != theirs.metrics:
        yield "metrics"
    if ours.corpus.digest != theirs.corpus.digest:
        yield "the corpus"
    for mine, its in zip(ours.training, theirs.training, strict=True):
        if [rate.curve for rate in mine.rates] != [rate.curve for rate in its.rates] or mine.tuned != its.tuned:
            yield f"training of fold {mine.fold}"
    names = [{path.name for pattern in COMPARED for path in folder.glob(pattern)} for folder in (one, other)]
    for name in sorted(names[0] | names[1]):
        pair = [folder / name for folder in (one, other)]
        if not all(path.is_file() for path in pair) or pair[0].read_bytes() != pair[1].read_bytes():
            yield name


def leftovers(folder: Path) -> list[str]:
    """Return files that should have been removed: temporary files, leases, states of training."""
    return [str(path) for pattern in ("*.tmp", "*.part", "*.claim.json", "last.pt") for path in folder.rglob(pattern)]


def run(folder: Path, kills: int, seed: int = 0, **settings: object) -> tuple[list[str], Counter[str]]:
    """Run the campaign; return the differences, and the steps that were killed."""
    folders = [folder / name for name in ("undisturbed", "killed")]
    for each in folders:
        each.mkdir(parents=True, exist_ok=True)
    undisturbed, killed = (Campaign(each, **settings) for each in folders)  # type: ignore[arg-type]
    undisturbed.finish()
    rng = random.Random(seed)
    while sum(killed.kills.values()) < kills:
        process = killed.start()
        if run_for_a_while(killed, process, rng, most=kills // 5):
            killed.kill(process)
            print(f"{sum(killed.kills.values())}: {dict(killed.kills)}", file=sys.stderr)
        elif process.returncode == 0:
            remove_records(killed, rng)
        else:
            return [(killed.folder / "log").read_text(errors="replace")[-2000:]], killed.kills
    killed.finish()
    problems = differences(*(each / "results" for each in folders))
    return problems + [f"left over: {path}" for path in leftovers(killed.folder)], killed.kills


def main(arguments: Sequence[str]) -> int:
    """Run the long form."""
    kills, seed = (int(text) for text in (*arguments, *("50", "0")[len(arguments) :]))
    with tempfile.TemporaryDirectory() as folder:
        problems, by_step = run(Path(folder), kills, seed)
    print(f"{kills} kills: {dict(by_step)}")
    print("\n".join(problems) or "every metric, curve, prediction and head equals the undisturbed run's")
    return int(bool(problems))
