"""A run from corpus to record: what it writes, that it repeats bit for bit, and that it resumes after a kill."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

import superb_eval
from downstreams.ks import KeywordSpotting
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureBatch
from superb_eval.probing.batched_probes import MicroBatch
from superb_eval.probing.folds import WORK
from superb_eval.probing.optimizers import OPTIMIZERS
from superb_eval.probing.probe import new_probe, splits_of
from superb_eval.probing.probe_state import LAST, ProbeState
from superb_eval.probing.training import Training
from superb_eval.results.folder import slug
from superb_eval.results.record import RateRecord, RunRecord
from superb_eval.runs.config import RunConfig, prepare
from superb_eval.runs.evaluate import evaluate, load_features
from superb_eval.runtime.progress import NoProgress

SHORT = ("train.steps=60", "train.eval_every=20", "train.batch_size=8", "train.lr=1e-2")


@pytest.fixture
def config(tones: Path, tmp_path: Path) -> RunConfig:
    return RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "results")


def curve_of(record: RunRecord) -> RateRecord:
    ((rate,),) = [training.rates for training in record.training]
    return rate


def predictions(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").open(encoding="utf8")))


def test_a_head_learns_and_the_record_describes_its_training(config: RunConfig, tones: Path) -> None:
    record, folder = evaluate(config)
    (acc,) = record.metrics
    assert acc.value > 60 > (record.chance or 100)
    assert acc.low <= acc.value <= acc.high
    assert folder == config.out / "fbank_nonorm" / "ks" / folder.name and folder.name.startswith("mini-seed0-")
    assert RunRecord.model_validate_json((folder / "result.json").read_text()) == record
    assert record.corpus.utterances == {"train": 36, "dev": 18, "test": 18}
    assert (record.corpus.name, record.corpus.synthetic) == (tones.name, False)
    assert (record.features.kind, record.features.extracted, record.features.stored) == ("pooled", 72, 0)
    assert [point["step"] for point in curve_of(record).curve] == [20, 40, 60]
    best = max(curve_of(record).curve, key=lambda point: (point["dev"], -point["step"]))
    assert (curve_of(record).best_step, curve_of(record).best_dev) == (best["step"], best["dev"])
    assert curve_of(record).curve[0]["loss"] > curve_of(record).curve[-1]["loss"]
    assert record.recipe["train"]["steps"] == 60 and record.departures
    assert (
        record.versions["torch"] == torch.__version__.partition("+")[0] or record.versions["torch"] == torch.__version__
    )
    rows = predictions(folder)
    assert acc.value == pytest.approx(100 * sum(row["truth"] == row["answer"] for row in rows) / len(rows))
    assert not (folder / WORK).exists(), "checkpoints are removed once the record is written"


def test_identical_train_and_test_sets_are_named_before_training_and_in_the_record(
    config: RunConfig, tones: Path, tmp_path: Path
) -> None:
    root = tmp_path / "leaky"
    shutil.copytree(tones, root)
    shutil.copy(root / "ks/train.csv", root / "ks/test.csv")
    progress = LoggedLines()
    record, _ = evaluate(replace(config, data=root), progress)
    leaks = record.corpus.leaks
    assert len(leaks) == 2
    assert leaks[0].startswith("train and test use the same audio (") and leaks[0].endswith("optimistically biased.")
    assert leaks[1].startswith("train and test share the speakers ")
    assert [line for line in progress.lines if line.startswith("leaky: ")] == [f"leaky: {text}" for text in leaks]
    clean, _ = evaluate(config)
    assert clean.corpus.leaks == []


class LoggedLines(NoProgress):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_the_same_run_twice_gives_the_same_bits(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, upstream="hubert_nano@random")
    first, folder = evaluate(config)
    second, other = evaluate(replace(config, out=tmp_path / "again", store=tmp_path / "other-store"))
    assert second.features.extracted == 72, "a store of its own: features are extracted again"
    assert (folder / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    assert (folder / "probe-1.safetensors").read_bytes() == (other / "probe-1.safetensors").read_bytes()
    assert first.training == second.training
    assert first.metrics == second.metrics


def test_another_learning_rate_reads_the_store(config: RunConfig) -> None:
    _, first = evaluate(config)
    record, second = evaluate(replace(config, overrides=(*SHORT, "train.lr=1e-3")))
    assert (record.features.extracted, record.features.stored) == (0, 72)
    assert first != second, "each recipe has a folder of its own"


def test_a_finished_run_is_kept_and_fresh_repeats_it(config: RunConfig) -> None:
    first, folder = evaluate(config)
    written = (folder / "result.json").stat().st_mtime_ns
    assert evaluate(config)[0] == first
    assert (folder / "result.json").stat().st_mtime_ns == written
    again, _ = evaluate(replace(config, fresh=True))
    assert (folder / "result.json").stat().st_mtime_ns > written
    assert again.metrics == first.metrics


def test_a_finished_run_of_an_earlier_version_is_kept_with_a_warning(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    progress = NoProgress()
    monkeypatch.setattr(progress, "log", lines.append)
    evaluate(config)
    evaluate(config, progress)
    assert not any("earlier version" in line for line in lines)
    monkeypatch.setattr(KeywordSpotting, "version", 2)
    evaluate(config, progress)
    assert any("earlier version than engine 1, ks 2" in line and "--fresh" in line for line in lines)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_an_interrupted_training_ends_with_the_bits_of_an_uninterrupted_one(
    schedule: str, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, overrides=(*SHORT, f"train.schedule={schedule}"))
    uninterrupted, expected = evaluate(replace(config, out=tmp_path / "uninterrupted"))
    update = Training._update

    def interrupted(training: Training, *args: Any) -> Tensor:
        if training.step == 31:
            raise KeyboardInterrupt
        return update(training, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    resumed, folder = evaluate(config)
    assert curve_of(resumed).resumed_at == [20]
    assert curve_of(resumed).curve == curve_of(uninterrupted).curve
    assert resumed.metrics == uninterrupted.metrics
    for name in ("predictions.csv", "probe-1.safetensors"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


def test_tf32_is_refused_before_anything_is_computed(config: RunConfig) -> None:
    with pytest.raises(UserError, match="train.precision=tf32 needs --device cuda"):
        evaluate(replace(config, overrides=(*SHORT, "train.precision=tf32")))
    assert not config.out.exists()


TWO = ("train.steps=2", "train.eval_every=1")
"""Over more updates, rounding differences of another arithmetic grow (tests/rounding.py)."""


def losses(record: RunRecord) -> list[float]:
    """Return the training loss at each evaluation."""
    return [point["loss"] for point in curve_of(record).curve]


def first_update(config: RunConfig, folder: Path) -> tuple[FeatureBatch, Tensor, dict[str, Tensor]]:
    """Return the first micro-batch of a run, its loss, and the gradients of all weights."""
    run = prepare(config, NoProgress())
    (fold,), probe_config = run.folds, run.probe_config()
    splits = splits_of(fold.corpus, probe_config, load_features(run, NoProgress()))
    probe = new_probe(probe_config, fold.task, splits["train"].features)
    assert run.recipe.train is not None
    training = Training([ProbeState(1e-2, probe, folder)], fold.task, splits, run.recipe.train, seed=0, folder=folder)
    batch, targets = next(training.micro_batches(1))
    loss = training.active.probes.backward(MicroBatch(batch, targets, seed=0), 1.0)
    training.active.probes.clip(float("inf"))
    found = zip(probe.named_parameters(), training.active.probes.parameters(0), strict=True)
    # Heads on means store their matrices transposed.
    return batch, loss, {n: w.grad if w.shape == p.shape else w.grad.mT for (n, p), w in found if w.grad is not None}


def test_frames_and_their_means_train_the_same_head(config: RunConfig, tmp_path: Path) -> None:
    """Equal up to rounding at equal weights, and over two updates from corpus to record; see tests/rounding.py."""
    means = replace(config, upstream="hubert_nano@random")
    frames = replace(means, overrides=(*SHORT, "features.pooled=false"))
    pooled_batch, pooled_loss, pooled_gradients = first_update(means, tmp_path)
    frame_batch, frame_loss, frame_gradients = first_update(frames, tmp_path)
    assert pooled_batch.pooled and not frame_batch.pooled
    assert len(set(frame_batch.lengths.tolist())) > 1, "padding must not change the mean"
    torch.testing.assert_close(pooled_loss, frame_loss, rtol=1e-5, atol=1e-6)
    assert pooled_gradients.keys() == frame_gradients.keys() and len(pooled_gradients) == 5
    for name, gradient in pooled_gradients.items():
        torch.testing.assert_close(gradient, frame_gradients[name], rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))
    (pooled, _), (whole, _) = (evaluate(replace(each, overrides=(*each.overrides, *TWO))) for each in (means, frames))
    assert (pooled.features.kind, whole.features.kind) == ("pooled", "frames")
    assert losses(pooled) == pytest.approx(losses(whole), rel=1e-5)
    assert pooled.metrics[0].value == pytest.approx(whole.metrics[0].value, abs=100 / 18), "one utterance at most"


def test_a_linear_schedule_lowers_each_rate_by_the_step_alone(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 - t / T (Defazio et al. 2023), from the whole rate at the first update to zero after the last."""
    rates: list[float] = []
    update = OPTIMIZERS["adam"].step

    def noting(optimizer: Any, *args: Any) -> Any:
        rates.append(optimizer.param_groups[0]["lr"])
        return update(optimizer, *args)

    few = ("train.steps=4", "train.eval_every=2", "train.batch_size=8", "train.schedule=linear")
    with monkeypatch.context() as patch:
        patch.setattr(OPTIMIZERS["adam"], "step", noting)
        swept, _ = evaluate(replace(config, overrides=(*few, "train.lr={sweep: [1e-2, 4e-3]}")))
    assert rates == pytest.approx([rate * factor for factor in (1, 0.75, 0.5, 0.25) for rate in (1e-2, 4e-3)])
    alone, _ = evaluate(replace(config, overrides=(*few, "train.lr=4e-3"), out=tmp_path / "alone"))
    constant = (*few[:3], "train.schedule=constant", "train.lr=4e-3")
    unscheduled, _ = evaluate(replace(config, overrides=constant, out=tmp_path / "constant"))
    (rate,) = [rate for rate in swept.training[0].rates if rate.lr == 4e-3]
    assert [p["loss"] for p in rate.curve] == pytest.approx(losses(alone), rel=1e-3)
    assert curve_of(alone).curve != curve_of(unscheduled).curve


