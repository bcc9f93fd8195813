"""One pass of a frozen upstream over a batch of clips, and what of it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from superb_eval import audio
from superb_eval.audio import Clip
from superb_eval.errors import UserError
from upstreams.base import Upstream

VERSION = 1
"""Raise it when a change here gives other features: stored ones are then made anew."""


@dataclass(frozen=True)
class Extraction:
    """What is kept of an upstream's output, and how it is computed.

    `pooled` keeps the mean over each utterance's valid frames, [layers, dim] in float32: exact for heads that are
    linear before their mean over time. `frames` keeps every frame. `batch_seconds` bounds a padded batch.
    """

    kind: Literal["pooled", "frames"]
    key: str = "hidden_states"
    normalize: bool = False
    batch_seconds: float = 60.0
    precision: Literal["float32", "bf16"] = "float32"
    dtype: Literal["float32", "float16"] = "float32"

    def describe(self) -> str:
        """Return the settings as text; part of a stored shard's address."""
        return repr(sorted(asdict(self).items()))


def extract(upstream: Upstream, clips: Sequence[Clip], how: Extraction, device: str) -> Iterator[tuple[int, Tensor]]:
    """Yield `(index in clips, features)`, pooled [layers, dim] or frames [frames, layers, dim], batch after batch.

    Batches depend on `clips` and `how` alone, so that a run which was interrupted gives the same bits as one that was
    not.

    Raises:
        UserError: a clip can't be read or is too short for the upstream, or the upstream has no such feature key.
    """
    for batch in plan(upstream, [audio.seconds(clip) for clip in clips], how.batch_seconds):
        wavs = [torch.from_numpy(audio.read(clips[i])).to(device) for i in batch]
        for i, frames in zip(batch, _forward(upstream, wavs, how), strict=True):
            _check(frames, clips[i])
            kept = frames.mean(dim=0) if how.kind == "pooled" else frames
            yield i, kept.to(getattr(torch, how.dtype)).cpu()


def plan(upstream: Upstream, seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Cut utterances, longest first, into batches whose padded length stays within `batch_seconds`.

    An utterance longer than that is a batch of its own. Where the upstream can't say how many frames of a padded
    utterance are its own, only equal lengths share a batch.
    """
    mixed = upstream.frames(audio.SAMPLE_RATE) is not None
    batches: list[list[int]] = []
    for i in sorted(range(len(seconds)), key=lambda i: (-seconds[i], i)):
        batch = batches[-1] if batches else []
        fits = batch and (len(batch) + 1) * seconds[batch[0]] <= batch_seconds
        if fits and (mixed or seconds[i] == seconds[batch[0]]):
            batch.append(i)
        else:
            batches.append([i])
    return batches


@torch.inference_mode()
def _forward(upstream: Upstream, wavs: list[Tensor], how: Extraction) -> list[Tensor]:
    """Return each utterance's valid frames [frames, layers, dim] in float32."""
    if len({len(wav) for wav in wavs}) > 1 and upstream.frames(len(wavs[0])) is None:
        # Lengths that are equal in seconds by the header may differ by a sample once resampled.
        return [frames for wav in wavs for frames in _forward(upstream, [wav], how)]
    with torch.autocast(wavs[0].device.type, torch.bfloat16, enabled=how.precision == "bf16"):
        output = upstream(wavs)
    hidden = torch.stack(_layers(upstream, output, how.key), dim=2).float()  # [batch, frames, layers, dim]
    if how.normalize:
        hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:])
    counts = [upstream.frames(len(wav)) for wav in wavs]
    return [hidden[i, :count] for i, count in enumerate(counts)]


def _layers(upstream: Upstream, output: dict[str, list[Tensor]], key: str) -> list[Tensor]:
    if key not in output:
        raise UserError(f"{upstream.card.name} has no feature '{key}'. It has: {', '.join(output)}.")
    value = output[key]
    return [value] if isinstance(value, Tensor) else list(value)


def _check(frames: Tensor, clip: Clip) -> None:
    if len(frames) == 0:
        raise UserError(f"{clip.path}: {audio.seconds(clip):.3f} s give no frame of this upstream. Drop its row.")
    if not torch.isfinite(frames).all():
        raise UserError(f"{clip.path}: the upstream gives NaN or infinite features for it. Listen to it; drop its row.")
