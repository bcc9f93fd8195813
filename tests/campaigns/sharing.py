"""Four processes with one store and one results folder: `python -m tests.campaigns sharing [PROCESSES]`.

Each executes a suite of the same runs. Afterwards every record and head has to equal those of one process alone, no
shard may be damaged, and the upstream may have processed no clip more than once. Then two suites with different recipes
share both folders.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from superb_eval.results import record as records
from superb_eval.runtime import safetensors_io
from tests.campaigns import kill


def suite(corpus: Path, folder: Path, tasks: str, overrides: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a suite of two upstreams and two seeds."""
    command = [
        sys.executable,
        "-m",
        "superb_eval",
        "suite",
        "-u",
        "fbank,fbank_nonorm",
        "--tasks",
        tasks,
        "--seeds",
        "2",
    ]
    command += ["--profile", "nano", "--data", str(corpus), "--jobs", "1"]
    command += ["--out", str(folder / "results"), "--store", str(folder / "store")]
    command += [word for text in overrides for word in ("-o", text)]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(corpus: Path, folder: Path, tasks: str, processes: int, overrides: tuple[str, ...] = ()) -> list[str]:
    """Run the campaign; return the problems."""
    alone, together = folder / "alone", folder / "together"
    for part, count in ((alone, 1), (together, processes)):
        part.mkdir(parents=True)
        running = [suite(corpus, part, tasks, overrides) for _ in range(count)]
        codes = [process.wait() for process in running]
        if any(codes):
            return [f"exit codes {codes}: {(part / 'log').read_text()[-1500:]}"]
    problems = kill.differences(alone / "results", together / "results")
    extracted = [
        sum(records.read(p).features.extracted for p in records.find(part / "results")) for part in (alone, together)
    ]
    if extracted[0] != extracted[1]:
        problems.append(f"the upstream processed {extracted[1]} clips, and {extracted[0]} for one process alone")
    names = [{path.name for path in (part / "store").rglob("*.safetensors")} for part in (alone, together)]
    if names[0] != names[1]:
        problems.append(f"{len(names[1] - names[0])} shards too many, {len(names[0] - names[1])} missing")
    problems += filter(None, map(_damage, (together / "store").rglob("*.safetensors")))
    return problems + kill.leftovers(together)


def _damage(shard: Path) -> str:
    try:
        safetensors_io.read(shard)
    except safetensors_io.DamagedError as error:
        return f"{shard}: damaged ({error})"
    return ""


def run_recipes(corpus: Path, folder: Path, task: str, recipes: Sequence[tuple[str, ...]]) -> list[str]:
    """Execute suites with different recipes one after the other, then at once; return the problems."""
    for part in ("alone", "together"):
        (folder / part).mkdir(parents=True)
        running = []
        for overrides in recipes:
            running.append(suite(corpus, folder / part, task, overrides))
            if part == "alone":
                running[-1].wait()
        if any(process.wait() for process in running):
            return [(folder / part / "log").read_text()[-1500:]]
    return kill.differences(folder / "alone/results", folder / "together/results") + kill.leftovers(folder)


def main(arguments: Sequence[str]) -> int:
    """Run the long form: all ten tasks, and two recipes of one task."""
    count = int((*arguments, "4")[0])
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        synth = [sys.executable, "-m", "superb_eval", "corpus", "synth", "--size", "nano", "--out", str(corpus)]
        subprocess.run(synth, check=True)
        problems = run(corpus, Path(folder) / "runs", "all", count)
        print(f"{count} processes: {problems or 'identical to one process; no clip was processed twice'}")
        others = run_recipes(corpus, Path(folder) / "recipes", "ks", [("train.lr=1e-2",), ("train.lr=1e-3",)])
        print(f"two recipes at once: {others or 'as each alone'}")
    return int(bool(problems or others))
