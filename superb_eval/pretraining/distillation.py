"""Layer-wise distillation (DistilHuBERT, arXiv 2110.01900): a student's heads predict layers of a frozen teacher.

Loss of a frame and layer: L1 / D - lambda x log sigmoid(cosine). It is averaged over layers and valid frames; the
paper sums over layers, which under Adam differs in the effect of gradient clipping alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, logsigmoid

from superb_eval.data.padding import valid_mask
from superb_eval.errors import UserError
from superb_eval.pretraining.data import Batch
from superb_eval.pretraining.objective import Objective, Term, Terms
from superb_eval.pretraining.recipe import DistillationSettings, TeacherSettings
from superb_eval.pretraining.stored_teacher import StoredTeacher
from superb_eval.pretraining.student import Student
from upstreams.base import Upstream
from upstreams.hubert import Hubert


class Distillation(Objective):
    """A student, its teacher and the layers that the student predicts.

    Raises (when made):
        UserError: the teacher has no such layer, or another stride than the student.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, student: Student, teacher: Upstream, settings: DistillationSettings, teacher_settings: TeacherSettings
    ) -> None:
        super().__init__()
        _check_compatible(student.upstream, teacher, settings.layers)
        self.student, self.settings, self.teacher_settings = student, settings, teacher_settings
        self.updates = 0
        """Updates so far, by the batches' numbers."""
        self._teacher = (teacher,)  # no submodule: it is neither trained nor saved
        self.stored: StoredTeacher | None = None
        """The teacher's layers of all clips from the feature store; None: the teacher processes every batch."""
        if teacher_settings.dropout:
            _enable_dropout(teacher)
        shape = len(settings.layers), teacher.card.width
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @property
    def teacher(self) -> Upstream:
        """The frozen teacher."""
        return self._teacher[0]

    def frontend(self) -> nn.Module:
        """Return the student's convolutions."""
        module: nn.Module = self.student.trunk.feature_extractor
        return module

    def forward(self, batch: Batch) -> Terms:
        """Return, for each predicted layer, the distances and the cosine term summed over the frames that count."""
        self.updates = batch.step
        wavs = _unpad(batch)
        predictions = self.student(wavs).float()  # [batch, layers, frames, dim]
        targets = self.targets(batch)
        frames = min(predictions.shape[2], targets.shape[2])
        weights = self._frame_weights(wavs, frames, predictions.device)
        return self._terms(predictions[:, :, :frames], targets[:, :, :frames], weights)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """Return the targets [batch, layers, frames, teacher's width], standardised if the recipe asks for it."""
        return (self._teacher_layers(batch) - self.mean[:, None]) / self.scale[:, None]

    @torch.no_grad()
    def standardise(self, batches: Iterable[Batch]) -> None:
        """Measure mean and deviation of each dimension of each predicted layer, over the valid frames of batches.

        Layers of small or pre-norm teachers have scales far from 1, and a few dimensions would dominate the loss.
        """
        count = 0
        total, square = (torch.zeros_like(self.mean, dtype=torch.float64) for _ in range(2))
        for each in batches:
            batch = each.to(self.mean.device)
            layers = self._teacher_layers(batch)
            weights = self._frame_weights(_unpad(batch), layers.shape[2], layers.device)
            valid = layers.transpose(1, 2)[weights.bool()].double()
            count += len(valid)
            total += valid.sum(0)
            square += valid.square().sum(0)
        self.mean.copy_(total / count)
        self.scale.copy_((square / count - (total / count).square()).clamp(min=1e-8).sqrt())

    def _teacher_layers(self, batch: Batch) -> Tensor:
        """Return the predicted layers of the teacher, not standardised: [batch, layers, frames, width] in float32."""
        if self.stored is None:
            return self._run_teacher(_unpad(batch))
        return self.stored.crops(batch, self.student.upstream.frames).to(self.mean.device).float()

    def _run_teacher(self, wavs: list[Tensor]) -> Tensor:
        """Return the teacher's predicted layers [batch, layers, frames, width] of waveforms, in float32."""
        teacher = self.teacher.to(wavs[0].device)
        half = self.teacher_settings.precision == "bf16"
        with torch.autocast(wavs[0].device.type, torch.bfloat16, enabled=half):
            unpadded = teacher.frames(len(wavs[0])) is None and not self.settings.padding
            groups = _group_by_length(wavs) if unpadded else [list(range(len(wavs)))]
            outputs = [(group, self._select_layers(teacher([wavs[i] for i in group]))) for group in groups]
        if len(outputs) == 1:
            return outputs[0][1]
        longest = max(layers.shape[2] for _, layers in outputs)
        batch = self.mean.new_zeros(len(wavs), len(self.mean), longest, self.mean.shape[1])
        for group, layers in outputs:
            batch[group, :, : layers.shape[2]] = layers
        return batch

    def _select_layers(self, output: dict[str, list[Tensor]]) -> Tensor:
        return torch.stack([output["hidden_states"][k].float() for k in self.settings.layers], dim=1)

    def _frame_weights(self, wavs: list[Tensor], frames: int, device: torch.device) -> Tensor:
        """Return 1 for the frames that count in the loss and 0 for the others, [batch, frames]."""
        lengths = torch.tensor([self.student.upstream.frames(len(wav)) for wav in wavs], device=device)
        valid = valid_mask(lengths, frames)
        return torch.ones_like(valid).float() if self.settings.padding else valid.float()

    def _terms(self, predictions: Tensor, targets: Tensor, weights: Tensor) -> Terms:
        terms: Terms = {}
        for place, layer in enumerate(self.settings.layers):
            prediction, target = predictions[:, place], targets[:, place]
            for name, value in frame_losses(prediction, target, squared=self.settings.l2 > 0).items():
                weight = getattr(self.settings, name) / len(self.settings.layers)
                terms[f"{name}_{layer}"] = Term((value * weights).sum(), weights.sum(), weight)
        return terms


