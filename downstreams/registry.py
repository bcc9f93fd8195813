"""Finds a task by its short name: `ks` is the task of `downstreams/ks.py`."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABCMeta
from collections.abc import Sequence
from functools import cache

import downstreams
from downstreams.base import BaseTask
from superb_eval.errors import UserError, near_miss

S3PRL_NAMES = {
    "speech_commands": "ks",
    "voxceleb1": "sid",
    "sv_voxceleb1": "asv",
    "fluent_commands": "ic",
    "emotion": "er",
    "diarization": "sd",
    "quesst14_dtw": "qbe",
    "ctc": "pr or sf",
}
"""What s3prl calls tasks (`-d`), and what they are called here."""


class UnknownTaskError(UserError):
    """No task has that short name."""


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return which of the known tasks an unknown name may stand for, in a sentence; empty where none is near."""
    here = S3PRL_NAMES.get(name)
    return f" s3prl's {name} is {here} here." if here else near_miss(name, known)


def names() -> list[str]:
    """Return the short names of all tasks: the modules beside `base` and this one."""
    others = {module.rpartition(".")[2] for module in (BaseTask.__module__, __name__)}
    return sorted(m.name for m in pkgutil.iter_modules(downstreams.__path__) if not m.ispkg and m.name not in others)


@cache  # a table asks for each figure; errors are not kept, so that a task file that is added later is found
def get(name: str) -> type[BaseTask]:
    """Return the task of that short name.

    Raises:
        UnknownTaskError: there is none; near misses are offered.
    """
    if name not in names():
        raise UnknownTaskError(f"no task is called '{name}'.{suggestion(name, names())} Known: {', '.join(names())}.")
    module = importlib.import_module(f"downstreams.{name}")
    defined: list[type[BaseTask]] = [
        c
        for c in vars(module).values()
        # Neither inspect.isclass nor isinstance: on Python 3.10 they take `list[str]` and `Sequence[str]` for classes.
        if issubclass(type(c), ABCMeta) and issubclass(c, BaseTask) and c.__module__ == module.__name__
    ]
    if len(defined) != 1:
        raise TypeError(f"downstreams/{name}.py defines {len(defined)} tasks; a task file defines one")
    return defined[0]


def get_or_base(name: str) -> type[BaseTask]:
    """Return the task of that short name, or `BaseTask` with its defaults for a record of a task unknown here."""
    try:
        return get(name)
    except UnknownTaskError:
        return BaseTask


def task_order(name: str) -> tuple[float, str]:
    """Return the sort key that puts tasks in the order of the SUPERB paper, others after them by name."""
    position = get_or_base(name).paper_position
    return (float("inf") if position is None else position, name)
