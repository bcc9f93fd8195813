"""A small phone-aligned corpus whose phones are tones, in the form that `layers --data` reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import soundfile

TONES = {"A": 300.0, "B": 900.0, "C": 2_500.0}
PHONE_SECONDS = 0.2


def write(root: Path, speakers: int = 0) -> Path:
    """Write `aligned/train.csv` and `test.csv`, with six clips of 1.4 s each, by so many speakers (0: unnamed)."""
    (root / "aligned").mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        with (root / f"aligned/{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "path", "alignment", *(["speaker"] if speakers else [])])
            for number in range(6):
                name = f"{split}{number}"
                phones = "".join(rng.permutation(list("AABBCC_")))
                speaker = [f"s{number % speakers}"] if speakers else []
                writer.writerow([name, f"{name}.wav", _clip(root / f"{name}.wav", phones, rng), *speaker])
    return root


def _clip(path: Path, phones: str, rng: np.random.Generator) -> str:
    """Write a clip of tones and return its alignment; a pause is noise."""
    time = np.arange(int(PHONE_SECONDS * 16_000)) / 16_000
    parts = [np.sin(2 * np.pi * TONES[p] * time) if p in TONES else rng.standard_normal(len(time)) for p in phones]
    soundfile.write(path, 0.3 * np.concatenate(parts) + 1e-3 * rng.standard_normal(len(time) * len(phones)), 16_000)
    names = [p if p in TONES else "_:" for p in phones]
    return json.dumps([[p, k * PHONE_SECONDS, (k + 1) * PHONE_SECONDS] for k, p in enumerate(names)])
