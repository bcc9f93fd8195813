"""A teacher that processes each clip once: crops use their segments, and the student is trained the same."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from superb_eval.data import audio
from superb_eval.data.padding import PaddedWavs, valid_mask
from superb_eval.errors import UserError
from superb_eval.pretraining import data, stored_teacher
from superb_eval.pretraining.batches import Batch, Batches
from superb_eval.pretraining.distill import distill
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.recipe import DistillationRecipe, load
from superb_eval.runtime.progress import NoProgress
from tests.rounding import assert_near_losses
from upstreams import registry
from upstreams.hubert import Hubert

WHOLE = ("data.crop_seconds=4", "data.batch_seconds=8")
CPU = torch.device("cpu")


Settings = Callable[..., DistillationRecipe]
Losses = Callable[..., list[float]]


@pytest.fixture
def settings(teacher: Path) -> Settings:
    """The toy recipe with a tiny teacher whose layers are stored, as a function of overrides."""
    few = ("optim.steps=9", "optim.log_every=1", "student.hidden=null", "student.dropout=0.2", "teacher.stored=true")
    return lambda *overrides: load(
        "distilhubert_toy", "distill", DistillationRecipe, (*few, f"teacher.address=hubert@{teacher}", *overrides)
    )


@pytest.fixture
def losses(speech: Path, settings: Settings) -> Losses:
    """The loss of each update of a training in a folder."""

    def train(out: Path, *overrides: str) -> list[float]:
        distill(settings(*overrides), [f"audio={speech}"], out, "cpu", 1, NoProgress())
        with (out / "log.csv").open(encoding="utf8") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    return train


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of clips in each forward pass of the teacher."""
    counts: list[int] = []
    forward = Hubert.forward_padded

    def counted(self: Hubert, batch: PaddedWavs) -> dict[str, list[torch.Tensor]]:
        if type(self) is Hubert:  # the student is a DistilHubert
            counts.append(len(batch.lengths))
        return forward(self, batch)

    monkeypatch.setattr(Hubert, "forward_padded", counted)
    return counts


@pytest.mark.parametrize("more", [(), ("loss.standardise=2",)])
def test_a_stored_teacher_trains_the_same_student(
    losses: Losses, tmp_path: Path, forwards: list[int], more: tuple[str, ...]
) -> None:
    stored = losses(tmp_path / "a", *WHOLE, *more)
    once = sum(forwards)
    assert losses(tmp_path / "b", *WHOLE, *more) == stored
    assert sum(forwards) == once, "the store has all of the teacher's layers"
    live = losses(tmp_path / "c", *WHOLE, *more, "teacher.stored=false")
    assert_near_losses(stored, live, rel=2e-3)  # 16 bits
    assert sum(forwards) > 2 * once


def test_another_batch_size_uses_what_is_stored(losses: Losses, tmp_path: Path, forwards: list[int]) -> None:
    losses(tmp_path / "a", *WHOLE)
    once = sum(forwards)
    losses(tmp_path / "b", *WHOLE, "data.batch_seconds=6")
    assert sum(forwards) == once > 0


def test_clips_that_are_not_stored_are_counted(
    speech: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recorded: Any
) -> None:
    recipe = settings(*WHOLE)
    loaded = data.load_audio(recipe.data, {"audio": speech}, 0, NoProgress())
    for gigabytes, counts in (("1e-6", "0 clips extracted, 0 from the store; 24 are not stored"), ("1", "24 clips")):
        monkeypatch.setenv("SUPERB_EVAL_STORE", str(tmp_path / gigabytes))
        monkeypatch.setenv("SUPERB_EVAL_STORE_GB", gigabytes)
        teacher = registry.load(str(recipe.teacher.address))
        stored_teacher.extract(teacher, recipe, loaded, CPU, recorded)
        assert f"teacher: {counts}" in recorded.lines[-1]
    assert "not stored" not in recorded.lines[-1]


def test_crops_use_their_segments(speech: Path, settings: Settings) -> None:
    recipe = settings("data.crop_seconds=0.7", "data.batch_seconds=3", "data.memory_gb=0")
    teacher = registry.load(str(recipe.teacher.address))
    loaded = data.load_audio(recipe.data, {"audio": speech}, 0, NoProgress())
    teacher_layers = stored_teacher.extract(teacher, recipe, loaded, CPU, NoProgress())
    batch = Batches(loaded, recipe.data, 0).load(0, 1)
    assert any(offset > 0 for offset in batch.offsets)
    counts = [teacher.frames(samples) or 0 for samples in batch.lengths]
    crops = teacher_layers.crops(batch, valid_mask(torch.tensor(counts), max(counts))).transpose(1, 2)
    assert crops.dtype == torch.float16 and crops.shape[:2] == (len(batch.clips), 2)
    for row, clip, offset, samples in zip(crops, batch.clips, batch.offsets, batch.lengths, strict=True):
        with torch.inference_mode():
            states = teacher([torch.from_numpy(audio.read(loaded.clips[clip]))])["hidden_states"]
        first, count = offset // 320, teacher.frames(samples)
        expected = torch.stack([states[k][0, first : first + count] for k in (1, 2)])
        torch.testing.assert_close(row[:, :count].float(), expected, rtol=2e-3, atol=2e-3)
        assert not row[:, count:].any()


def test_clips_without_room_in_the_store_are_processed_when_needed(
    losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forwards: list[int]
) -> None:
    unlimited = losses(tmp_path / "a", *WHOLE)
    once = sum(forwards)
    monkeypatch.setenv("SUPERB_EVAL_STORE", str(tmp_path / "small"))
    monkeypatch.setenv("SUPERB_EVAL_STORE_GB", "1e-6")
    assert_near_losses(losses(tmp_path / "b", *WHOLE), unlimited)
    assert sum(forwards) - once > once


@pytest.mark.parametrize("override", ["teacher.dropout=true", "loss.padding=true"])
def test_settings_that_change_the_output_are_refused(losses: Losses, tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match=r"teacher\.stored: with teacher\.dropout or loss\.padding"):
        losses(tmp_path, override)


def test_a_teacher_with_fewer_frames_is_refused(speech: Path, settings: Settings) -> None:
    recipe = settings(*WHOLE)
    loaded = data.load_audio(recipe.data, {"audio": speech}, 0, NoProgress())
    teacher_layers = stored_teacher.extract(
        registry.load(str(recipe.teacher.address)), recipe, loaded, CPU, NoProgress()
    )
    batch = Batches(loaded, recipe.data, 0).load(0, 1)
    counted = torch.ones(len(batch.clips), 1_000, dtype=torch.bool)
    with pytest.raises(UserError, match="the teacher has fewer frames than the student"):
        teacher_layers.crops(batch, counted)


def test_a_resumed_training_equals_an_uninterrupted_one(
    losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = losses(tmp_path / "a", *WHOLE, "optim.save_minutes=0")
    targets, calls = Distillation.targets, []

    def interrupt(self: Distillation, batch: Batch) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return targets(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "targets", interrupt)
        with pytest.raises(KeyboardInterrupt):
            losses(tmp_path / "b", *WHOLE, "optim.save_minutes=0")
    assert losses(tmp_path / "b", *WHOLE, "optim.save_minutes=0") == uninterrupted
