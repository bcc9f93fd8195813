"""Runs for tests: records to vary, and figures that follow from predictions."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downstreams.base import Prediction
from superb_eval.results import code_versions
from superb_eval.results import record as records
from superb_eval.results.folder import run_name, slug
from superb_eval.results.record import CorpusRecord, FeaturesRecord, RunRecord, TrainingRecord, UpstreamRecord
from superb_eval.results.stats import scoring, training_spread
from superb_eval.results.stats.training_spread import TrainingSpread

KNOWN = TrainingSpread(0.5, 1.0, 16.0, "made up")


@contextmanager
def known_training(spread: TrainingSpread | None = KNOWN) -> Iterator[None]:
    """Let all recipes ship this spread between trainings; None: none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_spread, "find", lambda record, key: spread)
        yield


def new_record(upstream: str, task: str) -> RunRecord:
    return RunRecord(
        schema_version=records.SCHEMA_VERSION,
        task=task,
        profile="mini",
        seed=0,
        metrics=[],
        chance=None,
        upstream=UpstreamRecord(
            address=upstream,
            name=upstream,
            fingerprint=f"f-{upstream}",
            parameters=23_491_200,
            layers=1,
            width=240,
            stride=320,
            licence="none",
            training_data="none",
            notes=[],
        ),
        corpus=CorpusRecord(name="pack", synthetic=False, digest=f"d-{task}", utterances={"test": 366}, hours=0.5),
        features=FeaturesRecord(kind="pooled", extracted=1, stored=0, made_on="cpu"),
        training=[TrainingRecord(fold=1, lr=1e-3, rates=[], layer_weights=[1.0], tuned={}, parameters=1)],
        recipe={},
        recipe_digest=f"r-{task}",
        departures=[],
        predictions={},
        command=f"superb-eval run {task} -u {upstream}",
        versions={},
        hardware={},
        code=code_versions.versions(task),
        started="2026-01-01T00:00:00+00:00",
        seconds={},
        skipped=[],
    )


def vary(record: RunRecord, **changes: Any) -> RunRecord:
    """A record with changes such as `upstream__address="x"` or `metrics__value=3.0`."""
    content = record.model_dump()
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if part == "metrics":
            content["metrics"][0][key] = value
        elif key:
            content[part][key] = value
        else:
            content[part] = value
    return RunRecord.model_validate(content)


def write_records(folder: Path, *runs: RunRecord) -> Path:
    """Write records alone, without predictions."""
    for k, run in enumerate(runs):
        run_folder = folder / f"u{k}" / run.task / "run"
        run_folder.mkdir(parents=True)
        records.write(run, run_folder)
    return folder


def write_run(folder: Path, record: RunRecord, rows: Sequence[Prediction], labels: Any = None) -> Path:
    """Write a run with its predictions, and the figures that follow from them; return its folder."""
    name = run_name(
        record.profile, record.seed, record.recipe_digest, record.upstream.fingerprint, record.corpus.digest
    )
    run_folder = folder / slug(record.upstream.address) / record.task / name
    run_folder.mkdir(parents=True)
    with (run_folder / records.PREDICTIONS).open("w", newline="", encoding="utf8") as file:
        csv.writer(file, lineterminator="\n").writerows([Prediction._fields, *rows])
    (run_folder / "labels.json").write_text(json.dumps({"1": labels}))
    task = scoring.load_task(record, run_folder)
    scores = {
        "metrics": scoring.metrics(task, rows, "strict"),
        "chance": task.chance(rows),
        "predictions": {
            records.PREDICTIONS: hashlib.sha256((run_folder / records.PREDICTIONS).read_bytes()).hexdigest()
        },
    }
    records.write(record.model_copy(update=scores), run_folder)
    return run_folder


def answers(right: float, seed: int, count: int = 300) -> list[Prediction]:
    """Keyword predictions of which about that share is right; a hard utterance is hard for every seed."""
    hard, own = np.random.default_rng(0).random(count), np.random.default_rng(seed).random(count)
    words = ("yes", "no")
    wrong = 0.7 * hard + 0.3 * own >= right
    return [Prediction(f"u{i}", words[i % 2], words[(i + wrong[i]) % 2]) for i in range(count)]


TRUTHS = ["a b c d e", "a b c", "c d e f", "a a b", "d e", "f f a b c"]


def ten_tasks(folder: Path, upstream: str, errs: float, seed: int, **changes: Any) -> None:
    """Write runs of all ten tasks that are wrong about that often."""
    rng = np.random.default_rng(seed)
    for task in ("ks", "sid", "ic", "er"):
        truths = ['{"action": "x"}', '{"action": "y"}', '{"action": "z"}'] if task == "ic" else ["x", "y", "z"]
        folds = 5 if task == "er" else 1
        rows = [
            Prediction(f"u{i}", truths[i % 3], truths[(i + (rng.random() <= errs)) % 3], i % folds + 1)
            for i in range(60)
        ]
        write_run(folder, vary(new_record(upstream, task), **changes), rows)
    for task in ("pr", "asr"):
        pairs = [(TRUTHS[i % 6], _worse(TRUTHS[i % 6], errs, rng)) for i in range(40)]
        write_run(
            folder, vary(new_record(upstream, task), **changes), [Prediction(f"u{i}", *p) for i, p in enumerate(pairs)]
        )
    slots = ["B-x A E-x", "B-y Q E-y", "B-z P E-z"]
    sf = [Prediction(f"u{i}", slots[i % 3], slots[(i + (rng.random() <= errs)) % 3]) for i in range(40)]
    write_run(folder, vary(new_record(upstream, "sf"), **changes), sf)
    trials = [(k % 2, k % 2 + rng.normal(0, 0.3 + errs)) for k in range(120)]
    asv = [Prediction(f"a{k} b{k}", str(t), f"{s:.4f}") for k, (t, s) in enumerate(trials)]
    write_run(folder, vary(new_record(upstream, "asv"), **changes), asv)
    detections = [(k % 4 == 0, 3 * (k % 4 == 0) + rng.normal(0, 0.5 + errs)) for k in range(80)]
    qbe = [Prediction(f"q{k // 8} d{k % 8}", str(int(t)), f"{s:.4f}") for k, (t, s) in enumerate(detections)]
    write_run(folder, vary(new_record(upstream, "qbe"), **changes), qbe)
    turns = [[[0, 4, "a"], [3, 6, "b"]]] * 12
    guessed = [[[0, 4 - 3 * errs * rng.random(), "0"], [3, 6, "1"]] for _ in turns]
    sd = [
        Prediction(f"r{k}", json.dumps(t), json.dumps(g)) for k, (t, g) in enumerate(zip(turns, guessed, strict=True))
    ]
    write_run(folder, vary(new_record(upstream, "sd"), **changes), sd, labels=2)


def _worse(text: str, errs: float, rng: np.random.Generator) -> str:
    return " ".join(word if rng.random() > errs else "z" for word in text.split())
