"""Options that several commands share: one name, one letter and one meaning each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from superb_eval.errors import UserError

MOST_SEED = 2**32 - 1
"""As `superb_eval.data.bounds.MOST_SEED`, whose import takes longer than `--help` may."""

MOST_SEEDS = 1000


def finite(number: float | None) -> float | None:
    """Return an option's number; refuse none and infinite ones, which are in every range or in none."""
    if number is not None and not abs(number) < float("inf"):
        raise typer.BadParameter(f"{number} is no finite number.")
    return number


def _device(text: str) -> str:
    from superb_eval.runtime import devices

    return devices.parse(text)


def _store_gb(gigabytes: float | None) -> float | None:
    from superb_eval.features.budget import budget_bytes

    budget_bytes(gigabytes)
    return gigabytes


def _max_gb(value: float | None) -> float | None:
    """Let this process and those that it starts open networks of so many gigabytes."""
    if value is not None:
        if not 0 < value < 1e9:
            raise UserError(f"--max-gb {value:g}: expected a number of gigabytes, such as 16.")
        os.environ["SUPERB_EVAL_MAX_GB"] = f"{value:g}"
    return value


def _seeds(text: str | tuple[int, ...]) -> tuple[int, ...]:
    """Return seeds of a text such as `3`, which are 0, 1 and 2, or `0,2,5`; or a default as it is."""
    if isinstance(text, tuple):
        return text
    words = [word for word in text.replace(",", " ").split() if word]
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words) or text.strip() == "0":
        raise UserError(
            f"--seeds {text[:200]}: expected a number of seeds, such as 3 for 0, 1 and 2, or a list such as 0,2,5."
        )
    numbers = tuple(int(word) for word in words)
    listed = "," in text or len(numbers) > 1
    if (count := len(numbers) if listed else numbers[0]) > MOST_SEEDS:
        raise UserError(f"--seeds {text[:200]}: are {count} seeds, at most {MOST_SEEDS} are run by one command.")
    return numbers if listed else tuple(range(numbers[0]))


Upstream = Annotated[
    str,
    typer.Option(
        "-u",
        "--upstream",
        metavar="NAME",
        help="a name, FILE, FOLDER, ORG/MODEL, NAME@random, s3prl:NAME, FILE.py:Class",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="official corpora, manifests, or data of Kaldi, Hugging Face or Lhotse; default: the embedded corpus",
    ),
]
RecordedData = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="where the corpora are now; default: where each run found them"),
]
Profile = Annotated[
    Literal["superb", "mini", "nano"] | None,
    typer.Option(help="which recipe of a task; default: superb where the data are official, else mini"),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="results folder")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="KEY=VALUE", help="change the recipe, such as -o train.lr=1e-3; repeatable"
    ),
]
Seeds = Annotated[
    Any,
    typer.Option(
        metavar="N|A,B,...",
        parser=_seeds,
        show_default=False,
        help="seeds: N for 0, 1, ... N-1, or a list; default: 0 alone",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="a try with N utterances of each split, or what the task needs; tables and reports leave it out",
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="cpu|cuda|cuda:N|mps", callback=_device, help="where upstreams and heads run; N: which GPU"),
]
Resume = Annotated[bool, typer.Option("--resume", help="resume what was interrupted: the default")]
Store = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="feature store; default: $SUPERB_EVAL_STORE or the user's cache")
]
StoreGb = Annotated[
    float | None,
    typer.Option(metavar="GB", callback=_store_gb, help="size budget of the feature store, above 0; default: 50"),
]
MaxGb = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        callback=_max_gb,
        help="refuse networks and files of weights beyond this size; default: $SUPERB_EVAL_MAX_GB or 16",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="runs at a time, as far as memory allows: each on its share of the cores, on a GPU side by side; "
        "default: one per core, 1 on a GPU",
    ),
]
Historical = Annotated[
    bool, typer.Option("--historical/--strict", help="figures as published, or with everything chosen on dev")
]
Published = Annotated[
    str, typer.Option(metavar="NAME,...", help="rows that others published, such as hubert_base,distilhubert; or all")
]
TasksOrAll = Annotated[str, typer.Option("--tasks", metavar="TASK,...", help="such as ks,sid; or all")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="results folder")]
FinishedRun = Annotated[
    Path, typer.Argument(metavar="RUN", help="folder of a finished run, or one above it that holds no other")
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="FILE",
        help="code that a recorded upstream may run, such as my_encoder.py; repeatable; default: none is run",
    ),
]
Loggers = Annotated[
    str, typer.Option(metavar="NAME,...", help="log curves and figures to tensorboard, wandb or mlflow; default: none")
]


def named_loggers(text: str) -> tuple[str, ...]:
    """Return the names in a --loggers option.

    Raises:
        UserError: one is unknown, or not installed.
    """
    from superb_eval.runtime import loggers

    return loggers.choose([name for name in text.replace(",", " ").split() if name != "none"])
