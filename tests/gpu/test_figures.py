"""On a GPU: features, losses, figures of runs and QbE's costs are the CPU's, but for rounding."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from downstreams.metrics.dtw import match
from downstreams.metrics.frame_distances import Distance, normalised
from superb_eval.data.audio import Clip
from superb_eval.features.extract import Extraction, extract
from superb_eval.pretraining import launch
from superb_eval.pretraining.distill import distill
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.recipe import DistillationRecipe, PretrainRecipe, load
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import own_folder
from superb_eval.runtime.progress import NoProgress
from tests.pretraining.conftest import TINY, write_speech
from tests.rounding import assert_near_losses
from tests.ten_tasks import SMALL
from upstreams import registry

pytestmark = pytest.mark.gpu

STEPS = ("train.steps=6", "train.eval_every=3", "train.batch_size=4")


@pytest.mark.parametrize("name", ["fbank", "hubert_nano@random", "distilhubert_mini@random"])
@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-3), ("bf16", 5e-2)])
def test_features_are_the_cpus(name: str, precision: Any, near: float, tones: Path, device: str) -> None:
    clips = [Clip(path) for path in sorted((tones / "audio/test").glob("*.flac"))[:9]]
    extraction = Extraction("frames", batch_seconds=4, precision=precision)
    expected = dict(extract(registry.load(name), clips, Extraction("frames"), "cpu"))
    for i, features in extract(registry.load(name).to(device), clips, extraction, device):
        assert features.shape == expected[i].shape
        assert float((features - expected[i]).norm()) < near * float(expected[i].norm()), clips[i].path


@pytest.mark.parametrize("task", [task for task in SMALL if task != "gender"])
def test_a_run_is_the_cpus(task: str, ten_tasks: Path, tmp_path: Path, device: str) -> None:
    settings = SMALL[task] if task == "qbe" else (*STEPS, *SMALL[task])
    records = []
    for where in ("cpu", device):
        out, store = tmp_path / where / "results", tmp_path / where / "store"
        config = RunConfig("hubert_nano@random", task, ten_tasks, "nano", settings, out=out, device=where, store=store)
        records.append(evaluate(config)[0])
    if task == "qbe":
        expected, actual = (record.training[0].tuned["dev_by_layer"] for record in records)
        assert actual.keys() == expected.keys()
        return
    for one, other in zip(*(record.training[0].rates for record in records), strict=True):
        assert [point["step"] for point in one.curve] == [point["step"] for point in other.curve]
        assert [p["loss"] for p in other.curve] == pytest.approx([p["loss"] for p in one.curve], rel=2e-2)


def curve(out: Path) -> list[float]:
    with (out / "log.csv").open(encoding="utf8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-4), ("bf16", 2e-2)])
def test_pretraining_has_the_cpus_losses(precision: str, near: float, tmp_path: Path, device: Any) -> None:
    speech = write_speech(tmp_path / "speech")
    exact, chosen = (
        load("hubert_toy", "pretrain", PretrainRecipe, (*TINY, f"optim.precision={p}")) for p in ("float32", precision)
    )
    pretrain(exact, [f"audio={speech}"], tmp_path / "one", "cpu", 1, NoProgress())
    own_folder.claim(tmp_path / "other", launch.KIND)
    # Clusters of features that differ by their rounding would be others.
    shutil.copytree(tmp_path / "one" / "targets", tmp_path / "other" / "targets")
    pretrain(chosen, [f"audio={speech}"], tmp_path / "other", device, 1, NoProgress())
    assert_near_losses(curve(tmp_path / "other"), curve(tmp_path / "one"), rel=near)


def test_distillation_has_the_cpus_losses(tmp_path: Path, device: Any) -> None:
    speech = write_speech(tmp_path / "speech")
    overrides = ("data.batch_seconds=4", "optim.log_every=1", "student.dropout=0.0")
    chosen = load("distilhubert_toy", "distill", DistillationRecipe, overrides)
    for out, where in (("one", "cpu"), ("other", device)):
        distill(chosen, [f"audio={speech}"], tmp_path / out, where, 1, NoProgress())
    assert_near_losses(curve(tmp_path / "other"), curve(tmp_path / "one"), rel=1e-4)


@pytest.mark.parametrize("distance", get_args(Distance))
def test_qbes_costs_are_the_compiled_ones(distance: Distance, device: str) -> None:
    rng = np.random.default_rng(0)
    clips = [
        torch.from_numpy(3 + 5 * rng.standard_normal((n, 48), np.float32))
        for n in (*rng.integers(5, 90, 40), *rng.integers(1, 450, 60), 1)
    ]
    here, there = normalised(clips), normalised(clips, device)
    torch.testing.assert_close([frames.cpu() for frames in there], here, rtol=1e-5, atol=1e-5)
    expected = match(here[:40], here[40:], distance)
    actual = match(there[:40], there[40:], distance, device)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-6)
