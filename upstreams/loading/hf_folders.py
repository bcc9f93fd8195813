"""Loads networks from folders in transformers' layout, or from the hub; code that comes with weights is never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from superb_eval.errors import UserError
from upstreams.loading.safe_pickle import unsafe_pickle_error


@contextmanager
def _hidden_progress_bar() -> Iterator[None]:
    """Hide transformers' progress bar while weights load: it would interrupt the run's own."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def from_pretrained(source: str, what: str, kind: Any = None, **options: Any) -> Any:
    """Load a folder in transformers' layout, or a hub id, in float32; code in the folder is never run.

    Args:
        source: the folder or id.
        what: the network's published name, for errors.
        kind: transformers' class of the network; None: the one that its config names.
        options: passed to its `from_pretrained`.

    Raises:
        UserError: there are no weights, they don't fit, or they are a pickle that needs more than tensors.
    """
    from transformers import AutoModel

    loader: Callable[..., Any] = (kind or AutoModel).from_pretrained
    with explain_load_errors(source, f"{what}'s weights"), _hidden_progress_bar():
        model, info = loader(source, output_loading_info=True, dtype=torch.float32, **options)
    missing = [name for name in info["missing_keys"] if name != "masked_spec_embed"]
    if missing or info["mismatched_keys"]:
        raise UserError(f"{source}: no {what}: {len(missing)} weights are missing, such as {sorted(missing)[:2]}.")
    return model


@contextmanager
def explain_load_errors(source: str, what: str) -> Iterator[None]:
    """Turn transformers' errors on a folder or hub id into one sentence.

    Raises:
        UserError: `what` can't be loaded from there, or is a pickle that needs more than tensors.
    """
    import pickle

    try:
        yield
    except pickle.UnpicklingError as error:
        raise unsafe_pickle_error(source, "Give a folder with .safetensors.") from error
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"{what} can't be loaded from '{source}': {first} Give a folder with @FOLDER, or @random."
        ) from error
