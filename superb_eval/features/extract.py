"""One pass of a frozen upstream over clips, batch by batch, and the features that are kept of its output."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from superb_eval.data import audio
from superb_eval.data.audio import Clip, Waveform
from superb_eval.data.padding import PaddedWavs, copy_to, lengths_on, mean_over_time
from superb_eval.errors import UserError
from superb_eval.features.padded_batches import BatchShapes
from superb_eval.recipe import FeatureSettings
from superb_eval.runtime import devices, out_of_memory
from superb_eval.runtime.prefetch import prefetch
from upstreams.base import Upstream

VERSION = 1
"""Raised when a change here gives other features: stored ones are then extracted again."""


READERS = 2
"""Threads that decode the audio of the next batches."""

IN_FLIGHT = 2
"""Batches that a GPU is given at once."""


@dataclass(frozen=True)
class Extraction:
    """Which features are kept of an upstream's output, and how they are computed.

    `key` names an output of the upstream. `normalize` applies layer normalization to each hidden state. `layers` are
    numbers of hidden states; None: all of them.
    `pooled` keeps the mean over each utterance's valid frames, [layers, dim] in float32: exact for heads that are
    linear before their mean over time. `frames` keeps every frame. `batch_seconds` bounds a
    padded batch on a CPU; a GPU's may be longer (`BatchShapes`).
    """

    kind: Literal["pooled", "frames"]
    key: str = "hidden_states"
    normalize: bool = False
    batch_seconds: float = 60.0
    precision: Literal["float32", "bf16"] = "float32"
    dtype: Literal["float32", "float16"] = "float32"
    layers: tuple[int, ...] | None = None

    @classmethod
    def of(cls, settings: FeatureSettings, pooled: bool) -> Extraction:
        """Return the extraction that a recipe's settings ask for; `pooled`: of means over time."""
        return cls(
            kind="pooled" if pooled else "frames",
            key=settings.key,
            normalize=settings.normalize,
            batch_seconds=settings.batch_seconds,
            precision=settings.precision,
            dtype=settings.dtype,
        )

    def describe(self) -> str:
        """Return the settings as text; part of a stored shard's address."""
        return repr(sorted((name, value) for name, value in asdict(self).items() if value is not None))


