"""One pass of a frozen upstream over clips, batch by batch, and the features that are kept of its output."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from superb_eval.data import audio
from superb_eval.data.audio import Clip, Waveform
from superb_eval.errors import UserError
from superb_eval.runtime import out_of_memory
from superb_eval.runtime.prefetch import prefetch
from upstreams.base import Upstream

VERSION = 1
"""Raised when a change here gives other features: stored ones are then extracted again."""


READERS = 2
"""Threads that decode the audio of the next batches."""


@dataclass(frozen=True)
class Extraction:
    """Which features are kept of an upstream's output, and how they are computed.

    `key` names an output of the upstream. `normalize` applies layer normalization to each hidden state. `layers` are
    numbers of hidden states; None: all of them.
    `pooled` keeps the mean over each utterance's valid frames, [layers, dim] in float32: exact for heads that are
    linear before their mean over time. `frames` keeps every frame. `batch_seconds` bounds a padded batch.
    """

    kind: Literal["pooled", "frames"]
    key: str = "hidden_states"
    normalize: bool = False
    batch_seconds: float = 60.0
    precision: Literal["float32", "bf16"] = "float32"
    dtype: Literal["float32", "float16"] = "float32"
    layers: tuple[int, ...] | None = None

    def describe(self) -> str:
        """Return the settings as text; part of a stored shard's address."""
        return repr(sorted((name, value) for name, value in asdict(self).items() if value is not None))


def extract(
    upstream: Upstream, clips: Sequence[Clip], extraction: Extraction, device: str
) -> Iterator[tuple[int, Tensor]]:
    """Yield `(index in clips, features)`, pooled [layers, dim] or frames [frames, layers, dim], batch after batch.

    Batches depend on `clips` and `extraction` alone, so that an interrupted run gives the bits of an uninterrupted one.

    Raises:
        UserError: a clip can't be read or is too short for the upstream, or the upstream has no such feature key.
    """
    batches = plan_batches(upstream, [audio.seconds(clip) for clip in clips], extraction.batch_seconds)
    decoded = prefetch(lambda batch: (batch, [audio.read(clips[i]) for i in batch]), batches, READERS)
    # One batch on each core where the upstream allows it: no core waits for another within a layer, and a batch gives
    # the same bits however many cores there are.
    cores = torch.get_num_threads() if device == "cpu" else 1
    workers, threads_each = (cores, 1) if upstream.reentrant else (1, cores)

    def extract_batch(batch: tuple[list[int], list[Waveform]]) -> list[tuple[int, Tensor]]:
        return _extract_batch(upstream, clips, *batch, extraction, device)

    with closing(prefetch(extract_batch, decoded, workers, threads_each)) as extracted:
        for rows in extracted:
            yield from rows


def _extract_batch(
    upstream: Upstream,
    clips: Sequence[Clip],
    batch: list[int],
    wavs: list[Waveform],
    extraction: Extraction,
    device: str,
) -> list[tuple[int, Tensor]]:
    """The features of a batch, by index in `clips`; computed in halves where memory runs out."""
    try:
        features = _forward(upstream, [torch.from_numpy(wav).to(device) for wav in wavs], extraction)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory.calls_for_parts(error):
            raise
        halves = _halve([clips[i] for i in batch], batch, error)
    else:
        return [(i, _reduce(frames, clips[i], extraction)) for i, frames in zip(batch, features, strict=True)]
    middle = len(halves[0])
    parts = zip(halves, (wavs[:middle], wavs[middle:]), strict=True)
    return [row for half, some in parts for row in _extract_batch(upstream, clips, half, some, extraction, device)]


def _reduce(frames: Tensor, clip: Clip, extraction: Extraction) -> Tensor:
    features = frames.mean(dim=0) if extraction.kind == "pooled" else frames
    features = features.to(getattr(torch, extraction.dtype)).cpu()
    _check(frames, features, clip)
    return features


def _halve(clips: Sequence[Clip], batch: list[int], error: Exception) -> list[list[int]]:
    """Return the halves of a batch that memory can't hold, with a warning.

    Raises:
        UserError: it is a single utterance.
    """
    seconds = sum(audio.seconds(clip) for clip in clips)
    if len(batch) == 1:
        raise UserError(
            f"{clips[0].path}: memory runs out on this clip of {seconds:.0f} s alone. Cut it, or use a larger machine."
        ) from error
    out_of_memory.release(error)
    warnings.warn(
        f"memory ran out on a batch of {len(batch)} clips, {seconds:.0f} s: it is computed in two halves. "
        "Lower features.batch_seconds to be faster.",
        stacklevel=2,
    )
    middle = len(batch) // 2
    return [batch[:middle], batch[middle:]]


def plan_batches(upstream: Upstream, seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Cut utterances, longest first, into batches whose padded length stays within `batch_seconds`.

    An utterance longer than that is a batch of its own. Where the upstream can't count the valid frames of a
    padded utterance, only equal lengths share a batch.
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
def _forward(upstream: Upstream, wavs: list[Tensor], extraction: Extraction) -> list[Tensor]:
    """Return each utterance's valid frames [frames, layers, dim] in float32."""
    if len({len(wav) for wav in wavs}) > 1 and upstream.frames(len(wavs[0])) is None:
        # Lengths that are equal in seconds by the header may differ by a sample once resampled.
        return [frames for wav in wavs for frames in _forward(upstream, [wav], extraction)]
    with torch.autocast(wavs[0].device.type, torch.bfloat16, enabled=extraction.precision == "bf16"):
        output = upstream(wavs)
    layers = _hidden_states(upstream, output, extraction.key)
    if extraction.layers is not None:
        layers = [layers[k] for k in extraction.layers]
    hidden = torch.stack(layers, dim=2).float()  # [batch, frames, layers, dim]
    if extraction.normalize:
        hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:])
    counts = [upstream.frames(len(wav)) for wav in wavs]
    return [hidden[i, :count] for i, count in enumerate(counts)]


def _hidden_states(upstream: Upstream, output: dict[str, list[Tensor]], key: str) -> list[Tensor]:
    if key not in output:
        raise UserError(f"{upstream.card.name} has no feature '{key}'. It has: {', '.join(output)}.")
    value = output[key]
    return [value] if isinstance(value, Tensor) else list(value)


def _check(frames: Tensor, features: Tensor, clip: Clip) -> None:
    if len(frames) == 0:
        raise UserError(f"{clip.path}: {audio.seconds(clip):.3f} s give no frame of this upstream. Drop its row.")
    if not torch.isfinite(features).all():
        if torch.isfinite(frames).all():
            raise UserError(f"{clip.path}: the upstream's features for it are too large for 16 bits. Keep 32.")
        raise UserError(f"{clip.path}: the upstream gives NaN or infinite features for it. Listen to it; drop its row.")
