"""Training from end to end on toy audio: it resumes exactly, and every fault leaves the last checkpoint."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from safetensors.torch import load_file

from superb_eval.errors import UserError
from superb_eval.pretraining import launch, network, trainer
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.recipe import OptimSettings, PretrainRecipe
from superb_eval.runtime import own_folder
from superb_eval.runtime.progress import NoProgress
from tests.rounding import assert_near_losses, assert_near_weights
from upstreams import registry

Toy = Callable[..., PretrainRecipe]


def train(settings: PretrainRecipe, speech: Path, out: Path) -> Path:
    return pretrain(settings, [f"audio={speech}"], out, "cpu", 1, NoProgress())


def curve(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Simulate a signal to stop during an update."""
    update = trainer._Trainer._update

    def signalled(self: Any, module: Any, optimizer: Any, batches: Any, stop: bool, save: bool) -> Any:
        return update(self, module, optimizer, batches, stop or self.state.step + 1 == step, save)

    monkeypatch.setattr(trainer._Trainer, "_update", signalled)


def test_interrupted_and_resumed_training_equals_uninterrupted_training(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dropout on, and an update of two batches: all random draws must be repeated.
    settings = toy("network.dropout=0.2", "optim.accumulate=2", "front={optim: {steps: 3, log_every: 1}, mels: 20}")
    uninterrupted = train(settings, speech, tmp_path / "uninterrupted")
    stop_at(monkeypatch, 1)
    for _ in range(2):  # the warm start is interrupted at its second update, then masked prediction
        with pytest.raises(KeyboardInterrupt):
            train(settings, speech, tmp_path / "resumed")
    resumed = train(settings, speech, tmp_path / "resumed")
    one, other = load_file(uninterrupted / "model.safetensors"), load_file(resumed / "model.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    states = [torch.load(path.parent / "last.pt", weights_only=True) for path in (uninterrupted, resumed)]
    moments = [state["optimizer"]["state"] for state in states]
    assert all(torch.equal(moments[0][k]["exp_avg_sq"], moments[1][k]["exp_avg_sq"]) for k in moments[0])
    losses = [[line["loss"] for line in curve(path.parent)] for path in (uninterrupted, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


def test_the_warm_start_may_have_shorter_batches(toy: Toy, speech: Path, tmp_path: Path) -> None:
    hours = {}
    for seconds in ("null", "2"):
        front = f"front={{optim: {{steps: 2, log_every: 1}}, mels: 20, batch_seconds: {seconds}}}"
        settings = toy("optim.steps=1", "data.crop_seconds=1", "data.batch_seconds=4", front)
        model = train(settings, speech, tmp_path / seconds)
        hours[seconds] = [float(curve(folder)[-1]["hours"]) for folder in (model.parent / "front", model.parent)]
    assert hours["2"][0] < 0.6 * hours["null"][0] and hours["2"][1] == hours["null"][1]


def test_two_kinds_of_targets_are_predicted_at_once(toy: Toy, speech: Path, tmp_path: Path) -> None:
    further = "targets.further={features: log-mel, quantiser: random, clusters: 30, centre: all}"
    train(toy(further, "optim.steps=2"), speech, tmp_path)
    assert curve(tmp_path)[-1].keys() >= {"masked", "masked_right", "masked_right_codebook2"}


def test_convolutions_of_rate_zero_stay_as_the_warm_start_left_them(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = "front={optim: {steps: 2, log_every: 1}, mels: 20}"
    uninterrupted = train(toy("optim.front_lr=0", front), speech, tmp_path / "frozen")
    before = load_file(tmp_path / "frozen/front/model/model.safetensors")
    after = load_file(uninterrupted / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("feature_extractor.") for name in changed)
    assert {"feature_projection.projection.weight", "encoder.layers.0.attention.q_proj.weight"} <= changed
    stop_at(monkeypatch, 2)  # the warm start's last update, then masked prediction
    with pytest.raises(KeyboardInterrupt):
        train(toy("optim.front_lr=0", front), speech, tmp_path / "resumed")
    resumed = load_file(train(toy("optim.front_lr=0", front), speech, tmp_path / "resumed") / "model.safetensors")
    assert all(torch.equal(after[name], resumed[name]) for name in after)


@pytest.mark.parametrize("more", ["", "feat_extract_norm: layer, "])
def test_frozen_convolutions_keep_nothing_for_a_gradient(more: str, toy: Toy) -> None:
    model = network.create(toy(f"network.more={{{more}num_conv_pos_embedding_groups: 4}}").network, 0).train()
    wavs = torch.zeros(1, 4_000)
    batch = Batch(wavs, (4_000,), (0,), (0,), (0,), 1)
    batch = batch._replace(inputs=network.frame_inputs(model, batch))
    assert network.run_frontend(model, batch).features.requires_grad
    model.feature_extractor.requires_grad_(False)
    assert not network.run_frontend(model, batch).features.requires_grad


def test_the_loss_falls_and_the_encoder_loads_here_and_in_transformers(toy: Toy, speech: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    settings = toy("optim.steps=40", "optim.lr=1e-2", "predict.penalty=0", "optim.log_every=10")
    folder = train(settings, speech, tmp_path)
    losses = [float(line["masked"]) for line in curve(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]
    upstream = registry.load(f"hubert@{folder}")
    wave = torch.from_numpy(soundfile.read(next(iter(speech.iterdir())), dtype="float32")[0])
    ours = upstream([wave])["hidden_states"]
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder).eval()(wave[None], output_hidden_states=True).hidden_states
    assert len(ours) == len(theirs) == settings.network.layers + 1
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(toy: Toy, speech: Path, tmp_path: Path) -> None:
    overrides = ("data.batch_seconds=8", "optim.accumulate=2", "optim.lr=1e-2")
    train(toy(*overrides), speech, tmp_path / "one")
    recipe = tmp_path / "toy.yaml"
    recipe.write_text((tmp_path / "one/recipe.yaml").read_text())
    command = [sys.executable, "-m", "superb_eval", "pretrain", str(recipe), "--out", str(tmp_path / "two")]
    done = subprocess.run(
        [*command, "--data", f"audio={speech}", "--devices", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(two) == 6
    for key in ("loss", "masked", "unmasked", "penalty", "hours"):
        assert_near_losses([float(row[key]) for row in two], [float(row[key]) for row in one])
    ours, theirs = (load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "two"))
    assert_near_weights(theirs, ours)


def test_bf16_gives_nearly_the_curve_of_float32(toy: Toy, speech: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bf16"):
        train(toy(f"optim.precision={precision}"), speech, tmp_path / precision)
    ours, theirs = ([float(line["masked"]) for line in curve(tmp_path / name)] for name in ("bf16", "float32"))
    assert ours != theirs
    np.testing.assert_allclose(ours, theirs, rtol=0.03)
    weights = load_file(tmp_path / "bf16/model/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_a_loss_that_is_not_finite_names_update_and_files_and_leaves_the_checkpoint(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy("optim.save_minutes=0")
    reduce_terms, calls = trainer.reduce_terms, []

    def poisoned(fabric: Any, terms: Any, extra: tuple[float, ...]) -> Any:
        calls.append(1)
        if len(calls) == 4:
            terms = {name: term._replace(total=term.total * float("nan")) for name, term in terms.items()}
        return reduce_terms(fabric, terms, extra)

    monkeypatch.setattr(trainer, "reduce_terms", poisoned)
    with pytest.raises(
        UserError, match=r"update 4: the loss is nan on .*\.flac.* \(the checkpoint of update 3 remains\)"
    ):
        train(settings, speech, tmp_path)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["state"]["step"] == 3
    train(settings, speech, tmp_path)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["state"]["step"] == 6


def test_a_disk_full_at_a_checkpoint_is_one_sentence_and_leaves_the_last_one(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy("optim.save_minutes=0")
    save, calls = torch.save, []

    def full(content: Any, path: Path) -> None:
        calls.append(1)
        if len(calls) == 3:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt: the disk is full\. Free some space"):
        train(settings, speech, tmp_path)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["state"]["step"] == 2
    assert not list(tmp_path.glob(".*tmp"))


def test_a_folder_belongs_to_one_recipe_and_a_checkpoint_to_one_network(toy: Toy, speech: Path, tmp_path: Path) -> None:
    train(toy(), speech, tmp_path)
    with pytest.raises(UserError, match="holds a training by another recipe"):
        train(toy("optim.lr=3e-3"), speech, tmp_path)
    other = tmp_path / "other"
    own_folder.claim(other, launch.KIND)
    shutil.copy(tmp_path / "last.pt", other)
    with pytest.raises(UserError, match=r"last\.pt: is the checkpoint of another network or seed"):
        train(toy("network.hidden=16"), speech, other)


def test_a_training_of_another_process_is_refused_and_left_as_it_is(toy: Toy, speech: Path, tmp_path: Path) -> None:
    """Of two at once, such as a job that was queued again, the slower one would write its older checkpoints last."""
    train(toy(), speech, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="another process runs this training. Wait for"):
        train(toy(), speech, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    train(toy(), speech, tmp_path)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_learning_rate_rises_and_falls_linearly(warmup: float) -> None:
    settings = OptimSettings(steps=20, warmup=warmup)
    rates = [trainer.lr_factor(settings, step) for step in range(1, 22)]
    expected = np.interp(range(1, 22), [0, max(1, 20 * warmup), 21], [0, 1, 0])
    np.testing.assert_allclose(rates, expected, atol=1e-12)
