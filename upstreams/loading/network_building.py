"""The one place where a library builds or loads a network from somebody's configuration or file.

Whatever the library raises there becomes one sentence. What it builds is counted as it is built, so that a
configuration of a few bytes can fill neither the memory nor an hour: torch reports each parameter before a value is
drawn for it.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules import module as registrations

from superb_eval.errors import UserError
from superb_eval.runtime import out_of_memory
from upstreams.loading.inert_values import printable
from upstreams.loading.safe_pickle import unsafe_pickle_error

MAX_GB = "SUPERB_EVAL_MAX_GB"
"""Environment variable: the most that a network, or a file of weights, may take, in gigabytes (10^9 bytes)."""

DEFAULT_MAX_GB = 16.0
"""Twice the largest published speech encoder (XLS-R 2B, 8.6 GB in float32)."""

HUB_ADVICE = "Give a folder with @FOLDER, or @random."
SAFE_ADVICE = "Give a folder with .safetensors, or save the weights alone where you trust it."

MOST_PARTS = 50_000
"""Modules, parameters and buffers of a network; XLS-R 2B has 3 000."""


def most_bytes() -> int:
    """Return the bytes that a network, or a file of weights, may take.

    Raises:
        UserError: `MAX_GB` is set to no positive number.
    """
    text = os.environ.get(MAX_GB, str(DEFAULT_MAX_GB))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < 1e9:
        raise UserError(f"{MAX_GB} is '{printable(text)}'. Expected a number of gigabytes, such as 16.")
    return int(gigabytes * 1e9)


def check_size(count: float, source: object) -> None:
    """Refuse a network or a tensor of more bytes than `most_bytes`; `source` is the file, for errors.

    Raises:
        UserError: it is larger.
    """
    if count > most_bytes():
        raise UserError(
            f"{source}: its network takes {count / 1e9:,.1f} GB or more, and {most_bytes() / 1e9:g} GB are allowed. "
            f"If it is the right file, allow more: --max-gb, or {MAX_GB}."
        )


def one_line(error: BaseException) -> str:
    """Return an error's text in one line of bounded length, whatever it holds and however it prints itself."""
    try:
        text = str(error)
    except Exception:  # a user's own error may fail to print itself
        text = ""
    return printable(" ".join(text.split())) or type(error).__name__


@contextmanager
def building(source: object, what: str, advice: str = HUB_ADVICE, trust: str = SAFE_ADVICE) -> Iterator[None]:
    """Let a library build or load a network of bounded size; what it raises becomes one sentence.

    Args:
        source: the file, folder or hub id, for errors.
        what: what is built of it, for errors.
        advice: the next step.
        trust: the next step after a pickle that needs more than tensors.

    Raises:
        UserError: the library raised an error, the network is too large, or a pickle needs more than tensors.
    """
    try:
        with bounded_size(source):
            yield
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise unsafe_pickle_error(source, trust) from error
    except Exception as error:  # a library raises errors of any kind for values that it doesn't expect
        if out_of_memory.is_out_of_memory(error):
            raise
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        text = one_line(error).rstrip(".")
        raise UserError(f"{what} can't be loaded from '{source}': {kind}{text}. {advice}") from error


@contextmanager
def bounded_size(source: object) -> Iterator[None]:
    """Count the parameters, buffers and modules that are built, and refuse them beyond their bounds.

    Raises:
        UserError: they are more; `source` is the file, for errors.
    """
    taken = {"bytes": 0, "parts": 0}

    def add(module: nn.Module, name: str, part: Tensor | nn.Module | None) -> None:
        del module, name
        taken["parts"] += 1
        if taken["parts"] > MOST_PARTS:
            raise UserError(f"{source}: its network has more than {MOST_PARTS:,} parts. Is it configured right?")
        if isinstance(part, Tensor):
            taken["bytes"] += part.numel() * part.element_size()
            check_size(taken["bytes"], source)

    handles = (
        registrations.register_module_parameter_registration_hook(add),
        registrations.register_module_buffer_registration_hook(add),
        registrations.register_module_module_registration_hook(add),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