def test_accumulation_equals_a_larger_batch(config: RunConfig) -> None:
    whole = evaluate(replace(config, overrides=(*SHORT, *TWO, "train.batch_size=12")))[0]
    parts = evaluate(replace(config, overrides=(*SHORT, *TWO, "train.batch_size=6", "train.accumulate=2")))[0]
    assert losses(whole) == pytest.approx(losses(parts), rel=1e-5)


@pytest.mark.parametrize(
    ("rates", "several"), [("1e30", ""), ("{sweep: [1e30, 1e25]}", " .lr .*; every rate diverged.")]
)
def test_where_every_rate_diverges_step_and_utterances_are_named(rates: str, several: str, config: RunConfig) -> None:
    sentence = rf"step \d+: the loss is (nan|inf) on utterances train-.*was finite{several}\. Lower -o train.lr"
    with pytest.raises(UserError, match=sentence):
        evaluate(replace(config, overrides=(*SHORT, f"train.lr={rates}")))


def test_a_sweep_tests_the_best_rate_on_dev_and_records_every_curve(config: RunConfig) -> None:
    record, _ = evaluate(replace(config, overrides=(*SHORT, "train.lr={sweep: [1e-5, 1e-2, 1e-3]}")))
    (training,) = record.training
    assert [rate.lr for rate in training.rates] == [1e-5, 1e-2, 1e-3]
    assert training.lr == max(training.rates, key=lambda rate: rate.best_dev).lr
    swept, _ = evaluate(replace(config, overrides=(*SHORT, *TWO, "train.lr={sweep: [1e-5, 1e-2, 1e-3]}")))
    assert swept.features.extracted == 0, "one pass of the upstream feeds every rate"
    for rate in swept.training[0].rates:  # three heads in one product round differently than one alone
        alone, _ = evaluate(replace(config, overrides=(*SHORT, *TWO, f"train.lr={rate.lr}")))
        assert [point["loss"] for point in rate.curve] == pytest.approx(losses(alone), rel=1e-5)


