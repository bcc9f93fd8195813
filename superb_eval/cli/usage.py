"""What is wrong with a command line, in a sentence; and what users of s3prl and lm-evaluation-harness type instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from superb_eval.errors import near_miss

UsageError: Any = typer.BadParameter.__base__
"""Click's, or that of typer's own copy of it: a command line that can't be parsed."""

OPTIONS = {
    ("-d", "-t", "--downstream", "--task", "--tasks"): (
        "The task comes first: superb-eval run ks -u NAME; several: superb-eval suite -u NAME --tasks ks,sid."
    ),
    ("-u", "--upstream", "--upstreams", "--model"): (
        "Here the upstream is named without an option, as in superb-eval quick NAME."
    ),
    ("-m", "--mode"): "`run` trains and tests; `predict` applies a trained head to files.",
    ("-n", "-p", "--name", "--expname", "--expdir"): (
        "A run's folder follows from what is run, OUT/UPSTREAM/TASK/RUN; choose OUT with --out."
    ),
    ("-a", "-e", "--auto_resume", "--past_exp"): "The same command resumes a run, and keeps a finished one.",
    ("-k", "--upstream_ckpt", "--ckpt", "--checkpoint", "--model_args", "--pretrained"): (
        "Weights are part of the address: -u NAME@CHECKPOINT."
    ),
    ("-l", "--upstream_layer_selection", "--layer"): "One layer alone: -o features.layer=N.",
    ("-s", "--upstream_feature_selection"): "Another feature of the upstream: -o features.key=NAME.",
    ("-c", "--config", "--recipe"): "A recipe file takes the task's place: superb-eval recipe copy ks makes one.",
    ("-f", "--upstream_trainable", "--finetune"): "Upstreams stay frozen.",
    ("--num_fewshot", "--fewshot"): "Heads are trained on the whole training split: there are no shots.",
    ("--batch_size", "-b"): "Of training: -o train.batch_size=N; of extraction: -o features.batch_seconds=S.",
    ("--lr", "--learning_rate"): "-o train.lr=1e-3 changes it, or tries several: -o 'train.lr={sweep: [1e-2, 1e-3]}'.",
    ("--steps", "--max_steps", "--epochs"): "-o train.steps=N changes how long heads are trained.",
    ("--log_samples", "--write_out"): "Each run's folder has its answers: predictions.csv.",
    ("--fresh", "--force", "--overwrite", "--no_resume"): "`run --fresh` runs again what is finished.",
    ("--gpu", "--gpus", "--cuda"): "--device cuda.",
    ("--num_workers", "--workers", "-j"): "`suite --jobs N` executes so many runs at a time.",
}
"""Options of other tools, and what to do here."""

COMMANDS = {
    ("evaluate", "eval", "benchmark", "test", "train"): "superb-eval run ks -u NAME",
    ("list", "ls"): "superb-eval upstream list, task list or recipe list",
    ("tasks", "downstreams"): "superb-eval task list",
    ("models", "upstreams"): "superb-eval upstream list",
    ("recipes", "configs"): "superb-eval recipe list",
    ("compare", "results", "leaderboard"): "superb-eval table results",
    ("infer", "inference", "transcribe"): "superb-eval predict RUN FILE...",
    ("help",): "superb-eval --help, or superb-eval run --help",
}
"""Commands that people guess, and those of the same purpose."""

COMMAND_FIRST = (
    "A command comes first, such as superb-eval run ks -u NAME, or superb-eval suite -u NAME --tasks ks,sid."
)
"""After an option that stands where a command is expected."""


def explain(error: Any) -> str:
    """Return in a sentence or two what is wrong with a command line, and what to type.

    Args:
        error: a `UsageError`, raised while words were parsed.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    path = error.ctx.command_path if error.ctx else "superb-eval"
    what, advice = _lowered(" ".join(error.format_message().split())), ""
    what = what.replace(": Value error, ", ": ")  # by which typer names the kind of exception
    if hasattr(error, "possibilities"):
        what = f"there is no option {error.option_name}"
        known = error.possibilities or ()
        advice = COMMAND_FIRST if error.ctx.parent is None else _about_option(error.option_name, known)
    elif "unexpected extra argument" in what and error.ctx.command.name == "run":
        advice = "`run` takes one task, and its upstream with -u; several: superb-eval suite -u NAME --tasks ks,sid."
    elif "missing option '-u'" in what:
        advice = "`superb-eval upstream list` lists upstreams and the other addresses."
    elif "no such command" in what:
        advice = _about_command(what.split("'")[1])
    what = what if what.endswith((".", "?")) else f"{what}."
    return " ".join(filter(None, (f"{path}: {what}", advice, f"See `{path} --help`.")))


def _about_option(option: str, possible: Sequence[str]) -> str:
    name = option.partition("=")[0].replace("-", "_").replace("__", "--", 1) if option.startswith("--") else option
    advice = next((text for options, text in OPTIONS.items() if name in options), "")
    return advice or near_miss(option, possible).strip()


def _about_command(name: str) -> str:
    from superb_eval import recipe

    if name in recipe.tasks():
        return f"Type superb-eval run {name} -u NAME."
    found = next((text for commands, text in COMMANDS.items() if name in commands), "")
    return f"Type {found}." if found else ""


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
