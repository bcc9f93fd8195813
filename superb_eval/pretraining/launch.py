"""Starts a training: processes and devices (Lightning Fabric), the training's folder, its audio."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from superb_eval.errors import UserError
from superb_eval.pretraining import probe_tasks, trainer
from superb_eval.pretraining.batches import Batches
from superb_eval.pretraining.data import Audio, load_audio
from superb_eval.pretraining.export import MODEL
from superb_eval.pretraining.objective import Objective
from superb_eval.pretraining.recipe import DistillationRecipe, PretrainRecipe
from superb_eval.pretraining.sources import parse_paths
from superb_eval.runtime import atomic_files, locks, outside_files, own_folder
from superb_eval.runtime import loggers as runtime_loggers
from superb_eval.runtime.devices import set_up_cuda
from superb_eval.runtime.progress import NoProgress, Progress

RECIPE = "recipe.yaml"
"""In a training's folder: the recipe as resolved."""

LOCK = ".lock"
"""In a training's folder: held by the process that trains there."""

KIND = "training"
"""Of a training's folder, in its marker."""

MOST_PER_CORE = 4
"""Processes of a training for each core; more would only wait for one another."""

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class TrainingSetup:
    """A training that is ready to run: its processes are launched, its folder is claimed, its audio is found."""

    recipe: PretrainRecipe | DistillationRecipe
    out: Path
    device: Device
    fabric: Any
    progress: Progress
    """Of the first process; the others show none."""
    audio: Audio
    batches: Batches
    loggers: tuple[str, ...]
    probe_corpus: Path | None
    """Of the probes; None: the embedded corpus."""

    def fit(self, objective: Objective, name: str, export: Callable[[Path], None], family: str = "hubert") -> Path:
        """Run the updates; return the folder of the encoder.

        Args:
            objective: the network with its loss.
            name: label of the progress bar.
            export: writes the current encoder to a folder.
            family: the upstream that loads an exported folder: `hubert@FOLDER`.

        Raises:
            UserError: see `trainer.fit`.
        """
        model = self.out / MODEL
        hooks = trainer.Hooks(on_checkpoint=lambda step: export(model))
        if probe := self.recipe.probe:
            probes = probe_tasks.Probes(probe, self.out, self.probe_corpus, self.device, export, model, family)
            hooks = trainer.Hooks(probes.evaluate, probe.every, None if probe.chooses else hooks.on_checkpoint)
        trainer.fit(
            objective,
            self.batches,
            self.recipe.optim,
            self.out,
            fabric=self.fabric,
            seed=self.recipe.seed,
            progress=self.progress,
            name=name,
            hooks=hooks,
            loggers=self.loggers,
        )
        return model


@contextmanager
def prepare(
    recipe: PretrainRecipe | DistillationRecipe,
    data: Sequence[str],
    out: Path,
    device: Device,
    devices: int,
    progress: Progress,
    loggers: Sequence[str] | None,
    *,
    skips_layers: bool = False,
    padding_counts: bool = False,
) -> Iterator[TrainingSetup]:
    """Check the options, launch the processes, find the audio and claim the folder, alone while the context lasts.

    Args:
        recipe: as resolved.
        data: `NAME=PATH` for sources.
        out: the training's own folder.
        device: cpu or cuda.
        devices: number of processes that share each batch.
        progress: shows the progress of the first process.
        loggers: names of further loggers besides `log.csv`; None: TensorBoard where it is installed.
        skips_layers: whether an update may leave some weights without gradients (layer drop).
        padding_counts: whether the padding of a batch may change the loss; then it has no more than it needs.

    Raises:
        UserError: an option, the audio or the device can't be used, or `out` belongs to another recipe, holds
            something else, or another process trains there.
    """
    names = runtime_loggers.choose(loggers)
    paths = parse_paths(data, recipe.data, recipe.probe)
    probe_corpus = probe_tasks.check_settings(recipe.probe, paths) if recipe.probe else None
    fabric = launch_fabric(device, devices, recipe.optim.precision, skips_layers=skips_layers)
    progress = progress if fabric.is_global_zero else NoProgress()
    if recipe.probe is not None:
        with fabric.rank_zero_first():
            probe_tasks.ensure_corpus(recipe.probe, probe_corpus, progress)
        probe_tasks.check_corpus(recipe.probe, probe_corpus)  # by every process, so that none waits for one that failed
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    own_folder.check(out, KIND, earlier=_holds_recipe(out, text))
    audio = load_audio(recipe.data, paths, recipe.seed, progress)
    batches = Batches(audio, recipe.data, recipe.seed, grid=device != "cpu" and not padding_counts)
    with ExitStack() as stack:
        refusal = _claim(out, text, stack) if fabric.is_global_zero else ""
        if refusal := fabric.broadcast(refusal):  # by every process, as above
            raise UserError(refusal)
        yield TrainingSetup(recipe, out, device, fabric, progress, audio, batches, names, probe_corpus)


