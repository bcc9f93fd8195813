"""Speech whose phones are known to the sample: embedded, or a folder of manifests with a column of alignments."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from superb_eval.corpora import embedded
from superb_eval.data import read_manifest
from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError
from superb_eval.runtime.progress import Progress

FOLDER, COLUMN = "aligned", "alignment"
"""Of a corpus: the folder of manifests (train, test), and the column of JSON `[[phone, start_s, end_s], ...]`."""

SILENCE = re.compile(r"|_.*|sil|sp|spn|pau|h#", re.IGNORECASE)
"""Names of pauses in espeak-ng's, Kaldi's, the Montreal Forced Aligner's and TIMIT's alignments."""

Phones = NDArray[np.int64]
"""[frames]: the number of the phone of each frame; -1: none, or a pause."""


class PhoneToken(NamedTuple):
    """One spoken phone: frames `first` up to `last` of clip number `clip` of a split."""

    phone: str
    speaker: str
    clip: int
    first: int
    last: int


def read(data: Path | None, size: str, progress: Progress, *, speaker: bool = False) -> Corpus:
    """Return the corpus in a folder; None: the embedded one of a size, synthesised first where it is missing.

    With `speaker=True`, the folder's manifests need that column too.

    Raises:
        UserError: the folder has no manifests `aligned/train` and `test`, their rows are bad, or synthesis can't run.
    """
    root = ensure_embedded(size, progress) if data is None else data
    return read_manifest.read(root, FOLDER, [COLUMN], ("train", "test"), speaker=speaker)


def ensure_embedded(size: str, progress: Progress) -> Path:
    """Return the folder of the embedded corpus of a size, synthesised first where it is missing.

    Raises:
        UserError: synthesis can't run; the message names the next step.
    """
    root = embedded.default_folder(size)
    if not embedded.is_made(size, FOLDER):
        embedded.synthesise(size, root, 0, progress, [FOLDER])
    return root


def phones(split: Manifest, frames: Sequence[int], stride: int, numbers: dict[str, int]) -> Phones:
    """Return the phone at the centre of each frame of a split, all clips one after another.

    Args:
        split: of a corpus that `read` returned.
        frames: how many each clip has.
        stride: of frames, in samples.
        numbers: of phones; gets those of phones that it lacks.

    Raises:
        UserError: a row holds no alignment; the message names it.
    """
    rows = zip(split, frames, strict=True)
    return np.concatenate([_phones_of(split, utterance, count, stride, numbers) for utterance, count in rows])


def tokens(split: Manifest, frames: Sequence[int], stride: int) -> list[PhoneToken]:
    """Return the phones of a split that hold the centre of at least one frame; `frames` and `stride` as for `phones`.

    Pauses are left out. A phone that the features end within is as long as they reach.

    Raises:
        UserError: a row holds no alignment; the message names it.
    """
    found = []
    for clip, (utterance, count) in enumerate(zip(split, frames, strict=True)):
        centres = _centres(count, stride)
        for phone, start, end in _alignment(split, utterance):
            first, last = np.searchsorted(centres, (start, end)).tolist()
            if first < last and not SILENCE.fullmatch(phone):
                found.append(PhoneToken(phone, utterance.speaker, clip, first, last))
    return found


def _centres(frames: int, stride: int) -> NDArray[np.float64]:
    """Return the centres of frames, in seconds."""
    centres: NDArray[np.float64] = (np.arange(frames) + 0.5) * stride / SAMPLE_RATE
    return centres


def _phones_of(split: Manifest, utterance: Utterance, frames: int, stride: int, numbers: dict[str, int]) -> Phones:
    centres = _centres(frames, stride)
    found = np.full(frames, -1)
    for phone, start, end in _alignment(split, utterance):
        if not SILENCE.fullmatch(phone):
            found[(start <= centres) & (centres < end)] = numbers.setdefault(phone, len(numbers))
    return found


def _alignment(split: Manifest, utterance: Utterance) -> list[tuple[str, float, float]]:
    try:
        return [(str(phone), float(start), float(end)) for phone, start, end in json.loads(utterance.labels[COLUMN])]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{split.source}: {split.row_name(utterance)}: {COLUMN} is {utterance.labels[COLUMN][:60]!r}. "
            'Expected JSON such as [["AH", 0.12, 0.18], ...]: phone, start and end in seconds.'
        ) from error
