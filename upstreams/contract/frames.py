"""The rules about frames: their count, their axis, and their independence of the batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from upstreams.base import SAMPLE_RATE, Upstream
from upstreams.contract.findings import Finding
from upstreams.contract.test_signals import signal
from upstreams.contract.test_signals import states as states_of

EDGES = (400, 799, 800, 8_000, 15_999, 16_000, 16_160, 16_161)
"""Samples: around one receptive field, one stride and whole seconds, where frame counts go wrong."""

SHORTEST = 800
"""Samples (0.05 s). Shorter audio is refused before it reaches an upstream (`superb_eval.data.audio`)."""

BATCH = (20_800, 148_800)
"""Samples of the utterances that share a batch: 1.3 s is padded by 8 s."""

BATCH_LIMIT = 1e-4
"""Relative norm; float32 sums in another order differ by about 1e-6."""

STRIDE_LIMIT = 0.1
LONG_SECONDS = 30


def card(upstream: Upstream) -> Iterator[Finding]:
    """Layers, width and number of weights are those on the card (0 on the card: not stated)."""
    states = states_of(upstream, [signal(SAMPLE_RATE)])
    measured = (len(states), states[0].shape[-1], upstream.count_parameters())
    stated = (upstream.card.layers, upstream.card.width, upstream.card.parameters)
    passed = all(value in (0, actual) for value, actual in zip(stated, measured, strict=True))
    yield Finding("card", passed, _format_sizes(*measured), _format_sizes(*stated))


def axes(upstream: Upstream) -> Iterator[Finding]:
    """Frames are counted along axis 1, features along axis 2."""
    one, two = (states_of(upstream, [signal(seconds * SAMPLE_RATE)])[-1].shape[1:] for seconds in (1, 2))
    transposed = one[0] == two[0] and one[1] < two[1]
    measured = f"{one[0]} x {one[1]} for 1 s, {two[0]} x {two[1]} for 2 s"
    note = "transposed: this is [batch, dim, frames]; return x.transpose(1, 2)" if transposed else ""
    yield Finding("axes", one[0] < two[0] and one[1] == two[1], measured, "[batch, frames, dim]", note)


def shapes(upstream: Upstream) -> Iterator[Finding]:
    """Each hidden state is `[batch, frames, dim]` in float32, of one shape in all layers."""
    states = states_of(upstream, [signal(SAMPLE_RATE), signal(SAMPLE_RATE, seed=1)])
    distinct = {tuple(state.shape) for state in states}
    shape = next(iter(distinct))
    yield Finding(
        "shapes", len(distinct) == 1 and len(shape) == 3 and shape[0] == 2, _join(distinct), "one [2, frames, dim]"
    )
    dtypes = {str(state.dtype).removeprefix("torch.") for state in states}
    yield Finding("float32", dtypes == {"float32"}, _join(dtypes), "float32")


def frames(upstream: Upstream) -> Iterator[Finding]:
    """The frame count is one function of length in every layer, and equals `frames()`."""
    counts = {samples: _counts(upstream, samples) for samples in EDGES}
    measured = ", ".join(
        f"{samples}: {_join(sorted(count)) if count else 'refused'}" for samples, count in counts.items()
    )
    passed = all(len(count) == 1 or (not count and samples < SHORTEST) for samples, count in counts.items())
    yield Finding("layers", passed, f"frames by samples {measured}", "one count in all layers")
    stated = {samples: upstream.frames(samples) for samples in EDGES}
    if None in stated.values():
        yield Finding("frames", True, "no frames()", "frames() as measured", "only equal lengths share a batch")
        return
    wrong = [samples for samples, count in counts.items() if count and count != {stated[samples]}]
    yield Finding("frames", not wrong, f"frames() {_join(stated.values())}", "as measured", _differing_lengths(wrong))


def long(upstream: Upstream) -> Iterator[Finding]:
    """30 s can be processed, and their frames agree with the stride."""
    states = states_of(upstream, [signal(LONG_SECONDS * SAMPLE_RATE)])
    finite = all(bool(state.isfinite().all()) for state in states)
    yield Finding("long", finite, f"{LONG_SECONDS} s: {'finite' if finite else 'NaN or infinite'}", "finite")
    expected = LONG_SECONDS * SAMPLE_RATE / max(1, upstream.get_downsample_rates("hidden_states"))
    off = abs(states[0].shape[1] - expected) / expected
    measured = f"{states[0].shape[1]} frames for {LONG_SECONDS} s, {expected:.0f} by the stride: {off:.1%} off"
    yield Finding(
        "stride", off <= STRIDE_LIMIT, measured, f"{STRIDE_LIMIT:.0%}", _guess_rate(states[0].shape[1] / expected)
    )


def _guess_rate(ratio: float) -> str:
    """Return the sampling rate that a wrong stride fits, given measured over expected frames."""
    deviations = {rate: abs(ratio * SAMPLE_RATE / rate - 1) for rate in (8_000, 22_050, 24_000, 32_000, 44_100, 48_000)}
    best = min(deviations, key=deviations.__getitem__)
    return f"as if it were in samples at {best} Hz" if deviations[best] < 0.03 else ""


def batch(upstream: Upstream) -> Iterator[Finding]:
    """An utterance's valid frames don't depend on the rest of its batch."""
    lengths = BATCH if upstream.frames(BATCH[0]) is not None else (BATCH[0], BATCH[0])
    worst = leakage(upstream, lengths)
    note = "only equal lengths share a batch" if lengths[0] == lengths[1] else historical_leakage(upstream)
    yield Finding("batch invariance", worst <= BATCH_LIMIT, f"{worst:.1e} relative norm", f"{BATCH_LIMIT:.0e}", note)


def leakage(upstream: Upstream, lengths: tuple[int, ...] = BATCH) -> float:
    """Return the largest relative norm, over layers and utterances, of the change of valid frames by batching."""
    wavs = [signal(samples, seed) for seed, samples in enumerate(lengths)]
    together = states_of(upstream, wavs)
    worst = []
    for index, wav in enumerate(wavs):
        for alone, batched in zip(states_of(upstream, [wav]), together, strict=True):
            valid = batched[index, : alone.shape[1]]
            worst.append((valid - alone[0]).norm() / alone.norm().clamp_min(1e-30))
    return float(torch.stack(worst).max())  # a NaN stays one, and fails


def historical_leakage(upstream: Upstream) -> str:
    """Return the effect of batching on the variant that reproduces the published fault, with the same weights."""
    from upstreams.registry import load

    if upstream.card.historical is None:
        return ""
    variant = load(f"{upstream.card.historical}@random")
    try:
        missing = variant.load_state_dict(upstream.state_dict(), strict=False).missing_keys
    except RuntimeError:  # sizes of its own, from a config of its own
        missing = ["shapes"]
    if missing:
        return f"{upstream.card.historical} can't take these weights for comparison"
    worst = leakage(variant)
    return f"{upstream.card.historical}, as published: {worst:.1e}, {'fails' if worst > BATCH_LIMIT else 'passes'}"


def _counts(upstream: Upstream, samples: int) -> set[int]:
    """Return the frame counts of all layers for one length; empty where the upstream refuses it."""
    try:
        return {state.shape[1] for state in states_of(upstream, [signal(samples)])}
    except Exception:  # `short` and `frames` state which lengths may be refused
        return set()


def _format_sizes(layers: int, width: int, parameters: int) -> str:
    return f"{layers or '?'} x {width or '?'}, {parameters:,} weights"


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _differing_lengths(samples: list[int]) -> str:
    return f"differs at {_join(samples)} samples" if samples else ""
