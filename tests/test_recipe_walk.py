"""Every shipped recipe is run: a few steps, a falling loss, a valid record. One that is not run fails the walk."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval import recipe
from superb_eval.cell import evaluate
from superb_eval.order import Order
from superb_eval.results.record import RunRecord

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


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of manifests for all ten tasks, on the same few noisy tones."""
    root = tmp_path_factory.mktemp("ten-tasks")
    for split, count in SIZE.items():
        rows = [_row(root, split, k) for k in range(count)]
        for task in ("pr", "asr", "ks", "sid", "ic", "sf", "er"):
            _write(root / task / f"{split}.csv", rows)
        # Verification is of speakers never heard in training; identification, of the same ones.
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


def _overrides(name: str) -> tuple[str, ...]:
    loaded = recipe.load(recipe.find(name, "mini"))
    if loaded.train is None:
        return SMALL[loaded.task]
    few = (
        "train.steps=16",
        "train.eval_every=4",
        f"train.batch_size={min(4, loaded.train.batch_size)}",
        "train.lr=1e-2",
    )
    return (*few, *SMALL[loaded.task])


@pytest.mark.parametrize("name", recipe.shipped())
def test_every_recipe_runs(name: str, corpus: Path, tmp_path: Path) -> None:
    record, folder = evaluate(Order("fbank_nonorm", name, corpus, overrides=_overrides(name), out=tmp_path))
    assert RunRecord.model_validate_json((folder / "result.json").read_text()) == record
    assert f"recipes/{record.profile}/{record.task}.yaml" == name
    assert all(metric.low <= metric.value <= metric.high for metric in record.metrics)
    for training in record.training:
        for rate in training.rates:
            assert rate.curve[-1]["loss"] < rate.curve[0]["loss"]


def test_the_walk_knows_every_task() -> None:
    from downstreams import registry

    assert sorted(SMALL) == registry.names()
    assert {Path(name).stem for name in recipe.shipped()} == set(SMALL)
