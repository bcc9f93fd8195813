"""Layer-wise distillation (DistilHuBERT, arXiv 2110.01900): a student's heads predict layers of a frozen teacher.

Loss of a frame and layer: L1 / D - lambda x log sigmoid(cosine). It is averaged over layers and valid frames; the
paper sums over layers, which under Adam differs in the effect of gradient clipping alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, logsigmoid

from superb_eval.errors import UserError
from superb_eval.pretraining import network
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.objective import Objective, Term, Terms
from superb_eval.pretraining.recipe import DistillationSettings, TeacherSettings
from superb_eval.pretraining.stored_teacher import StoredTeacher
from superb_eval.pretraining.student import Student
from upstreams.base import Upstream
from upstreams.hubert import Hubert

if TYPE_CHECKING:
    from typing_extensions import Self  # of `typing` from Python 3.11 on


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
        if teacher_settings.precision == "bf16" and not teacher_settings.stored and isinstance(teacher, Hubert):
            _round_linear_weights(teacher)
        shape = len(settings.layers), teacher.card.width
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @property
    def teacher(self) -> Upstream:
        """The frozen teacher."""
        return self._teacher[0]

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the student, and the teacher, which is no submodule, along with it."""
        self.teacher.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def frontend(self) -> nn.Module:
        """Return the student's convolutions."""
        module: nn.Module = self.student.trunk.feature_extractor
        return module

    def prepare(self, batch: Batch) -> Batch:
        """See `Objective.prepare`: adds the teacher's `layers` [rows, frames, layers, width] where they are stored."""
        inputs = network.frame_inputs(self.student.trunk, batch)
        if self.settings.padding:
            inputs["counted"] = torch.ones_like(inputs["counted"])
        if self.stored is not None:
            inputs["layers"] = self.stored.crops(batch, inputs["counted"])
        return batch._replace(inputs=inputs)

    def forward(self, batch: Batch) -> Terms:
        """Return, for each predicted layer, the distances and the cosine term summed over the frames that count."""
        self.updates = batch.step
        predictions = self.student(batch.padded).float()  # [rows, layers, frames, dim]
        targets = self.targets(batch)
        frames = min(predictions.shape[2], targets.shape[2])
        weights = batch.inputs["counted"][:, :frames].float()
        return self._terms(predictions[:, :, :frames], targets[:, :, :frames], weights)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """Return the targets [rows, layers, frames, teacher's width], standardised if the recipe asks for it."""
        return (self._teacher_layers(batch) - self.mean[:, None]) / self.scale[:, None]

    @torch.no_grad()
    def standardise(self, batches: Iterable[Batch]) -> None:
        """Measure mean and deviation of each dimension of each predicted layer, over the valid frames of batches.

        Layers of small or pre-norm teachers have scales far from 1, and a few dimensions would dominate the loss.
        """
        count = 0
        total, square = (torch.zeros_like(self.mean, dtype=torch.float64) for _ in range(2))
        for each in batches:
            batch = self.prepare(each).to(self.mean.device)
            layers = self._teacher_layers(batch).transpose(1, 2)
            counted = batch.inputs["counted"][:, : layers.shape[1]]
            valid = layers[:, : counted.shape[1]][counted].double()
            count += len(valid)
            total += valid.sum(0)
            square += valid.square().sum(0)
        self.mean.copy_(total / count)
        self.scale.copy_((square / count - (total / count).square()).clamp(min=1e-8).sqrt())

    def _teacher_layers(self, batch: Batch) -> Tensor:
        """Return the predicted layers of the teacher, not standardised: [rows, layers, frames, width] in float32."""
        if self.stored is not None:
            return batch.inputs["layers"].transpose(1, 2).float()
        half = self.teacher_settings.precision == "bf16"
        with torch.autocast(batch.wavs.device.type, torch.bfloat16, enabled=half):
            if self.teacher.frames(batch.lengths[0]) is None and not self.settings.padding:
                return self._run_by_length(batch)
            return self._select_layers(self.teacher.forward_padded(batch.padded))

    def _run_by_length(self, batch: Batch) -> Tensor:
        """Return a teacher's layers where it may let padding leak: it processes the clips of each length together."""
        wavs = batch.padded.unpad()
        outputs = []
        for length in sorted(set(batch.lengths)):
            group = [i for i, samples in enumerate(batch.lengths) if samples == length]
            outputs.append((group, self._select_layers(self.teacher([wavs[i] for i in group]))))
        longest = max(layers.shape[2] for _, layers in outputs)
        padded = self.mean.new_zeros(len(wavs), len(self.mean), longest, self.mean.shape[1])
        for group, layers in outputs:
            padded[group, :, : layers.shape[2]] = layers
        return padded

    def _select_layers(self, output: dict[str, list[Tensor]]) -> Tensor:
        return torch.stack([output["hidden_states"][k].float() for k in self.settings.layers], dim=1)

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


def _enable_dropout(teacher: Upstream) -> None:
    """Put a teacher in training mode, with dropout but without layer drop and masking, as s3prl's distiller does."""
    teacher.train()
    if isinstance(teacher, Hubert):
        teacher.model.config.layerdrop = 0.0
        teacher.model.config.apply_spec_augment = False


def _round_linear_weights(teacher: Upstream) -> None:
    """Keep the weights of linear layers in the 16 bits that autocast would round them to in every pass."""
    for module in teacher.modules():
        if type(module) is nn.Linear:
            module.to(torch.bfloat16)


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
