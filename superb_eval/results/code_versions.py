"""The versions of the code behind a figure, so that a record can tell when its figures may have changed since."""

from __future__ import annotations

import re

from downstreams import registry
from superb_eval.version import ENGINE_VERSION


def versions(task: str) -> str:
    """Return the versions of the engine and of a task, such as `engine 1, ks 1`.

    They are raised by hand when figures change (`ENGINE_VERSION`, `Scored.version`), so a renamed function changes
    none.

    Raises:
        UserError: no task has this name.
    """
    return f"engine {ENGINE_VERSION}, {task} {registry.get(task).version}"


def is_digest(recorded: str) -> bool:
    """Return whether a record's `code` is a SHA-256 of sources, which was recorded before versions were."""
    return re.fullmatch("[0-9a-f]{64}", recorded) is not None
