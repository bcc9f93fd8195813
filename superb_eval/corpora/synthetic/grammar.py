"""Sentences from templates: a small grammar of our own, so that no licensed text is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_PIECE = re.compile(r"\{(\w+)\}|(\S+)")


class Word(NamedTuple):
    """One word of a sentence, and the list it was drawn from; empty where it is a word of the template itself."""

    text: str
    source: str


@dataclass(frozen=True)
class Grammar:
    """`templates` name lists in braces, as in ``the {colour} car``; `lists` hold values of one or several words."""

    templates: Sequence[str]
    lists: Mapping[str, Sequence[str]]

    def sentence(self, rng: np.random.Generator) -> tuple[Word, ...]:
        """Draw a template, then a value for each list that it names."""
        return self.fill(self.templates[int(rng.integers(len(self.templates)))], rng)

    def fill(self, template: str, rng: np.random.Generator) -> tuple[Word, ...]:
        """Draw a value for each list that a template names; a list that it names twice gives two different ones."""
        words: list[Word] = []
        remaining: dict[str, list[str]] = {}
        for name, word in _PIECE.findall(template):
            if word:
                words.append(Word(word, ""))
                continue
            values = remaining.setdefault(name, [str(value) for value in rng.permutation(self.lists[name])])
            words += [Word(part, name) for part in values.pop().split()]
        return tuple(words)


def join_words(words: Sequence[Word]) -> str:
    """Return the words with spaces between them."""
    return " ".join(word.text for word in words)
