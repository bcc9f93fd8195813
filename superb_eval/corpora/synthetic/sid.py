"""Speaker identification: the sentences of part `core`, some of each speaker in each split."""

from __future__ import annotations

from superb_eval.corpora.synthetic.clips import ClipsByPart, SynthesisedClip
from superb_eval.corpora.synthetic.manifests import SPLITS, manifest_csv

PARTS: tuple[str, ...] = ("core",)


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests: of five consecutive takes, three are in train, one in dev and one in test."""
    return {f"{split}.csv": manifest_csv(clip for clip in clips["core"] if _split(clip) == split) for split in SPLITS}


def _split(clip: SynthesisedClip) -> str:
    return ("train", "dev", "train", "test", "train")[int(clip.labels["take"]) % 5]
