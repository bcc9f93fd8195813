"""Distillation from recipe to student: teacher, audio, updates, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from superb_eval.errors import UserError
from superb_eval.pretraining import launch, network, stored_teacher, trainer
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.export import export
from superb_eval.pretraining.launch import Device
from superb_eval.pretraining.recipe import DistillationRecipe
from superb_eval.pretraining.student import build_student
from superb_eval.runtime.progress import Progress
from upstreams import registry


def distill(
    recipe: DistillationRecipe,
    data: Sequence[str],
    out: Path,
    device: Device,
    devices: int,
    progress: Progress,
    loggers: Sequence[str] | None = None,
) -> Path:
    """Train a student by a recipe, resuming from what is in `out`; return the student's folder.

    Args:
        recipe: as resolved; it names a teacher.
        data: `NAME=PATH` for sources.
        out: gets checkpoints, logs and the student; the training's own folder.
        device: cpu or cuda.
        devices: number of processes that share each batch.
        progress: shows the progress of the first process.
        loggers: names of further loggers besides `log.csv`; None: TensorBoard where it is installed.

    Raises:
        UserError: an option, the teacher, the audio or the device can't be used, the loss is not finite, or the disk
            is full.
    """
    objective = _objective(recipe)  # before the folder is claimed: what doesn't fit is reported with nothing written
    invariant = recipe.teacher.stored or objective.teacher.padding_invariant
    padding_counts = recipe.loss.padding or not invariant
    with launch.prepare(
        recipe, data, out, device, devices, progress, loggers, padding_counts=padding_counts
    ) as training:
        audio, batches, on_device = training.audio, training.batches, training.fabric.device
        if recipe.teacher.stored:
            objective.stored = stored_teacher.extract(objective.teacher, recipe, audio, on_device, training.progress)
        if recipe.loss.standardise and not (out / trainer.LAST).is_file():
            torch.manual_seed(recipe.seed)  # the teacher's dropout may be on
            objective.to(on_device).standardise(batches.load(number, 0) for number in range(recipe.loss.standardise))

        def export_student(folder: Path) -> None:
            card = describe(recipe, objective, audio)
            export(objective.student.trunk, folder, card=card, heads=objective.student.heads)

        return training.fit(objective, "distillation", export_student, family="distilhubert")


def _objective(recipe: DistillationRecipe) -> Distillation:
    if recipe.teacher.address is None:
        raise UserError("no teacher is named. Give one with --teacher UPSTREAM, such as hubert or hubert@FOLDER.")
    teacher = registry.load(recipe.teacher.address)
    with network.seeded(recipe.seed):
        student = build_student(recipe.student, teacher, len(recipe.loss.layers), padded=recipe.loss.padding)
    return Distillation(student, teacher, recipe.loss, recipe.teacher)


def describe(recipe: DistillationRecipe, objective: Distillation, audio: Audio) -> str:
    """Return a student's model card: network, teacher, training audio, and how to load it."""
    parameters = sum(p.numel() for p in objective.student.trunk.parameters())
    sources = "\n".join(f"- {source.kind}: {source.location}" for source in recipe.data.sources)
    notes = "\n".join(f"- {note}" for note in recipe.notes)
    return f"""---
library_name: transformers
tags: [speech, hubert, distilhubert]
---
A student distilled by superb-eval after DistilHuBERT (arXiv 2110.01900): {recipe.student.layers} transformer layers,
{parameters:,} weights. Teacher: {objective.teacher.card.name} ({objective.teacher.count_parameters():,} weights),
hidden states {", ".join(map(str, recipe.loss.layers))}.

{objective.updates:,} of {recipe.optim.steps:,} updates on {audio.hours:.2f} h of audio without labels, seed
{recipe.seed}:
{sources}

Load it with `transformers.AutoModel.from_pretrained(folder)`; evaluate it with
`superb-eval run ks -u distilhubert@folder`.
{notes}
"""
