"""Pre-training from recipe to encoder: audio, targets, warm start, masked prediction, and a folder to open it from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from superb_eval.errors import UserError
from superb_eval.pretraining import data, devices, network, probe_tasks, recipe, targets, trainer
from superb_eval.pretraining import loggers as loggers_module
from superb_eval.pretraining.data import Batches
from superb_eval.pretraining.export import export
from superb_eval.pretraining.frontend_warmup import Regression
from superb_eval.pretraining.masked import MaskedPrediction
from superb_eval.pretraining.recipe import FrontSettings, PretrainRecipe, ProbeSettings
from superb_eval.recipe import Section
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import NoProgress, Progress

if TYPE_CHECKING:
    from transformers import HubertModel

MODEL = "model"
"""In the folder of a training: what `hubert@FOLDER/model` opens."""


def pretrain(
    settings: PretrainRecipe,
    named: Sequence[str],
    out: Path,
    device: devices.Device,
    count: int,
    progress: Progress,
    loggers: Sequence[str] | None = None,
) -> Path:
    """Train by a recipe, going on with what is in `out`; return the folder of the encoder.

    Args:
        settings: the recipe, as resolved.
        named: `NAME=PATH` for sources.
        out: gets targets, checkpoints, logs and the encoder; one training's own.
        device: cpu or cuda.
        count: how many processes share each batch.
        progress: shows progress, of the first process.
        loggers: boards that show the log beside `log.csv`; None: TensorBoard where it is installed.

    Raises:
        UserError: whatever the data, the devices and the disk have to say.
    """
    shown_on = loggers_module.chosen(loggers)
    places = recipe.places(named, settings.data, settings.probe)
    probed = probe_tasks.check(settings.probe, places) if settings.probe else None
    fabric = devices.fabric(device, count, settings.optim.precision, skips_layers=settings.network.layerdrop > 0)
    shown = progress if fabric.is_global_zero else NoProgress()
    if fabric.is_global_zero:
        claim(settings, out)
    heard = data.gather(settings.data, places, settings.seed, shown)
    batches = Batches(heard, settings.data, settings.seed)
    model = network.create(settings.network, settings.seed)
    if settings.front is not None:
        _warm_up(settings.front, model, batches, out / "front", fabric, shown, shown_on)
    with fabric.rank_zero_first():
        labels = targets.make(settings.targets, heard, out / "targets", settings.seed, str(fabric.device), shown)
    with network.seeded(settings.seed):
        objective = MaskedPrediction(model, labels, settings.mask, settings.predict, steps=settings.optim.steps)
    trainer.fit(
        objective,
        batches,
        settings.optim,
        out,
        fabric=fabric,
        seed=settings.seed,
        progress=shown,
        name="masked prediction",
        hooks=hooks(settings.probe, probed, lambda folder: export(model, folder), out, device),
        loggers=shown_on,
    )
    return out / MODEL


def hooks(
    settings: ProbeSettings | None,
    data: Path | None,
    export: Callable[[Path], None],
    out: Path,
    device: devices.Device,
    family: str = "hubert",
) -> trainer.Hooks:
    """Export the encoder at each checkpoint, or whenever a probe finds it the best so far (`probes.Probes`)."""
    if settings is None:
        return trainer.Hooks(saved=lambda step: export(out / MODEL))
    watch = probe_tasks.Probes(settings, out, data, device, export, out / MODEL, family).watch
    saved = None if settings.chooses else lambda step: export(out / MODEL)
    return trainer.Hooks(watch, settings.every, saved)


def claim(settings: Section, out: Path) -> None:
    """Write the resolved recipe, or refuse a folder in which another was begun."""
    path, text = out / "recipe.yaml", yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    if not path.is_file():
        atomic_files.write_text(path, text)
    elif path.read_text(encoding="utf8") != text:
        raise UserError(f"{out}: holds a training by another recipe. Choose another --out, or remove that folder.")


def _warm_up(
    front: FrontSettings,
    model: HubertModel,
    batches: Batches,
    folder: Path,
    fabric: Any,
    progress: Progress,
    loggers: Sequence[str],
) -> None:
    """Let the convolutions learn the log-mel spectrogram first; keep that encoder too, for comparison."""
    with network.seeded(batches.seed):
        objective = Regression(model, front.mels)
    trainer.fit(
        objective,
        batches,
        front.optim,
        folder,
        fabric=fabric,
        seed=batches.seed,
        progress=progress,
        name="front end",
        loggers=loggers,
    )
    if fabric.is_global_zero and not (folder / MODEL / "model.safetensors").is_file():  # it is written last
        export(model, folder / MODEL)
