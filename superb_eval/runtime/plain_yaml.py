"""YAML from untrusted files: plain values only, a bounded number of them, integers of 64 bits and whole letters."""

from __future__ import annotations

import math
from typing import Any

import yaml

MAX_VALUES = 10_000
"""A recipe holds a few dozen."""

MAX_INTEGER = 2**63 - 1


class _Loader(yaml.SafeLoader):
    """PyYAML's, without what no file system, no library and no JSON file takes."""

    def construct_scalar(self, node: Any) -> Any:
        """Return the text of a scalar.

        Raises:
            ValueError: it holds a NUL, or half of a character (a surrogate, written as an escape).
        """
        text = super().construct_scalar(node)
        if isinstance(text, str) and any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"{text[:100]!r} holds a NUL or half of a character. Leave it out.")
        return text

    def construct_yaml_int(self, node: Any) -> int:
        """Return an integer.

        Raises:
            ValueError: it has more than 64 bits.
        """
        number: int = super().construct_yaml_int(node)
        if abs(number) > MAX_INTEGER:
            raise ValueError(f"{node.value[:40]} is an integer of more than 64 bits. Give a smaller one.")
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse(text: str) -> Any:
    """Return the values of a YAML document; no code of it is ever run.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: the text is no YAML, is nested too deeply, or holds too many values
            when aliases are followed (nine lines can stand for a billion values), or values that no setting has.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES} values, its aliases followed. Is it the right one?")
        return loader.construct_document(node)
    except (AttributeError, IndexError, KeyError) as error:  # how PyYAML fails on a value that its tag doesn't fit
        raise ValueError(f"a value has a tag that doesn't fit it ({type(error).__name__}: {error}).") from error
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
