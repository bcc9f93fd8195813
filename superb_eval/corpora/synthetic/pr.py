"""Phoneme recognition: the sentences of part `core` and the phones that espeak-ng synthesised."""

from __future__ import annotations

from superb_eval.corpora.synthetic.clips import ClipsByPart
from superb_eval.corpora.synthetic.manifests import manifests_by_split

PARTS: tuple[str, ...] = ("core",)


def task_files(clips: ClipsByPart) -> dict[str, bytes]:
    """Return the manifests of three splits, which share no speaker, with transcripts and phones."""
    return manifests_by_split(clips["core"], ("text", "phones"))