def test_a_run_of_another_process_is_refused(config: RunConfig) -> None:
    _, folder = evaluate(config)
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another process computes this run"):
        evaluate(replace(config, fresh=True))


def test_missing_layers_and_feature_keys_are_named(config: RunConfig) -> None:
    with pytest.raises(UserError, match=r"features\.layer: fbank_nonorm has no layer 3 of 1"):
        evaluate(replace(config, overrides=("features.layer=3",)))
    with pytest.raises(UserError, match="fbank_nonorm has no feature 'paper'"):
        evaluate(replace(config, overrides=("features.key=paper",)))


def test_runs_from_python(tones: Path, tmp_path: Path) -> None:
    record = superb_eval.evaluate("fbank", "ks", tones, overrides=SHORT, out=str(tmp_path), seed=3)
    assert (record.seed, record.task) == (3, "ks")
    assert record.metrics[0].value < 60, "normalised FBANK has a mean of zero: nothing to learn from"


def test_folder_names_are_safe_and_unique() -> None:
    addresses = ["fbank", "s3prl:fbank", "s3prl-fbank", "../../x", "a/b.py:C", "hubert@random", "ü" * 300]
    slugs = [slug(address) for address in addresses]
    assert len(set(slugs)) == len(addresses)
    assert all("/" not in s and s not in (".", "..") and 0 < len(s) < 100 for s in slugs)
    assert slug("hubert@random") == "hubert@random"