def _claim(out: Path, recipe: str, stack: ExitStack) -> str:
    """Claim a training's folder, alone while the stack is open; return why it can't be, or an empty text.

    It comes last, so that a training that can't start leaves no folder behind.
    """
    held = f"{out}: another process runs this training. Wait for it, or choose another --out."
    try:
        own_folder.claim(out, KIND, earlier=_holds_recipe(out, recipe))
        stack.enter_context(locks.hold_alone(out / LOCK, held))
        atomic_files.create_text(out / RECIPE, recipe)
        _holds_recipe(out, recipe)  # another may have started meanwhile
    except UserError as error:
        return str(error)
    return ""


def launch_fabric(device: Device, devices: int, precision: str, *, skips_layers: bool = False) -> Any:
    """Return a launched Fabric. Under torchrun and SLURM the number of processes is theirs.

    Raises:
        UserError: there are fewer GPUs, or far fewer cores.
    """
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    devices, nodes = _process_layout(devices)
    if device == "cuda" and torch.cuda.device_count() < devices:
        raise UserError(f"{devices} GPU(s) requested, {torch.cuda.device_count()} found. Lower --devices, or use cpu.")
    most = MOST_PER_CORE * (os.cpu_count() or 1)
    if device == "cpu" and devices > most:
        raise UserError(f"--devices {devices}: this machine has cores for at most {most} processes. Lower it.")
    if device == "cuda":
        set_up_cuda()
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(find_unused_parameters=skips_layers) if devices * nodes > 1 else "auto",
        precision="32-true" if precision == "float32" else None,
        plugins=None if precision == "float32" else _bf16_precision(device),
    )
    fabric.launch()
    return fabric


def _bf16_precision(device: Device) -> Any:
    """Return Fabric's bf16 arithmetic without its rounding of inputs: a teacher in float32 needs exact waveforms.

    Autocast itself rounds what it multiplies.
    """
    from lightning_fabric.plugins.precision import MixedPrecision

    class ExactInputs(MixedPrecision):  # type: ignore[misc]
        def convert_input(self, data: Any) -> Any:
            return data

    return ExactInputs("bf16-mixed", device)


def _process_layout(devices: int) -> tuple[int, int]:
    """Return processes per node and nodes: torchrun's or SLURM's where one of them has started this process."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        return int(env["LOCAL_WORLD_SIZE"]), int(env.get("GROUP_WORLD_SIZE", "1"))
    # An interactive shell inside an allocation (job name "bash") is no task of it: Fabric has the same rule.
    if int(env.get("SLURM_NTASKS", "1")) > 1 and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(env.get("SLURM_NNODES", "1"))
        return int(env["SLURM_NTASKS"]) // nodes, nodes
    return devices, 1


def _holds_recipe(out: Path, recipe: str) -> bool:
    """Return whether a folder holds this recipe as resolved, which only a training writes.

    Raises:
        UserError: it holds another one.
    """
    path = out / RECIPE
    if path.is_file() and outside_files.read_text(path) != recipe:
        raise UserError(f"{out}: holds a training by another recipe. Choose another --out, or remove that folder.")
    return path.is_file()
