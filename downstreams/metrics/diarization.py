"""The parts of SD: turns to label frames and back, the permutation-free loss, and the diarisation error rate.

Source: s3prl `downstream/diarization` (`dataset.py`, `utils.py`, `make_rttm.py`, `score.sh`), after Fujita et al.,
"End-to-end neural speaker diarization" (arXiv 1909.05952).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import permutations
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from downstreams.batching.targets import Targets
from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.data.manifest import Turn
from superb_eval.data.padding import copy_to, valid_mask
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

EXTRA_FRAMES = 5
"""Frames that a head adds after an utterance's last one: labels may outnumber frames by fewer than that (s3prl
`upstream/interfaces.py` asserts it)."""

MOST_SECONDS, MOST_TURNS, MOST_SPEAKERS = 7 * 86_400.0, 100_000, 1000
"""Of a recording; scores take time and memory with them."""

_Second = Annotated[float, Field(ge=0, le=MOST_SECONDS)]
_TURNS = TypeAdapter(Annotated[list[tuple[_Second, _Second, str]], Field(max_length=MOST_TURNS)])


def turns_to_json(turns: Sequence[Turn]) -> str:
    """Return turns as JSON: `[[start, end, speaker], ...]`, in seconds."""
    return json.dumps([list(turn) for turn in turns])


def turns_from_json(text: str) -> list[Turn]:
    """Return the turns that `turns_to_json` wrote.

    Raises:
        ValueError: it is no list of turns, or of more speakers than a recording may have.
    """
    turns = [Turn(*turn) for turn in _TURNS.validate_json(text)]
    if len({turn.speaker for turn in turns}) > MOST_SPEAKERS:
        raise ValueError(f"more than {MOST_SPEAKERS} speakers in a recording")
    return turns


def label_frames(start: float, end: float, stride: int) -> tuple[int, int]:
    """Return the first label frame of a chunk and the one after its last; the last, partial frame is left out.

    `start` and `end` are in seconds from the beginning of the recording, `stride` in samples.
    """
    return round(start * SAMPLE_RATE) // stride, round(end * SAMPLE_RATE) // stride


def speaker_activity(turns: Sequence[Turn], span: tuple[int, int], stride: int, speakers: int) -> NDArray[np.float32]:
    """Return 1 where a speaker is active: [frames, speakers], for the label frames from span[0] to span[1].

    Edges of turns are rounded to the nearest frame; columns are the speakers of `turns` in the order of their names.
    Two differences from s3prl (`diarization/dataset.py`). It leaves a turn unlabelled that begins before a chunk and
    ends after it; here it is labelled. No turn of Libri2Mix is as long as a chunk. A turn both of whose edges round to
    the end of a chunk labels all of that chunk there, and no frame here.
    """
    first, last = span
    names = sorted({turn.speaker for turn in turns})
    active = np.zeros((last - first, speakers), dtype=np.float32)
    for turn in turns:
        begin, end = (round(edge * SAMPLE_RATE / stride) - first for edge in turn[:2])
        active[max(begin, 0) : max(end, 0), names.index(turn.speaker)] = 1
    return active


def align_frames(output: Tensor, lengths: Tensor, label_lengths: Tensor) -> Tensor:
    """Return logits [batch, longest label, speakers] for as many frames as there are labels.

    `output` [batch, frames + EXTRA_FRAMES, speakers] holds `lengths` + EXTRA_FRAMES frames of each utterance. What is
    longer than `label_lengths` [batch] is cut, what is still shorter repeats its last frame. Lengths are on the host.
    """
    frames = torch.arange(int(label_lengths.max()), device=output.device)
    last = copy_to(lengths, output.device)[:, None] + EXTRA_FRAMES - 1
    index = torch.minimum(frames[None], last)
    return torch.gather(output, 1, index[..., None].expand(-1, -1, output.shape[2]))


def pit_loss(logits: Tensor, labels: Targets) -> tuple[Tensor, Tensor]:
    """Return the permutation-free loss [], and the order of speakers that it takes for each utterance, [batch].

    `logits` and the labels are [batch, frames, speakers]; an order is an index into `speaker_orders`. Binary
    cross-entropy, mean over speakers, summed over each utterance's frames; the best order of its speakers counts; the
    sum over the batch is divided by its frames.
    """
    mask = valid_mask(copy_to(labels.lengths, logits.device), logits.shape[1])
    losses = [
        _loss_per_utterance(logits, torch.stack([labels.values[..., k] for k in order], dim=2), mask)
        for order in speaker_orders(logits.shape[2])
    ]
    least, best = torch.stack(losses, dim=1).min(dim=1)
    return least.sum() / int(labels.lengths.sum()), best


@cache
def speaker_orders(speakers: int) -> tuple[tuple[int, ...], ...]:
    """Return the orders that so many speakers may have."""
    return tuple(permutations(range(speakers)))


def _loss_per_utterance(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=2)
    return (losses * mask).sum(dim=1)


def frame_accuracy(logits: Tensor, label: Tensor) -> float:
    """Return the share of correct decisions, speaker by speaker, of one utterance [frames, speakers], in percent.

    Speakers are in the order with the least loss. A chunk in which nobody speaks counts as 0, as in s3prl.
    """
    if not label.any():
        return 0.0
    _, best = pit_loss(logits[None], Targets.of([label]))
    order = speaker_orders(logits.shape[1])[int(best)]
    return float(100.0 * ((logits > 0) == (label[:, list(order)] > 0)).float().mean())


def decode_turns(probabilities: NDArray[np.float32], threshold: float, median: int, stride: int) -> list[Turn]:
    """Return the turns in which a speaker's probability [frames, speakers] is above `threshold`.

    `median` is the width in frames of a median filter over the decisions, 1: none. Starts and durations are rounded to
    hundredths of a second, as they are in an RTTM.
    """
    from scipy.signal import medfilt

    active = (probabilities > threshold).astype(np.float64)
    if median > 1 and len(active):
        active = medfilt(active, (median, 1))
    turns = []
    for speaker, column in enumerate(active.T):
        (changes,) = np.nonzero(np.diff(np.pad(column, 1)))
        for begin, end in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
            start, lasts = (round(frames * stride / SAMPLE_RATE, 2) for frames in (begin, end - begin))
            turns.append(Turn(start, round(start + lasts, 2), str(speaker)))
    return sorted(turns)


def mean_probability(probabilities: NDArray[np.float32], turn: Turn, stride: int) -> float:
    """Return the mean probability of a turn's speaker over its frames, of probabilities [frames, speakers]."""
    first, last = (round(edge * SAMPLE_RATE / stride) for edge in (turn.start, turn.end))
    return float(probabilities[first : max(last, first + 1), int(turn.speaker)].mean())


