"""A digest of the code behind a figure, so that a record can tell when that code has changed since."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ENGINE = (
    "audio",
    "features.ahead",
    "features.bank",
    "features.extract",
    "features.featurizer",
    "features.gather",
    "probing.fold",
    "probing.lockstep",
    "probing.members",
    "probing.probe",
    "probing.searching",
    "probing.team",
    "probing.training",
    "silence",
)
"""Modules of `superb_eval` that every figure passes through. What reads recipes and corpora is not among them: recipe
and data have digests of their own, as the upstream's code has in its fingerprint."""


@cache
def digest(task: str) -> str:
    """Return a SHA-256 of a task's code, with the parts that it imports, and of the engine's.

    Comments, docstrings and layout don't count.
    """
    wanted, reached = {f"downstreams.{task}"}, {f"superb_eval.{name}" for name in ENGINE}
    while wanted:
        module = wanted.pop()
        reached.add(module)
        wanted |= _parts(module) - reached
    content = hashlib.sha256()
    for module in sorted(reached):
        content.update(f"{module}\n{_bare(module)}\n".encode())
    return content.hexdigest()


@cache
def _tree(module: str) -> ast.Module:
    path = _file(module)
    return ast.parse(path.read_bytes() if path else b"")


@cache
def _file(module: str) -> Path | None:
    """The file of a module of ours, found without importing it; None for a package, or where there is none."""
    package, *parts = module.split(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts).with_suffix(".py")
    return path if parts and path.is_file() else None


def _parts(module: str) -> set[str]:
    """The files of `downstreams` that a module imports anywhere."""
    named: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in named if name.startswith("downstreams.") and _file(name)}


@cache
def _bare(module: str) -> str:
    """A module's code without comments, docstrings and layout."""
    tree = ast.parse(ast.unparse(_tree(module)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
