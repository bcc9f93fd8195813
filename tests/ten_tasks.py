"""A corpus for all ten tasks in a second, and heads small enough to train on it."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

SIZE = {"train": 12, "dev": 6, "test": 6}
EMOTIONS = ("angry", "happy", "neutral", "sad")

SMALL = {
    "pr": (),
    "asr": ("head.projector_dim=16", "head.hidden_dim=16"),
    "sf": ("head.projector_dim=16", "head.hidden_dim=16"),
    "ks": (),
    "sid": (),
    "ic": (),
    "er": (),
    "asv": ("head.hidden=16", "head.wide=16", "corpus.min_seconds=0.5", "corpus.trim_silence=false"),
    "sd": ("head.hidden=16",),
    "qbe": (),
    "gender": (),
}
"""What makes a task's network small enough to run in a second; everything else is the recipe's."""


def write(root: Path) -> Path:
    """Write manifests for all ten tasks, on the same few noisy tones."""
    for split, count in SIZE.items():
        rows = [_row(root, split, k) for k in range(count)]
        for task in ("pr", "asr", "ks", "sid", "ic", "sf", "er"):
            _write(root / task / f"{split}.csv", rows)
        # Verification is of speakers unseen in training; identification, of the same ones.
        _write(root / "asv" / f"{split}.csv", [{**row, "speaker": f"{split}-{row['speaker']}"} for row in rows])
        _write(root / "sd" / f"{split}.csv", rows)
        lines = [line for row in rows for line in _turns(row["id"])]
        (root / "sd" / f"{split}.rttm").write_text("".join(lines))
    _write_trials(root)
    _write_queries(root)
    return root


def _row(root: Path, split: str, k: int) -> dict[str, str]:
    rng = np.random.default_rng([len(split), k])
    path = root / "audio" / f"{split}-{k}.flac"
    path.parent.mkdir(exist_ok=True)
    time = np.arange(19_200) / 16_000
    tone = 0.2 * np.sin(2 * np.pi * (400 + 300 * (k % 4)) * time) * (np.sin(9 * time) > 0)
    soundfile.write(path, tone + 0.05 * rng.standard_normal(len(time)), 16_000)
    word, phones = [("YES", "Y EH S"), ("NO", "N OW")][k % 2]
    return {
        "id": f"{split}-{k}",
        "path": str(path.relative_to(root)),
        "speaker": f"speaker{k % 3}",
        "keyword": word.lower(),
        "phones": phones,
        "text": word,
        "action": word.lower(),
        "object": f"object{k % 2}",
        "location": "none",
        "text_canonical": f"SAY {word}",
        "iob_canonical": "O B-word",
        "emotion": EMOTIONS[k % 4],
        "gender": ["female", "male"][k % 2],
    }


def _turns(recording: str) -> list[str]:
    turns = [("a", 0.1, 0.5), ("b", 0.4, 0.6)]
    return [f"SPEAKER {recording} 1 {start} {length} <NA> <NA> {who} <NA> <NA>\n" for who, start, length in turns]


def _write_trials(root: Path) -> None:
    for split, name in (("dev", "dev_trials"), ("test", "trials")):
        pairs = itertools.combinations(range(SIZE[split]), 2)
        rows = [
            {"enroll": f"{split}-{i}", "test": f"{split}-{j}", "target": str(int(i % 3 == j % 3))} for i, j in pairs
        ]
        _write(root / "asv" / f"{name}.csv", rows)


def _write_queries(root: Path) -> None:
    queries, docs, pairs = [], [], []
    for split in ("dev", "test"):
        rows = [{"split": split, **_row(root, split, k)} for k in range(6)]
        queries += rows[:2]
        docs += rows[2:]
        pairs += [
            {"split": split, "query": q["id"], "doc": d["id"], "label": str(int(q["text"] == d["text"]))}
            for q in rows[:2]
            for d in rows[2:]
        ]
    for name, table in (("queries", queries), ("docs", docs), ("pairs", pairs)):
        _write(root / "qbe" / f"{name}.csv", table)


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
