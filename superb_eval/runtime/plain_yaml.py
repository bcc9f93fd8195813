"""YAML from untrusted files: plain values only, and a bounded number of them."""

from __future__ import annotations

import math
from typing import Any

import yaml

MAX_VALUES = 10_000
"""A recipe holds a few dozen."""


def parse(text: str) -> Any:
    """Return the values of a YAML document; no code of it is ever run.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: the text is no YAML, is nested too deeply, or holds too many values
            when aliases are followed: nine lines can stand for a billion values.
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


def _size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Return the number of values of a node with its aliases followed; infinite where it contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is counted: met again before that, it is within itself
        pairs = [] if isinstance(node, yaml.ScalarNode) else node.value
        children = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(_size(child, sizes) for child in children)
    return sizes[id(node)]
