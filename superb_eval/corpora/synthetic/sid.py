"""Speaker identification: the sentences of `core`, some of each speaker in each split."""

from __future__ import annotations

from .listing import SPLITS, table
from .rows import Clip, Clips

PARTS: tuple[str, ...] = ("core",)


def files(clips: Clips) -> dict[str, bytes]:
    """The manifests: of five takes in a row, three train, one is dev and one is test."""
    return {f"{split}.csv": table(clip for clip in clips["core"] if _split(clip) == split) for split in SPLITS}


def _split(clip: Clip) -> str:
    return ("train", "dev", "train", "test", "train")[int(clip.labels["take"]) % 5]
