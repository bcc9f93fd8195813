"""Distillation from recipe to student: teacher, audio, updates, and a folder to open the student from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from superb_eval.errors import UserError
from superb_eval.pretraining import data, devices, probe_tasks, recipe, stored_teacher, student, trainer
from superb_eval.pretraining import loggers as loggers_module
from superb_eval.pretraining.data import Audio, Batches
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.distillation_recipe import DistillationRecipe
from superb_eval.pretraining.export import export
from superb_eval.pretraining.pretrain import MODEL, claim, hooks
from superb_eval.runtime.progress import NoProgress, Progress
from upstreams import registry
from upstreams.base import Upstream


def distill(
    settings: DistillationRecipe,
    named: Sequence[str],
    out: Path,
    device: devices.Device,
    count: int,
    progress: Progress,
    loggers: Sequence[str] | None = None,
) -> Path:
    """Train a student by a recipe, going on with what is in `out`; return the folder to open it from.

    Args:
        settings: the recipe, as resolved; it names a teacher.
        named: `NAME=PATH` for sources.
        out: gets checkpoints, logs and the student; one training's own.
        device: cpu or cuda.
        count: how many processes share each batch.
        progress: shows progress, of the first process.
        loggers: boards that show the log beside `log.csv`; None: TensorBoard where it is installed.

    Raises:
        UserError: whatever the teacher, the data, the devices and the disk have to say.
    """
    if settings.teacher.address is None:
        raise UserError("no teacher is named. Give one with --teacher UPSTREAM, such as hubert or hubert@FOLDER.")
    shown_on = loggers_module.chosen(loggers)
    places = recipe.places(named, settings.data, settings.probe)
    probed = probe_tasks.check(settings.probe, places) if settings.probe else None
    teacher = registry.load(settings.teacher.address)
    objective = _objective(settings, teacher)
    fabric = devices.fabric(device, count, settings.optim.precision)
    shown = progress if fabric.is_global_zero else NoProgress()
    if fabric.is_global_zero:
        claim(settings, out)
    heard = data.gather(settings.data, places, settings.seed, shown)
    batches = Batches(heard, settings.data, settings.seed)
    if settings.teacher.stored:
        objective.stored = stored_teacher.hear(teacher, settings, heard, fabric.device, shown)
    if settings.loss.standardise and not (out / trainer.LAST).is_file():
        torch.manual_seed(settings.seed)  # the teacher's dropout may be on
        objective.to(fabric.device)
        objective.standardise(batches.at(number, 0) for number in range(settings.loss.standardise))

    def save(folder: Path) -> None:
        card = describe(settings, objective, heard)
        export(objective.student.trunk, folder, card=card, heads=objective.student.heads)

    trainer.fit(
        objective,
        batches,
        settings.optim,
        out,
        fabric=fabric,
        seed=settings.seed,
        progress=shown,
        name="distillation",
        hooks=hooks(settings.probe, probed, save, out, device, family="distilhubert"),
        loggers=shown_on,
    )
    return out / MODEL


def _objective(settings: DistillationRecipe, teacher: Upstream) -> Distillation:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        predicted = len(settings.loss.layers)
        pupil = student.build(settings.student, teacher, predicted, padded=settings.loss.padding)
    return Distillation(pupil, teacher, settings.loss, settings.teacher)


def describe(settings: DistillationRecipe, objective: Distillation, heard: Audio) -> str:
    """Return a student's card: what it is, what it learnt from, and how to open it."""
    parameters = sum(p.numel() for p in objective.student.trunk.parameters())
    sources = "\n".join(f"- {source.kind}: {source.place}" for source in settings.data.sources)
    notes = "\n".join(f"- {note}" for note in settings.notes)
    return f"""---
library_name: transformers
tags: [speech, hubert, distilhubert]
---
A student distilled by superb-eval after DistilHuBERT (arXiv 2110.01900): {settings.student.layers} transformer layers,
{parameters:,} weights. Teacher: {objective.teacher.card.name} ({objective.teacher.count_parameters():,} weights),
hidden states {", ".join(map(str, settings.loss.layers))}.

{objective.updates:,} of {settings.optim.steps:,} updates on {heard.hours:.2f} h of audio without labels, seed
{settings.seed}:
{sources}

Open it with `transformers.AutoModel.from_pretrained(folder)`; evaluate it with
`superb-eval run ks -u distilhubert@folder`.
{notes}
"""
