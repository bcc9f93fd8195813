"""Finds a task by its short name: `ks` is the task of `downstreams/ks.py`."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABCMeta

import downstreams
from downstreams.base import Scored
from superb_eval.errors import UserError, near_miss

OTHERS = {"base", __name__.rpartition(".")[2]}
"""All else that lies at the ground level of this folder."""


def names() -> list[str]:
    """Return the short names of all tasks."""
    return sorted(m.name for m in pkgutil.iter_modules(downstreams.__path__) if not m.ispkg and m.name not in OTHERS)


def get(name: str) -> type[Scored]:
    """Return the task of that short name.

    Raises:
        UserError: there is none; near misses are offered.
    """
    if name not in names():
        raise UserError(f"no task is called '{name}'.{near_miss(name, names())} Known: {', '.join(names())}.")
    module = importlib.import_module(f"downstreams.{name}")
    found = [
        c
        for c in vars(module).values()
        # Not inspect.isclass: on Python 3.10 it takes `list[str]` for a class.
        if isinstance(c, ABCMeta) and issubclass(c, Scored) and c.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"downstreams/{name}.py defines {len(found)} tasks; a task file defines one")
    return found[0]
