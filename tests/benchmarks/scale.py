"""Memory and time as a corpus grows ten times: extraction, training and scoring, each corpus in its own process."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

CLIPS, GROWTH, UPSTREAM = 600, 10, "hubert_nano@random"

_RUN = """
import sys, time
from pathlib import Path
from superb_eval.runs.evaluate import evaluate
from superb_eval.runs.config import RunConfig
from tests import memory
short = ("train.steps=200", "train.eval_every=100", "features.pooled=" + sys.argv[3])
before = time.process_time()
evaluate(RunConfig(sys.argv[2], "ks", Path(sys.argv[1]), "nano", short, out=Path(sys.argv[1]) / sys.argv[3],
    store=Path(sys.argv[1]) / "store"))
print(time.process_time() - before, memory.anonymous() / 2**20)
"""


def run() -> str:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        corpora = [_corpus(Path(folder) / str(n), n) for n in (CLIPS, GROWTH * CLIPS)]
        for pooled in ("true", "false"):
            few, many = (_evaluate(root, pooled) for root in corpora)
            kind = "means" if pooled == "true" else "frames"
            lines.append(
                f"scale, {kind}, {CLIPS} and {GROWTH * CLIPS} clips of 1 s: memory of the process {few[1]:.0f} and "
                f"{many[1]:.0f} MB ({100 * (many[1] / few[1] - 1):+.0f} %), CPU {few[0]:.1f} and {many[0]:.1f} s"
            )
    return "\n".join(lines)


def _corpus(root: Path, clips: int) -> Path:
    rng = np.random.default_rng(0)
    (root / "ks").mkdir(parents=True)
    (root / "audio").mkdir()
    for split, count in (("train", clips), ("dev", 30), ("test", 30)):
        rows = [["id", "path", "speaker", "keyword"]]
        for k in range(count):
            name = f"audio/{split}-{k}.wav"
            soundfile.write(root / name, 0.1 * rng.standard_normal(16_000), 16_000)
            rows.append([f"{split}{k}", name, "a", ("yes", "no")[k % 2]])
        _write(root / "ks" / f"{split}.csv", rows)
    return root


def _evaluate(root: Path, pooled: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(root), UPSTREAM, pooled], check=True, capture_output=True, text=True
    )
    return [float(word) for word in done.stdout.split()[-2:]]


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows(rows)