@cache
def _metric() -> Any:  # pyannote has no types
    from pyannote.metrics.diarization import DiarizationErrorRate

    return DiarizationErrorRate(collar=0.0, skip_overlap=False)


def error_seconds(reference: Sequence[Turn], hypothesis: Sequence[Turn]) -> tuple[float, float]:
    """Return the error time of a recording and the time that its speakers speak, both in seconds.

    Missed, false and confused speech, by pyannote.metrics: no collar, overlapping speech is scored, and speakers are
    mapped so that they agree longest. All that either side annotates is scored, as dscore does without a UEM.
    """
    return _error_seconds(tuple(reference), tuple(hypothesis))


@lru_cache(4096)  # a report scores the same predictions for its table, its errors and each comparison
def _error_seconds(reference: tuple[Turn, ...], hypothesis: tuple[Turn, ...]) -> tuple[float, float]:
    from pyannote.core import Segment, Timeline

    end = max((turn.end for turn in (*reference, *hypothesis)), default=0.0)
    if not end:
        return 0.0, 0.0
    details = _metric().compute_components(
        _annotation(reference), _annotation(hypothesis), uem=Timeline([Segment(0.0, end)])
    )
    error = sum(details[part] for part in ("missed detection", "false alarm", "confusion"))
    return float(error), float(details["total"])


def _annotation(turns: Sequence[Turn]) -> Any:
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for track, turn in enumerate(turns):
        if turn.end > turn.start:
            annotation[Segment(turn.start, turn.end), track] = turn.speaker
    # Rounding may let two turns of one speaker touch or overlap: they are one.
    return annotation.support()
