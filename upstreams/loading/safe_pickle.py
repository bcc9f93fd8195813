"""Prevents downloaded files from running code: pickles, and strings that s3prl evaluates."""

from __future__ import annotations

import argparse
import ast
import builtins
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from superb_eval.errors import UserError

TRUST = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""torch's own switch: set to 1 by a user who trusts a pickle, it allows other libraries to load it in full."""

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"

MOST_LETTERS, MOST_VALUES = 100_000, 1_000_000
"""Of an expression that s3prl evaluates, and of what it makes: a list may be repeated."""

_HARMLESS = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Load),
    *(ast.List, ast.Tuple, ast.Dict, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.UnaryOp, ast.USub),
)


def unsafe_pickle_error(source: object, advice: str) -> UserError:
    """Return the error for a pickle that torch's weights-only reader refuses; `advice` is the next step."""
    return UserError(f"{source}: refused: this pickle needs more than tensors, and loading it could run code. {advice}")


@contextmanager
def tensors_only() -> Iterator[None]:
    """Make every `torch.load` inside refuse pickles that could run code, whatever its arguments.

    s3prl's DistilHuBERT, TERA and RoBERTa pass `weights_only=False`. A plain `argparse.Namespace` is allowed:
    s3prl's own checkpoints hold one. Nothing changes where the user has set `TRUST`.
    """
    import torch

    if os.environ.get(TRUST, "0").lower() in {"1", "y", "yes", "true"}:
        yield
        return
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


@contextmanager
def temporarily_replaced(namespace: dict[str, Any], name: str, value: object) -> Iterator[None]:
    """Replace the value of a name in a module's namespace, and restore it at the end."""
    existed, before = name in namespace, namespace.get(name)
    namespace[name] = value
    try:
        yield
    finally:
        if existed:
            namespace[name] = before
        else:
            del namespace[name]


@contextmanager
def no_calls_in_eval(package: str) -> Iterator[None]:
    """Let modules whose name starts with `package` evaluate names, items and sums of literals only, never a call.

    s3prl evaluates strings out of checkpoints, such as `[(512, 10, 5)] + [(512, 3, 2)] * 4` (`hubert_model.py`), so
    that a file of nothing but tensors and text could run code. Such a string raises a `UserError`.
    """
    before = eval

    def checked_eval(source: Any, *scope: Any) -> Any:
        caller = sys._getframe(1)
        if str(caller.f_globals.get("__name__")).startswith(package):
            _check_harmless(str(source))
        return before(source, *(scope or (caller.f_globals, caller.f_locals)))

    with temporarily_replaced(vars(builtins), "eval", checked_eval):
        yield


def _check_harmless(text: str) -> None:
    tree = ast.parse(text[:MOST_LETTERS], mode="eval")
    refused = [node for node in ast.walk(tree) if not isinstance(node, _HARMLESS)]
    if _size(tree.body) > MOST_VALUES:
        raise UserError(f"refused: the checkpoint's settings make more than {MOST_VALUES:,} values ('{text[:60]}').")
    if refused:
        kind = type(refused[0]).__name__
        raise UserError(
            f"refused: the checkpoint's settings hold code ({kind} in '{text[:60]}'). Expected plain values."
        )


def _size(node: ast.AST) -> int:
    """Return a bound of the values that an expression makes: the product of both sides of each multiplication."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        factors = [
            abs(n.value) if isinstance(n, ast.Constant) and isinstance(n.value, int) else 1 for n in _sides(node)
        ]
        return math.prod(map(_size, _sides(node))) * max(1, *factors)
    return max(1, sum(map(_size, ast.iter_child_nodes(node))))


def _sides(node: ast.BinOp) -> tuple[ast.expr, ast.expr]:
    return node.left, node.right
