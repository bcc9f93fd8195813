"""Pre-training from recipe to encoder: audio, warm start, targets, masked prediction, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from superb_eval.pretraining import launch, network, targets
from superb_eval.pretraining.export import export
from superb_eval.pretraining.frontend_warmup import warm_up
from superb_eval.pretraining.initialisation import initialise
from superb_eval.pretraining.launch import Device
from superb_eval.pretraining.masked import MaskedPrediction
from superb_eval.pretraining.recipe import PretrainRecipe
from superb_eval.runtime.progress import Progress


def pretrain(
    recipe: PretrainRecipe,
    data: Sequence[str],
    out: Path,
    device: Device,
    devices: int,
    progress: Progress,
    loggers: Sequence[str] | None = None,
) -> Path:
    """Train by a recipe, resuming from what is in `out`; return the folder of the encoder.

    Args:
        recipe: as resolved.
        data: `NAME=PATH` for sources.
        out: gets targets, checkpoints, logs and the encoder; the training's own folder.
        device: cpu or cuda.
        devices: number of processes that share each batch.
        progress: shows the progress of the first process.
        loggers: names of further loggers besides `log.csv`; None: TensorBoard where it is installed.

    Raises:
        UserError: an option, the audio or the device can't be used, the loss is not finite, or the disk is full.
    """
    model = network.create(recipe.network, recipe.seed)  # before hours of audio are read: it finds the recipe's faults
    if recipe.network.initialise is not None:
        initialise(model, recipe.network.initialise)
    skips_layers = recipe.network.layerdrop > 0
    with launch.prepare(recipe, data, out, device, devices, progress, loggers, skips_layers=skips_layers) as training:
        fabric, progress, seed = training.fabric, training.progress, recipe.seed
        if recipe.front is not None:
            warm_up(recipe.front, model, training.batches, out / "front", fabric, progress, training.loggers)
        with fabric.rank_zero_first():
            labels = targets.create(recipe.targets, training.audio, out / "targets", seed, str(fabric.device), progress)
        with network.seeded(seed):
            objective = MaskedPrediction(model, labels, recipe.mask, recipe.predict, steps=recipe.optim.steps)
        return training.fit(objective, "masked prediction", lambda folder: export(model, folder))
