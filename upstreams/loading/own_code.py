"""The one place where a user's own code runs: whatever it raises becomes one sentence with its file and line."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from superb_eval.errors import OwnCodeError, UserError
from superb_eval.runtime import out_of_memory
from upstreams.loading.identity import is_installed
from upstreams.loading.network_building import one_line
from upstreams.loading.tensor_kinds import odd_kind


@contextmanager
def running(name: str, what: str) -> Iterator[None]:
    """Run a user's code; the working folder is restored.

    Args:
        name: what the code is of, for errors.
        what: the words of an error about what failed.

    Raises:
        OwnCodeError: it raised an error, or asked to end the process.
    """
    try:
        with working_folder_restored():
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        if out_of_memory.is_out_of_memory(error):
            raise
        raise OwnCodeError(f"{name}: {what}: {format_error(error)}") from error


@contextmanager
def working_folder_restored() -> Iterator[None]:
    """Restore the working folder, which relative paths of later work depend on."""
    folder = _working_folder()
    try:
        yield
    finally:
        if folder is not None and _working_folder() != folder:
            os.chdir(folder)


class GuardedForward:
    """The forward pass of a user's own module, run by `running`; takes the place of its method."""

    def __init__(self, forward: Callable[..., Any], name: str) -> None:
        self.forward, self.name = forward, name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Return what the forward pass returns.

        Raises:
            UserError: see `running`; or its features aren't dense tensors of real numbers.
        """
        with running(self.name, "a forward pass failed"):
            output = self.forward(*arguments, **options)
        self._check_features(output)
        return output

    def _check_features(self, output: object) -> None:
        """Refuse tensors that no head takes."""
        lists = output.items() if isinstance(output, Mapping) else ()
        for key, value in lists:
            for tensor in value if isinstance(value, list | tuple) else ():
                kind = odd_kind(tensor) if isinstance(tensor, Tensor) else None
                if kind is not None:
                    raise UserError(f"{self.name}: its {key} are {kind}. Expected dense tensors of real numbers.")


def format_error(error: BaseException) -> str:
    """Return an error in one line, with the innermost file and line of the user's own that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)] or frames
    location = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {one_line(error)}{location}"


def _is_own(filename: str) -> bool:
    """Return whether a file is neither Python's, nor a package's, nor one that loads upstreams."""
    path = Path(filename)
    return not (filename.startswith("<") or is_installed(path) or path.parent == Path(__file__).parent)


def _working_folder() -> str | None:
    with suppress(OSError):  # it was removed
        return os.getcwd()
    return None
