"""A teacher that hears each clip once: crops take their part of what it said, and a student learns the same of it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.pretraining import data, recipe, stored_teacher
from superb_eval.pretraining.data import Batches
from superb_eval.pretraining.distill import distill
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.distillation_recipe import DistillationRecipe
from superb_eval.runtime.progress import NoProgress
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
    return lambda *overrides: recipe.load(
        "distilhubert_toy", "distill", DistillationRecipe, (*few, f"teacher.address=hubert@{teacher}", *overrides)
    )


@pytest.fixture
def losses(speech: Path, settings: Settings) -> Losses:
    """The loss of each update of a training in a folder."""

    def trained(out: Path, *overrides: str) -> list[float]:
        distill(settings(*overrides), [f"audio={speech}"], out, "cpu", 1, NoProgress())
        with (out / "log.csv").open(encoding="utf8") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    return trained


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each pass of the teacher has heard."""
    heard: list[int] = []
    forward = Hubert.forward

    def counted(self: Hubert, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        if type(self) is Hubert:  # the student is a DistilHubert
            heard.append(len(wavs))
        return forward(self, wavs)

    monkeypatch.setattr(Hubert, "forward", counted)
    return heard


@pytest.mark.parametrize("more", [(), ("loss.standardise=2",)])
def test_a_student_learns_the_same_of_a_teacher_that_heard_everything_before(
    losses: Losses, tmp_path: Path, forwards: list[int], more: tuple[str, ...]
) -> None:
    before = losses(tmp_path / "a", *WHOLE, *more)
    once = sum(forwards)
    assert losses(tmp_path / "b", *WHOLE, *more) == before
    assert sum(forwards) == once, "the store has what the teacher said"
    live = losses(tmp_path / "c", *WHOLE, *more, "teacher.stored=false")
    assert before == pytest.approx(live, rel=2e-3), "16 bits"
    assert sum(forwards) > 2 * once


def test_crops_take_their_part(speech: Path, settings: Settings) -> None:
    chosen = settings("data.crop_seconds=0.7", "data.batch_seconds=3", "data.memory_gb=0")
    teacher = registry.load(str(chosen.teacher.address))
    heard = data.gather(chosen.data, {"audio": speech}, 0, NoProgress())
    kept = stored_teacher.hear(teacher, chosen, heard, CPU, NoProgress())
    batch = Batches(heard, chosen.data, 0).at(0, 1)
    assert any(offset > 0 for offset in batch.offsets)
    found = kept.of(batch, teacher.frames)
    assert found.dtype == torch.float16 and found.shape[:2] == (len(batch.clips), 2)
    for row, clip, offset, samples in zip(found, batch.clips, batch.offsets, batch.lengths.tolist(), strict=True):
        with torch.inference_mode():
            states = teacher([torch.from_numpy(audio.read(heard.clips[clip]))])["hidden_states"]
        first, count = offset // 320, teacher.frames(samples)
        expected = torch.stack([states[k][0, first : first + count] for k in (1, 2)])
        torch.testing.assert_close(row[:, :count].float(), expected, rtol=2e-3, atol=2e-3)
        assert not row[:, count:].any()


def test_clips_without_room_are_heard_when_they_come_up(
    losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forwards: list[int]
) -> None:
    roomy = losses(tmp_path / "a", *WHOLE)
    once = sum(forwards)
    monkeypatch.setenv("SUPERB_EVAL_STORE", str(tmp_path / "small"))
    monkeypatch.setenv("SUPERB_EVAL_STORE_GB", "1e-6")
    assert losses(tmp_path / "b", *WHOLE) == pytest.approx(roomy, rel=1e-4)
    assert sum(forwards) - once > once


@pytest.mark.parametrize("other", ["teacher.dropout=true", "loss.padding=true"])
def test_what_changes_each_time_is_not_stored(losses: Losses, tmp_path: Path, other: str) -> None:
    with pytest.raises(UserError, match=r"teacher\.stored: with teacher\.dropout or loss\.padding"):
        losses(tmp_path, other)


def test_a_teacher_with_fewer_frames_is_refused(speech: Path, settings: Settings) -> None:
    chosen = settings(*WHOLE)
    heard = data.gather(chosen.data, {"audio": speech}, 0, NoProgress())
    kept = stored_teacher.hear(registry.load(str(chosen.teacher.address)), chosen, heard, CPU, NoProgress())
    with pytest.raises(UserError, match="the teacher has fewer frames than the student"):
        kept.of(Batches(heard, chosen.data, 0).at(0, 1), lambda samples: samples)


def test_a_training_that_went_on_ends_with_the_bits_of_an_unbroken_one(
    losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = losses(tmp_path / "a", *WHOLE, "optim.save_minutes=0")
    targets, calls = Distillation.targets, []

    def stops(self: Distillation, batch: data.Batch) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return targets(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "targets", stops)
        with pytest.raises(KeyboardInterrupt):
            losses(tmp_path / "b", *WHOLE, "optim.save_minutes=0")
    assert losses(tmp_path / "b", *WHOLE, "optim.save_minutes=0") == unbroken
