"""Phoneme recognition: the sentences of `core` and the phones that espeak-ng spoke."""

from __future__ import annotations

from .listing import by_split
from .rows import Clips

PARTS: tuple[str, ...] = ("core",)


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests, by speaker."""
    return by_split(clips["core"], ("text", "phones"))
