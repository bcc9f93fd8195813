"""Where a training runs: CPU, one GPU, or several processes by `--devices`, torchrun or SLURM (Lightning Fabric)."""

from __future__ import annotations

import logging
import os
from typing import Any, Literal

from superb_eval.errors import UserError

Device = Literal["cpu", "cuda"]


def fabric(device: Device, devices: int, precision: str, *, skips_layers: bool = False) -> Any:
    """Return a launched Fabric. Under torchrun and SLURM it takes the number of processes from there.

    Raises:
        UserError: there is no such GPU, or not so many.
    """
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    devices, nodes = _layout(devices)
    if device == "cuda" and torch.cuda.device_count() < devices:
        raise UserError(f"{devices} GPU(s) asked for, {torch.cuda.device_count()} found. Lower --devices, or use cpu.")
    several = devices * nodes > 1
    found = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(find_unused_parameters=skips_layers) if several else "auto",
        precision="32-true" if precision == "float32" else None,
        plugins=None if precision == "float32" else _mixed(device),
    )
    found.launch()
    return found


def _mixed(device: Device) -> Any:
    """Return Fabric's bf16 arithmetic less its rounding of what goes in: a teacher in float32 needs exact waveforms.

    Autocast rounds whatever it multiplies by itself.
    """
    from lightning_fabric.plugins.precision import MixedPrecision

    class Mixed(MixedPrecision):  # type: ignore[misc]
        def convert_input(self, data: Any) -> Any:
            return data

    return Mixed("bf16-mixed", device)


def _layout(devices: int) -> tuple[int, int]:
    """Return processes per node and nodes: torchrun's or SLURM's where one of them has started this process."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        return int(env["LOCAL_WORLD_SIZE"]), int(env.get("GROUP_WORLD_SIZE", "1"))
    # An interactive shell inside an allocation (job name "bash") is no task of it: Fabric has the same rule.
    if int(env.get("SLURM_NTASKS", "1")) > 1 and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(env.get("SLURM_NNODES", "1"))
        return int(env["SLURM_NTASKS"]) // nodes, nodes
    return devices, 1
