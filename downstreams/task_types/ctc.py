"""What PR, ASR and SF share: the CTC loss, greedy decoding, and the settings of the recurrent head of ASR and SF."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from downstreams.base import HeadSettings, Scores
from downstreams.batching.targets import Targets
from downstreams.text.vocabulary import VocabularySettings
from superb_eval.data.bounds import Count, Depth, Width, at_most
from superb_eval.data.manifest import Manifest, Utterance
from superb_eval.runtime.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def loss(logits: Tensor, lengths: Tensor, targets: Targets, blank: int) -> Tensor:
    """Return the CTC loss [] of logits [batch, frames, outputs] with `lengths` [batch], on the host, in frames.

    That of each utterance is divided by the length of its target, then they are averaged (torch's `mean`). An utterance
    that has fewer frames than its target needs counts zero (s3prl: `zero_infinity`).
    """
    return torch.nn.functional.ctc_loss(
        logits.float().log_softmax(dim=-1).transpose(0, 1),
        targets.values,
        lengths,
        targets.lengths,
        blank=blank,
        zero_infinity=True,
    )


def greedy(logits: Tensor, lengths: Tensor, blank: int) -> list[list[int]]:
    """Return the best output of each valid frame, repeats merged, then blanks left out, for each utterance.

    `logits` is [batch, frames, outputs], `lengths` [batch] in frames.
    """
    best = logits.argmax(dim=-1).cpu()
    paths = [torch.unique_consecutive(row[:n]).tolist() for row, n in zip(best, lengths.tolist(), strict=True)]
    return [[output for output in path if output != blank] for path in paths]


def mean_log_probability(logits: Tensor, length: int) -> Scores:
    """Return the log probability of the most probable output of a frame, its mean over the valid frames.

    `logits` is [frames, outputs], of which the first `length` frames are valid.
    """
    best = logits[:length].float().log_softmax(dim=-1).amax(dim=-1)
    return {"mean log probability": round(float(best.mean()), 4)}


Masks = Annotated[int, at_most(1000, "they cover everything long before")]


class SpecAugmentSettings(HeadSettings):
    """The defaults are the protocol's (s3prl `asr/config.yaml`); a count of 0 leaves a part out."""

    warp: Count = Field(5, ge=0, description="frames that the warped point may move; 0: no warping")
    dim_masks: Masks = Field(4, ge=0, description="stretches of feature dimensions set to zero")
    dim_width: Width = Field(50, description="each is narrower than this")
    time_masks: Masks = Field(2, ge=0, description="stretches of frames set to zero")
    time_width: Count = Field(40, ge=1, description="each is shorter than this")


class RecogniserSettings(HeadSettings):
    """The head of ASR and SF; the defaults are the protocol's."""

    projector_dim: Width = Field(1024, description="width of the projection of each frame")
    hidden_dim: Width = Field(1024, description="width of each direction of each recurrent layer")
    layers: Depth = Field(2, ge=1, description="recurrent layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="after each recurrent layer, in training")
    specaug: SpecAugmentSettings | None = Field(SpecAugmentSettings(), description="masks and warps in training")
    frame_samples: Count | None = Field(
        None, ge=1, description="samples per frame of the head, at most: shorter ones are stacked; null: the upstream's"
    )
    vocabulary: VocabularySettings = Field("characters", description="or {sentencepiece: SIZE}")


def stacking(settings: RecogniserSettings, stride: int) -> int:
    """Return how many of the upstream's frames, of `stride` samples, make one of the head's."""
    return max(1, (settings.frame_samples or stride) // stride)


def stacked_lengths(lengths: Tensor, stack: int) -> Tensor:
    """Return lengths [batch] in stacked frames."""
    return (lengths + stack - 1) // stack


def remarks(
    manifest: Manifest, frames: Sequence[int], targets: Sequence[Sequence[int]], unknown: int | None = None
) -> list[str]:
    """Return a sentence on the rows of a split that CTC can't align, and on those with symbols that have no output.

    `frames` are the head's, for each row; a target needs one for each output, and one between equal neighbours.
    `unknown` is the output of symbols without one of their own; None: there is no such output.
    """
    crowded = [u for u, count, target in zip(manifest, frames, targets, strict=True) if count < _needed(target)]
    rows = [u for u, target in zip(manifest, targets, strict=True) if unknown in target]
    effect = "they are not trained on" if manifest.split == "train" else "they can't be recognised whole"
    found = []
    if crowded:
        found.append(f"{_counted(manifest, crowded)} need more outputs than they have frames: {effect}")
    if rows:
        found.append(f"{_counted(manifest, rows)} hold symbols that have no output: these can't be recognised")
    return found


def _needed(target: Sequence[int]) -> int:
    """Return how many frames a target needs."""
    return len(target) + sum(first == second for first, second in pairwise(target))


def _counted(manifest: Manifest, rows: Sequence[Utterance]) -> str:
    return f"{manifest.split}: {len(rows)} of {len(manifest)} rows (such as {manifest.row_name(rows[0])})"
