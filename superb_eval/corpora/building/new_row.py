"""One row of a corpus that is being made: a row of the source, with its speaker and labels under the task's names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from superb_eval.data.importers.source import SourceRow
from superb_eval.data.manifest import NO_SPEAKER

DIVIDED = ("train", "dev", "test")


@dataclass(frozen=True)
class NewRow:
    """A row that the corpus will hold.

    `split` is the source's own name of its split. `speakers` are those who speak in it, none where that is unknown.
    `classes` are the labels that each split should have, such as `keyword=yes`. `path` is its audio, relative to the
    corpus, and `seconds` the duration of the clip; both are set once the audio is read.
    """

    id: str
    row: SourceRow
    split: str
    speakers: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    path: str = ""
    seconds: float = 0.0

    @property
    def speaker(self) -> str:
        """The speaker, as manifests state it."""
        return " ".join(self.speakers) or NO_SPEAKER


def shuffle_key(seed: int, text: str) -> str:
    """Return what to sort by for an order that depends on the seed alone, on every platform and version."""
    return hashlib.sha256(f"{seed}|{text}".encode()).hexdigest()
