"""YAML from anywhere: plain values, and no more of them than a person writes."""

from __future__ import annotations

import math
from typing import Any

import yaml

MAX_VALUES = 10_000
"""A recipe holds a few dozen."""


def parse(text: str) -> Any:
    """Return what YAML means, without ever running code from it.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it means nothing, is nested too deeply, or grows when aliases are
            followed: nine lines can stand for a billion values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_VALUES:
            raise ValueError(f"its aliases stand for more than {MAX_VALUES} values. Write them out.")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a node stands for, its aliases followed; infinitely many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # as long as it isn't known: met again before that, it is within itself
        pairs = [] if isinstance(node, yaml.ScalarNode) else node.value
        inside = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in inside)
    return known[id(node)]
