"""Speaker identification: the sentences of part `core`, some of each speaker in each split."""

from __future__ import annotations

from superb_eval.corpora.synthetic.clips import ClipsByPart, SynthesisedClip
from superb_eval.corpora.synthetic.manifests import SPLITS, manifest_csv

PARTS: tuple[str, ...] = ("core",)
SPLIT_OF_TAKE = tuple({"t": "train", "d": "dev", "e": "test"}[letter] for letter in "tdtetttedtetdetdet")
"""The split of a speaker's takes in order: nine in train, four in dev, five in test. Size nano has the first six."""


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests: every speaker is in all three splits."""
    return {f"{split}.csv": manifest_csv(clip for clip in clips["core"] if _split(clip) == split) for split in SPLITS}


def _split(clip: SynthesisedClip) -> str:
    return SPLIT_OF_TAKE[int(clip.labels["take"])]
