"""A results folder made by hand: predictions on a few tasks, scored like those of runs, nothing trained."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from downstreams.base import Prediction
from superb_eval import recipe
from superb_eval.results import record as records
from superb_eval.results.folder import slug
from superb_eval.results.layer_record import (
    AbxMeasures,
    AbxTriples,
    LayerAbx,
    LayerProbe,
    LayerSimilarity,
    LayersRecord,
    LayerUnits,
    TaskProbes,
    UnitMeasures,
    write,
)
from superb_eval.results.record import (
    CorpusRecord,
    FeaturesRecord,
    RateRecord,
    RunRecord,
    TrainingRecord,
    UpstreamRecord,
)
from superb_eval.results.stats import scoring
from tests.results.pages import Page
from tests.results.runs import known_training

TEACHER, STUDENT, FBANK = "hubert_mini@teacher", "distilhubert_mini", "fbank_nonorm"
LABELS: dict[str, Any] = {"ks": ["yes", "no", "_unknown_"], "er": ["angry", "sad"], "sd": 2, "asv": ["a", "b"]}
COLUMNS = {name: k for k, name in enumerate((TEACHER, STUDENT, FBANK))}


def a_run(
    root: Path, upstream: str, task: str, rows: Sequence[Prediction], data: Path | None = None, **changes: Any
) -> RunRecord:
    """Write a finished run with these predictions, and return its record; `changes` go into the record."""
    chosen = recipe.load(recipe.find(task, "nano"))
    size = 3 - COLUMNS.get(upstream, 0)
    searched = task == "qbe"
    folds = sorted({row.fold for row in rows})
    curve = [{"step": 10.0 * k, "loss": 3.0 / k, "dev": 30.0 + 5 * k + size} for k in (1, 2, 3)]
    rates = [
        RateRecord(lr=lr, steps=30, best_step=30, best_dev=40 + lr, curve=curve, resumed_at=[]) for lr in (0.01, 0.1)
    ]
    command = ["superb-eval run", task, "-u", upstream, "--data", str(data or "/nowhere"), "--profile nano --seed 0"]
    content = {
        "schema_version": records.SCHEMA_VERSION,
        "task": task,
        "profile": "nano",
        "seed": 0,
        "metrics": [],
        "chance": None,
        "upstream": UpstreamRecord(
            address=upstream,
            name=upstream,
            fingerprint=f"f{upstream}",
            parameters=4_000_000 * (size - 1),
            layers=size,
            width=24,
            stride=320,
            licence="none",
            training_data="none",
            notes=[],
        ),
        "corpus": CorpusRecord(
            name="pack", synthetic=True, digest=f"d{task}", utterances={"test": len(rows)}, hours=0.5
        ),
        "features": FeaturesRecord(
            kind="frames", extracted=1, stored=0, made_on="cpu", norms=[1.0 + k for k in range(size)]
        ),
        "training": [
            TrainingRecord(
                fold=fold,
                lr=None if searched else 0.1,
                rates=[] if searched else rates,
                layer_weights=[float(k == 0) for k in range(size)] if searched else [1 / size] * size,
                tuned={},
                parameters=100,
            )
            for fold in folds
        ],
        "recipe": chosen.model_dump(mode="json"),
        "recipe_digest": chosen.digest(),
        "departures": ["not SUPERB: made by hand"],
        "predictions": {},
        "command": " ".join(command),
        "versions": {},
        "hardware": {"device": "cpu"},
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": {"features": 1.0},
        "skipped": ["query 'x': shorter than 5 frames"] if searched else [],
    }
    folder = root / slug(upstream) / task / "nano-seed0-0123456789"
    folder.mkdir(parents=True)
    with (folder / records.PREDICTIONS).open("w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows([Prediction._fields, *rows])
    if not searched:
        labels = {str(fold): LABELS.get(task) for fold in folds}
        (folder / "labels.json").write_text(json.dumps(labels), encoding="utf8")
    scorer = scoring.load_task(RunRecord.model_validate({**content, **changes}), folder)
    content["metrics"] = scoring.metrics(scorer, rows, "strict")
    content["chance"] = scorer.chance(rows)
    record = RunRecord.model_validate({**content, **changes})
    records.write(record, folder)
    return record


def predictions(task: str, right: float, seed: int) -> list[Prediction]:
    """Predictions on made-up rows, of which about that share is right; KS rows have the ids of the corpus of tones."""
    rng = np.random.default_rng(seed)
    hit = rng.random(60) < right
    if task == "ks":
        ids = [(f"test-{label}-{k}", label) for label in LABELS["ks"] for k in range(6)]
        return [Prediction(i, label, label if hit[k] else "no") for k, (i, label) in enumerate(ids)]
    if task == "er":
        return [
            Prediction(f"er{k}", LABELS["er"][k % 2], LABELS["er"][(k + 1 - hit[k]) % 2], k % 5 + 1) for k in range(60)
        ]
    if task == "pr":
        return [Prediction(f"pr{k}", "AA B K AH", "AA B K AH" if hit[k] else "AA B") for k in range(30)]
    if task == "asv":
        return [Prediction(f"a{k} b{k}", str(k % 2), f"{k % 2 + rng.normal() * (1.5 - right):.4f}") for k in range(60)]
    if task == "qbe":
        pairs = [(q, d) for q in range(6) for d in range(8)]
        return [
            Prediction(f"q{q} d{d}", str(int(d == q)), f"{(d == q) * right * 4 + rng.normal():.4f}") for q, d in pairs
        ]
    truth = '[[0.0, 2.0, "x"], [1.5, 3.0, "y"]]'
    return [Prediction(f"sd{k}", truth, truth if hit[k] else '[[0.0, 2.5, "0"]]') for k in range(8)]


TASKS = ("ks", "er", "pr", "asv", "qbe", "sd")


@pytest.fixture(autouse=True)
def _training_spread() -> Iterator[None]:
    """Recipes ship a spread between trainings, without which nothing is called distinguishable."""
    with known_training():
        yield


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, tones: Path) -> Path:
    """Three upstreams on six tasks, one run missing, costs, layers, and unexpected entries."""
    root = tmp_path_factory.mktemp("drawn") / "results"
    for k, (name, right) in enumerate({TEACHER: 0.95, STUDENT: 0.7, FBANK: 0.3}.items()):
        for task in TASKS:
            if (name, task) != (FBANK, "sd"):
                a_run(root, name, task, predictions(task, right, k), tones if task == "ks" else None)
    costs = {name: {"gmacs_per_second": 5.0 - k, "real_time_factor": 0.3 - 0.1 * k} for name, k in COLUMNS.items()}
    (root / "cost.json").write_text(json.dumps(costs), encoding="utf8")
    write(the_layers(), root / "layers" / slug(STUDENT) / "layers.json")
    (root / "x" / "ks" / "run").mkdir(parents=True)
    (root / "x" / "ks" / "run" / records.NAME).write_text('{"half": ')
    (root / "notes.txt").write_text("mine")
    return root


def the_layers() -> LayersRecord:
    """A record such as `superb-eval layers` writes."""
    probes = [
        LayerProbe(layer=k, value=40 + k, low=30, high=60, run=f"ks/r{k}", command="superb-eval run") for k in (0, 1)
    ]
    task = TaskProbes(
        task="ks",
        profile="nano",
        corpus="pack",
        corpus_digest="dks",
        heading="ACC",
        unit="%",
        higher_is_better=True,
        probes=probes,
    )
    cka: list[list[float | None]] = [[0.9, 0.5, None], [0.4, 0.8, None]]
    alike = LayerSimilarity(
        against=TEACHER, fingerprint="f", corpus="pack", split="test", utterances=18, cka=cka, by_chance=cka
    )
    known = [LayerUnits(layer=k, pnmi=0.3 + 0.1 * k, phone_purity=0.4, cluster_purity=0.2, rank=9.5) for k in (0, 1)]
    units = UnitMeasures(corpus="pack", clusters=50, seed=0, phones=39, frames=800, layers=known)
    abx = AbxMeasures(
        corpus="pack",
        seed=0,
        phones=39,
        speakers=8,
        tokens=215,
        within=AbxTriples(pairs=871, triples=17_806),
        across=AbxTriples(pairs=900, triples=9000),
        layers=[LayerAbx(layer=k, within=12.5 + k, across=20.25 + k) for k in (0, 1)],
    )
    return LayersRecord(upstream=STUDENT, fingerprint="f", tasks=[task], alike=[alike], units=[units], abx=[abx])


@pytest.fixture(scope="session")
def by_hand() -> SimpleNamespace:
    """Helpers that write results folders and parse pages."""
    return SimpleNamespace(a_run=a_run, predictions=predictions, the_layers=the_layers, Page=Page)
