"""The versions of the code behind a figure: where they differ from a record's, its figures may have changed since."""

from __future__ import annotations

import re

from downstreams import registry
from superb_eval.version import ENGINE_VERSION


def versions(task: str) -> str:
    """Return the versions of the engine and of a task, such as `engine 1, ks 1`.

    They are raised by hand when figures change (`ENGINE_VERSION`, `BaseTask.version`), so a renamed function changes
    none.

    Raises:
        UserError: no task has this name.
    """
    return f"engine {ENGINE_VERSION}, {task} {registry.get(task).version}"


def is_outdated(recorded: str, task: str) -> bool:
    """Return whether a record's `code` computes other figures than today's: a version has been raised since.

    Digests, and records without `code`, are from before there were versions, when all were 1. Nothing is known of a
    task that is not installed: then it is False.
    """
    return task in registry.names() and (stated(recorded) or f"engine 1, {task} 1") != versions(task)


def stated(recorded: str) -> str:
    """Return the versions in a record's `code`, or an empty string where it is from before there were versions."""
    return "" if is_digest(recorded) else recorded


def is_digest(recorded: str) -> bool:
    """Return whether a record's `code` is a SHA-256 of sources, as recorded before there were versions."""
    return re.fullmatch("[0-9a-f]{64}", recorded) is not None