@pytest.mark.slow
def test_a_killed_run_resumes_with_identical_results(config: RunConfig, tmp_path: Path) -> None:
    """SIGKILL twice in one run: during extraction and during training."""
    expected = evaluate(replace(config, upstream="hubert_nano@random", out=tmp_path / "uninterrupted"))[0]
    command = [
        sys.executable,
        "-m",
        "superb_eval.cli.app",
        "run",
        "ks",
        "-u",
        "hubert_nano@random",
        "--data",
        str(config.data),
    ]
    command += ["--out", str(config.out), "--store", str(tmp_path / "killed"), *[w for o in SHORT for w in ("-o", o)]]
    kills = 0
    for moment in (_shard_written, _state_saved):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not moment(tmp_path / "killed", config.out):
            time.sleep(0.002)
        kills += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert kills == 2, "both kills struck a running process"
    subprocess.run(command, check=True, capture_output=True)
    (path,) = config.out.rglob("result.json")
    record = json.loads(path.read_text())
    assert record["metrics"] == json.loads(expected.model_dump_json())["metrics"]
    assert record["training"][0]["rates"][0]["curve"] == curve_of(expected).curve


def _shard_written(store: Path, out: Path) -> bool:
    return any(store.rglob("*.safetensors"))


def _state_saved(store: Path, out: Path) -> bool:
    return any(out.rglob(LAST))
