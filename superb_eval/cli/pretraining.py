"""The command that pre-trains encoders, `pretrain`, and the options that it shares with `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import Resume
from superb_eval.cli.sections import TRAIN
from superb_eval.runtime.screen import show

Named = Annotated[
    list[str] | None, typer.Option("--data", metavar="NAME=PATH", help="where a source of the recipe lies; repeatable")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="KEY=VALUE", help="change the recipe, such as -o optim.lr=1e-3; repeatable"
    ),
]
Out = Annotated[
    Path, typer.Option(metavar="FOLDER", help="folder of this training; the same command resumes what is there")
]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="where it runs")]
Devices = Annotated[
    int, typer.Option(min=1, metavar="N", help="processes that share each batch; torchrun and SLURM set it themselves")
]

Loggers = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="where OUT/log.csv is logged too: tensorboard, wandb, mlflow; none; default: tensorboard if installed",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(cls=LenientCommand, rich_help_panel=TRAIN)(pretrain)


def pretrain(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a file, or a name in recipes/pretrain")],
    out: Out,
    data: Named = None,
    override: Overrides = None,
    device: Device = "cpu",
    devices: Devices = 1,
    loggers: Loggers = None,
    resume: Resume = False,
) -> None:
    """Pre-train a HuBERT on unlabelled audio; the encoder is then `hubert@OUT/model`.

    Writes a checkpoint every few minutes, and when it is stopped (Ctrl-C, SIGTERM); the same command resumes
    from there, bit for bit as an uninterrupted run on one device. OUT/log.csv holds the curve, OUT/front/model the
    encoder after the warm start, where the recipe has one. Audio that can't be used is counted and named.

    \b
    superb-eval pretrain hubert_mini --out mini --data real=DIR --data synthetic=DIR --device cuda
    superb-eval pretrain hubert_base_ls960 --out base --data librispeech=DIR --device cuda --devices 8
    torchrun --nproc-per-node 8 -m superb_eval pretrain hubert_base_ls960 --out base --data librispeech=DIR
    superb-eval pretrain hubert_mini --out mini --data real=DIR --data synthetic=DIR -o probe.every=500
    superb-eval run ks -u hubert@mini/model
    """
    del resume  # which it does anyway
    from superb_eval.pretraining.pretrain import pretrain as train
    from superb_eval.pretraining.recipe import PretrainRecipe, load
    from superb_eval.runtime.progress import TerminalProgress

    settings = load(recipe, "pretrain", PretrainRecipe, override or ())
    folder = train(settings, data or (), out, device, devices, TerminalProgress(), listed(loggers))
    show(f"encoder: hubert@{folder}")


def listed(loggers: str | None) -> list[str] | None:
    """Return the names in a --loggers option; None where it isn't given."""
    return None if loggers is None else [name for name in loggers.replace(",", " ").split() if name != "none"]
