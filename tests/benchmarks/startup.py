"""Startup time: the help, a table of a hundred records, the first update of a run with stored features. CPU seconds of
whole processes, imports included."""

from __future__ import annotations

import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from tests.results import runs

_FIRST = """
import sys, time
from pathlib import Path
from superb_eval.probing import training
from superb_eval.runs.evaluate import evaluate
from superb_eval.runs.config import RunConfig
update = training.Training._update
def first(*args):
    update(*args)
    print(time.process_time())
    raise SystemExit
if sys.argv[2] == "stop":
    training.Training._update = first
out = Path(sys.argv[1])
evaluate(RunConfig("hubert_nano@random", "ks", out, "nano", ("train.steps=20", "train.eval_every=20"),
    out=out / sys.argv[2], store=out / "store"))
"""


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return "\n".join([_help(), _table(Path(folder) / "results"), _first_update(Path(folder) / "corpus")])


def _command(*words: str) -> float:
    """Return the CPU seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env={**os.environ, "COLUMNS": "200"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _line(name: str, times: list[float]) -> str:
    return f"{name}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def _help() -> str:
    return _line("--help", [_command("-m", "superb_eval", "--help") for _ in range(5)])


def _table(out: Path) -> str:
    for k in range(100):
        task = ("ks", "sid")[k % 2]
        runs.write_run(out, runs.new_record(f"upstream{k // 2}", task), runs.answers(0.8, seed=k, count=60))
    return _line("table of 100 records", [_command("-m", "superb_eval", "table", str(out)) for _ in range(3)])


def _first_update(root: Path) -> str:
    rng = np.random.default_rng(0)
    (root / "ks").mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = [["id", "path", "speaker", "keyword"]]
        for k in range(40):
            name = f"{split}{k}.wav"
            soundfile.write(root / name, 0.1 * rng.standard_normal(16_000), 16_000)
            rows.append([name, name, "a", ("yes", "no")[k % 2]])
        with (root / "ks" / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    subprocess.run([sys.executable, "-c", _FIRST, str(root), "fill"], check=True, capture_output=True)
    words = [sys.executable, "-c", _FIRST, str(root), "stop"]
    times = [
        float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1]) for _ in range(3)
    ]
    return _line("first update of a run whose features are stored", times)