def extract(
    upstream: Upstream,
    clips: Sequence[Clip],
    extraction: Extraction,
    device: str,
    waves: Sequence[Waveform] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield `(index in clips, features)`, pooled [layers, dim] or frames [frames, layers, dim], batch after batch.

    Batches depend on `clips` and `extraction` alone, so that an interrupted run gives the bits of an uninterrupted one.
    `waves` are the clips' waveforms [samples] where they are in memory already; None: they are read.

    Raises:
        UserError: a clip can't be read or is too short for the upstream, or the upstream has no such feature key, or
            features of other sizes for it than for others.
    """
    shapes = BatchShapes.of(upstream, device, extraction.batch_seconds)
    pinned = devices.kind(device) == "cuda"

    def decode(batch: list[int]) -> tuple[list[int], PaddedWavs]:
        return batch, shapes.pad([audio.read(clips[i]) if waves is None else waves[i] for i in batch], pinned=pinned)

    durations = map(audio.seconds, clips) if waves is None else (len(wave) / audio.SAMPLE_RATE for wave in waves)
    decoded = prefetch(decode, shapes.plan(list(durations)), READERS)
    # One batch on each core where the upstream allows it: no core waits for another within a layer, and a batch gives
    # the same bits however many cores there are. A GPU is given the next batch before the last one's features are back.
    cores = torch.get_num_threads() if device == "cpu" else IN_FLIGHT
    workers, threads_each = (cores, 1) if upstream.reentrant else (1, cores)
    extractor = Extractor(upstream, extraction, device)

    def extract_batch(batch: tuple[list[int], PaddedWavs]) -> list[tuple[int, Tensor]]:
        indices, wavs = batch
        return list(zip(indices, extractor.extract([clips[i] for i in indices], wavs), strict=True))

    size: tuple[int, ...] = ()
    with closing(prefetch(extract_batch, decoded, workers, threads_each)) as extracted:
        for index, features in itertools.chain.from_iterable(extracted):
            size = size or tuple(features.shape[-2:])
            check_size(upstream, tuple(features.shape[-2:]), size, clips[index].path)
            yield index, features


def check_size(upstream: Upstream, size: tuple[int, ...], expected: tuple[int, ...], where: Path) -> None:
    """Refuse features of another number of hidden states, or width, than those of other clips: (layers, dim).

    Raises:
        UserError: naming the file, and both sizes.
    """
    if size != expected:
        (layers, dim), (other_layers, other_dim) = size, expected
        raise UserError(
            f"{where}: {upstream.card.name} gives {layers} hidden state(s) of {dim} dimensions for it, and "
            f"{other_layers} of {other_dim} for others. Make them the same for each clip."
        )


@dataclass(frozen=True)
class Extractor:
    """An upstream on a device, and what is kept of its output."""

    upstream: Upstream
    extraction: Extraction
    device: str

    def extract(self, clips: Sequence[Clip], wavs: PaddedWavs) -> list[Tensor]:
        """Return the features of clips, in halves where memory runs out; `wavs` may have rows beyond theirs."""
        try:
            return self._extract(clips, wavs)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory.calls_for_parts(error):
                raise
            _check_divisible(clips, sum(wavs.lengths[: len(clips)]) / audio.SAMPLE_RATE, error)
        middle, end = len(clips) // 2, len(clips)
        first = PaddedWavs(wavs.samples[:middle], wavs.lengths[:middle])
        second = PaddedWavs(wavs.samples[middle:end], wavs.lengths[middle:end])
        return [*self.extract(clips[:middle], first), *self.extract(clips[middle:], second)]

    @torch.inference_mode()
    def _extract(self, clips: Sequence[Clip], wavs: PaddedWavs) -> list[Tensor]:
        if len(set(wavs.lengths)) > 1 and self.upstream.frames(wavs.lengths[0]) is None:
            # Lengths that are equal in seconds by the header may differ by a sample once resampled.
            alone = (PaddedWavs(wav[None], (len(wav),)) for wav in wavs.unpad())
            return [features for clip, wav in zip(clips, alone, strict=True) for features in self._extract([clip], wav)]
        values, counts = self.launch(wavs, len(clips))
        kept = values.to(getattr(torch, self.extraction.dtype))
        finite = torch.isfinite(kept).all()
        features = kept.cpu()
        if min(counts) == 0 or not finite:
            self._refuse(clips, counts, features, torch.isfinite(values).cpu())
        return self._split(features, counts)

    def _split(self, values: Tensor, counts: list[int]) -> list[Tensor]:
        """Return the values of each clip."""
        return list(values.unbind() if self.extraction.kind == "pooled" else torch.split(values, counts))

    def launch(self, wavs: PaddedWavs, clips: int) -> tuple[Tensor, list[int]]:
        """Return what is kept of the first rows, in float32, and their numbers of frames; waits for no device.

        Means [clips, layers, dim], or the valid frames of all clips one after another, [frames, layers, dim].
        """
        hidden = self._hidden_states(PaddedWavs(copy_to(wavs.samples, torch.device(self.device)), wavs.lengths))[:clips]
        longest, frames = hidden.shape[1], map(self.upstream.frames, wavs.lengths[:clips])
        counts = [longest if count is None else min(count, longest) for count in frames]
        if self.extraction.kind == "pooled":
            means = mean_over_time(hidden.flatten(2), lengths_on(hidden.device, counts))
            return means.view(clips, *hidden.shape[2:]), counts
        valid = np.arange(longest) < np.array(counts)[:, None]
        positions = copy_to(torch.from_numpy(np.flatnonzero(valid)), hidden.device)
        return hidden.flatten(0, 1).index_select(0, positions), counts

    def _refuse(self, clips: Sequence[Clip], counts: list[int], features: Tensor, finite: Tensor) -> None:
        """Name the first clip without frames, or whose features aren't finite.

        `finite` is true where a value was finite in float32.
        """
        each = zip(clips, counts, self._split(features, counts), self._split(finite, counts), strict=True)
        for clip, count, stored, in_float32 in each:
            if count == 0:
                raise UserError(
                    f"{clip.path}: {audio.seconds(clip):.3f} s give no frame of this upstream. Drop its row."
                )
            if not in_float32.all():
                raise UserError(
                    f"{clip.path}: the upstream gives NaN or infinite features for it. Listen to it; drop its row."
                )
            if not torch.isfinite(stored).all():
                raise UserError(f"{clip.path}: the upstream's features for it are too large for 16 bits. Keep 32.")

    def _hidden_states(self, wavs: PaddedWavs) -> Tensor:
        """Return the chosen layers [batch, frames, layers, dim] in float32."""
        with torch.autocast(wavs.samples.device.type, torch.bfloat16, enabled=self.extraction.precision == "bf16"):
            takes_padding = self.upstream.padding_invariant
            output = self.upstream.forward_padded(wavs) if takes_padding else self.upstream(wavs.unpad())
        layers = _select_key(self.upstream, output, self.extraction.key)
        if self.extraction.layers is not None:
            layers = [layers[k] for k in self.extraction.layers]
        hidden = torch.stack(layers, dim=2).float()
        return nn.functional.layer_norm(hidden, hidden.shape[-1:]) if self.extraction.normalize else hidden


def _check_divisible(clips: Sequence[Clip], seconds: float, error: Exception) -> None:
    """Return the memory of a batch of clips, `seconds` together, that didn't fit, with a warning.

    Raises:
        UserError: it is a single utterance.
    """
    if len(clips) == 1:
        raise UserError(
            f"{clips[0].path}: memory runs out on this clip of {seconds:.0f} s alone. Cut it, or use a larger machine."
        ) from error
    out_of_memory.release(error)
    warnings.warn(
        f"memory ran out on a batch of {len(clips)} clips, {seconds:.0f} s: it is computed in two halves. "
        "Lower features.batch_seconds to be faster.",
        stacklevel=2,
    )


def _select_key(upstream: Upstream, output: dict[str, list[Tensor]], key: str) -> list[Tensor]:
    if key not in output:
        raise UserError(f"{upstream.card.name} has no feature '{key}'. It has: {', '.join(output)}.")
    value = output[key]
    return [value] if isinstance(value, Tensor) else list(value)