def frame_losses(prediction: Tensor, target: Tensor, *, squared: bool = False) -> dict[str, Tensor]:
    """Return the terms of each frame's loss [..., frames] from predictions and targets [..., frames, dim]."""
    difference = prediction - target
    terms = {
        "l1": difference.abs().mean(-1),
        "cosine": -logsigmoid(cosine_similarity(prediction, target, dim=-1)),
    }
    return {**terms, "l2": difference.square().mean(-1)} if squared else terms


def _unpad(batch: Batch) -> list[Tensor]:
    """Return the waveforms [samples] of a batch without their padding."""
    return [wav[:length] for wav, length in zip(batch.wavs, batch.lengths.tolist(), strict=True)]


def _group_by_length(wavs: list[Tensor]) -> list[list[int]]:
    """Group waveforms of equal length: a teacher with an unknown number of frames may let padding leak."""
    lengths = sorted({len(wav) for wav in wavs})
    return [[i for i, wav in enumerate(wavs) if len(wav) == length] for length in lengths]


def _enable_dropout(teacher: Upstream) -> None:
    """Put a teacher in training mode, with dropout but without layer drop and masking, as s3prl's distiller does."""
    teacher.train()
    if isinstance(teacher, Hubert):
        teacher.model.config.layerdrop = 0.0
        teacher.model.config.apply_spec_augment = False


def _check_compatible(student: Upstream, teacher: Upstream, layers: tuple[int, ...]) -> None:
    name = teacher.card.name
    if max(layers) >= teacher.card.layers or min(layers) < 0:
        raise UserError(
            f"loss.layers={list(layers)}: the teacher {name} has hidden states 0 to {teacher.card.layers - 1}. "
            "Choose some of those with -o loss.layers=[...]."
        )
    if teacher.card.stride != student.card.stride:
        raise UserError(
            f"{name}: has a frame every {teacher.card.stride} samples, the student every {student.card.stride}. "
            "Choose a teacher of the same rate."
        )
