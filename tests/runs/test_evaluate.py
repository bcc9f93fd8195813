"""A cell from corpus to record: what it writes, that it repeats to the bit, and that it survives being killed."""

from __future__ import annotations

import csv
import json
import os
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

import superb_eval
from superb_eval.errors import UserError
from superb_eval.probing.folds import WORK
from superb_eval.probing.training import LAST, Training
from superb_eval.results.record import RateRecord, RunRecord
from superb_eval.runs.config import RunConfig, slug
from superb_eval.runs.evaluate import evaluate

SHORT = ("train.steps=60", "train.eval_every=20", "train.batch_size=8", "train.lr=1e-2")


@pytest.fixture
def order(tones: Path, tmp_path: Path) -> RunConfig:
    return RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "results")


def curve_of(record: RunRecord) -> RateRecord:
    ((rate,),) = [training.rates for training in record.training]
    return rate


def predictions(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").open(encoding="utf8")))


def test_a_cell_learns_and_its_record_tells_how(order: RunConfig, tones: Path) -> None:
    record, folder = evaluate(order)
    (acc,) = record.metrics
    assert acc.value > 60 > (record.chance or 100)
    assert acc.low <= acc.value <= acc.high
    assert folder == order.out / "fbank_nonorm" / "ks" / folder.name and folder.name.startswith("mini-seed0-")
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
    assert not (folder / WORK).exists(), "the state of training is of no use once the record is written"


def test_the_same_run_twice_gives_the_same_bits(order: RunConfig, tmp_path: Path) -> None:
    order = replace(order, upstream="hubert_nano@random")
    first, folder = evaluate(order)
    second, other = evaluate(replace(order, out=tmp_path / "again", store=tmp_path / "other-store"))
    assert second.features.extracted == 72, "a store of its own: features are computed twice"
    assert (folder / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    assert (folder / "probe-1.safetensors").read_bytes() == (other / "probe-1.safetensors").read_bytes()
    assert first.training == second.training
    assert first.metrics == second.metrics


def test_another_learning_rate_reads_the_store(order: RunConfig) -> None:
    _, first = evaluate(order)
    record, second = evaluate(replace(order, overrides=(*SHORT, "train.lr=1e-3")))
    assert (record.features.extracted, record.features.stored) == (0, 72)
    assert first != second, "each recipe has a folder of its own"


def test_a_finished_cell_is_kept_and_fresh_runs_it_again(order: RunConfig) -> None:
    first, folder = evaluate(order)
    written = (folder / "result.json").stat().st_mtime_ns
    assert evaluate(order)[0] == first
    assert (folder / "result.json").stat().st_mtime_ns == written
    again, _ = evaluate(replace(order, fresh=True))
    assert (folder / "result.json").stat().st_mtime_ns > written
    assert again.metrics == first.metrics


def test_an_interrupted_training_ends_with_the_bits_of_an_unbroken_one(
    order: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, expected = evaluate(replace(order, out=tmp_path / "unbroken"))
    update = Training._update

    def interrupted(training: Training, *args: Any) -> float:
        if training.step == 31:
            raise KeyboardInterrupt
        return update(training, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(order)
    resumed, folder = evaluate(order)
    assert curve_of(resumed).resumed_at == [20]
    assert curve_of(resumed).curve == curve_of(unbroken).curve
    assert resumed.metrics == unbroken.metrics
    for name in ("predictions.csv", "probe-1.safetensors"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


def test_frames_and_means_give_the_same_answers(order: RunConfig) -> None:
    pooled, folder = evaluate(replace(order, upstream="hubert_nano@random"))
    frames, other = evaluate(replace(order, upstream="hubert_nano@random", overrides=(*SHORT, "features.pooled=false")))
    assert (pooled.features.kind, frames.features.kind) == ("pooled", "frames")
    for a, b in zip(curve_of(pooled).curve, curve_of(frames).curve, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    assert predictions(folder) == predictions(other)


def test_accumulation_equals_a_larger_batch(order: RunConfig) -> None:
    whole = evaluate(replace(order, overrides=(*SHORT, "train.batch_size=12")))[0]
    parts = evaluate(replace(order, overrides=(*SHORT, "train.batch_size=6", "train.accumulate=2")))[0]
    # Rounding grows from update to update; the first twenty leave no room for another reason.
    assert curve_of(whole).curve[0]["loss"] == pytest.approx(curve_of(parts).curve[0]["loss"], rel=1e-4)


def test_a_loss_that_diverges_stops_with_step_and_utterances(order: RunConfig) -> None:
    with pytest.raises(UserError, match=r"step \d+: the loss is (nan|inf) on utterances train-.*Lower -o train.lr"):
        evaluate(replace(order, overrides=(*SHORT, "train.lr=1e30")))


def test_a_sweep_tests_the_rate_that_dev_chose_and_keeps_every_curve(order: RunConfig) -> None:
    record, _ = evaluate(replace(order, overrides=(*SHORT, "train.lr={sweep: [1e-5, 1e-2, 1e-3]}")))
    (training,) = record.training
    assert [rate.lr for rate in training.rates] == [1e-5, 1e-2, 1e-3]
    assert training.lr == max(training.rates, key=lambda rate: rate.best_dev).lr
    alone, _ = evaluate(replace(order, overrides=(*SHORT, f"train.lr={training.lr}")))
    assert alone.features.extracted == 0, "one pass of the upstream feeds every rate"
    assert alone.metrics == record.metrics
    beside = next(rate.curve for rate in training.rates if rate.lr == training.lr)
    for a, b in zip(curve_of(alone).curve, beside, strict=True):
        assert a == pytest.approx(b, rel=1e-3), "three heads in one product round otherwise than one alone"


def test_a_cell_that_runs_elsewhere_is_left_alone(order: RunConfig) -> None:
    _, folder = evaluate(order)
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another process runs this cell"):
        evaluate(replace(order, fresh=True))


def test_layers_and_keys_that_are_not_there_are_named(order: RunConfig) -> None:
    with pytest.raises(UserError, match=r"features\.layer: fbank_nonorm has no layer 3 of 1"):
        evaluate(replace(order, overrides=("features.layer=3",)))
    with pytest.raises(UserError, match="fbank_nonorm has no feature 'paper'"):
        evaluate(replace(order, overrides=("features.key=paper",)))


def test_runs_from_python(tones: Path, tmp_path: Path) -> None:
    record = superb_eval.evaluate("fbank", "ks", tones, overrides=SHORT, out=str(tmp_path), seed=3)
    assert (record.seed, record.task) == (3, "ks")
    assert record.metrics[0].value < 60, "normalised FBANK has a mean of zero: nothing to learn from"


def test_folder_names_are_safe_and_never_shared() -> None:
    addresses = ["fbank", "s3prl:fbank", "s3prl-fbank", "../../x", "a/b.py:C", "hubert@random", "ü" * 300]
    slugs = [slug(address) for address in addresses]
    assert len(set(slugs)) == len(addresses)
    assert all("/" not in s and s not in (".", "..") and 0 < len(s) < 100 for s in slugs)
    assert slug("hubert@random") == "hubert@random"


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_alike(order: RunConfig, tmp_path: Path) -> None:
    """SIGKILL, several times in one run: during start-up, extraction or training, wherever it happens to strike."""
    expected = evaluate(replace(order, upstream="hubert_nano@random", out=tmp_path / "unbroken"))[0]
    command = [
        sys.executable,
        "-m",
        "superb_eval.cli.app",
        "run",
        "ks",
        "-u",
        "hubert_nano@random",
        "--data",
        str(order.data),
    ]
    command += ["--out", str(order.out), "--store", str(tmp_path / "killed"), *[w for o in SHORT for w in ("-o", o)]]
    kills = 0
    for moment in (_shard_written, _state_saved):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not moment(tmp_path / "killed", order.out):
            time.sleep(0.002)
        kills += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert kills == 2, "both kills struck a running process"
    subprocess.run(command, check=True, capture_output=True)
    (path,) = order.out.rglob("result.json")
    found = json.loads(path.read_text())
    assert found["metrics"] == json.loads(expected.model_dump_json())["metrics"]
    assert found["training"][0]["rates"][0]["curve"] == curve_of(expected).curve


def _shard_written(store: Path, out: Path) -> bool:
    return any(store.rglob("*.safetensors"))


def _state_saved(store: Path, out: Path) -> bool:
    return any(out.rglob(LAST))
