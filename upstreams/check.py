"""Does an upstream keep the contract? One small function per rule; `check` runs them all.

The rules are those of `upstreams.base`: what the card says holds, an utterance's frames depend on nothing but the
utterance, evaluation is deterministic, and no gradient comes near. It is a plain function, so that another package's
tests can assert `all(finding.passed for finding in check(upstream))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from upstreams.base import SAMPLE_RATE, Upstream

EDGES = (400, 799, 800, 8_000, 15_999, 16_000, 16_160, 16_161)
"""Samples: around one receptive field, one stride and whole seconds, where frame counts go wrong."""

SHORTEST = 800
"""Samples (0.05 s). Shorter audio is refused before it reaches an upstream (`superb_eval.audio`)."""

BATCH = (20_800, 148_800)
"""Samples of the utterances that share a batch: 1.3 s is padded by 8 s."""

BATCH_LIMIT = 1e-4
"""Relative norm; float32 sums in another order differ by about 1e-6."""

STRIDE_LIMIT = 0.1
LONG_SECONDS = 30


@dataclass(frozen=True)
class Finding:
    """What one rule found."""

    rule: str
    passed: bool
    measured: str
    limit: str
    note: str = ""

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        note = f"; {self.note}" if self.note else ""
        return f"{verdict}  {self.rule:<17} {self.measured} (limit: {self.limit}){note}"


Rule = Callable[[Upstream], Iterator[Finding]]


def check(upstream: Upstream) -> list[Finding]:
    """Try an upstream against every rule of the contract, as it stands: it is neither frozen nor put in eval mode.

    A rule whose forward pass fails counts as broken, with the error as what was measured. HuBERT Base takes less
    than a minute on two slow cores, its historical sibling included.
    """
    findings: list[Finding] = []
    for rule in RULES:
        try:
            findings += rule(upstream)
        except Exception as error:  # somebody's model may raise anything
            findings.append(Finding(rule.__name__, False, f"{type(error).__name__}: {error}", "a forward pass"))
    return findings


def render(findings: list[Finding]) -> str:
    """Return one line per finding, and a last one that counts them."""
    broken = [finding.rule for finding in findings if not finding.passed]
    verdict = f"breaks the contract: {', '.join(broken)}" if broken else "keeps the contract"
    return "\n".join([*map(str, findings), f"{len(findings) - len(broken)} of {len(findings)} rules hold: {verdict}"])


def signal(samples: int, seed: int = 0) -> Tensor:
    """Return a seeded waveform [samples] with speech's unevenness: noise in bursts of about 0.2 s, peak below 1."""
    generator = torch.Generator().manual_seed(seed)
    bursts = torch.rand(samples // 3_200 + 2, generator=generator).repeat_interleave(3_200)[:samples]
    return 0.2 * bursts * torch.randn(samples, generator=generator).clamp(-4, 4)


def card(upstream: Upstream) -> Iterator[Finding]:
    """Layers, width and number of weights are those on the card (0 on the card: not stated)."""
    states = _states(upstream, [signal(SAMPLE_RATE)])
    found = (len(states), states[0].shape[-1], upstream.count_parameters())
    stated = (upstream.card.layers, upstream.card.width, upstream.card.parameters)
    passed = all(said in (0, is_) for said, is_ in zip(stated, found, strict=True))
    yield Finding("card", passed, _sizes(*found), _sizes(*stated))


def shapes(upstream: Upstream) -> Iterator[Finding]:
    """Each hidden state is `[batch, frames, dim]` in float32, of one shape in all layers."""
    states = _states(upstream, [signal(SAMPLE_RATE), signal(SAMPLE_RATE, seed=1)])
    found = {tuple(state.shape) for state in states}
    shape = next(iter(found))
    yield Finding(
        "shapes", len(found) == 1 and len(shape) == 3 and shape[0] == 2, _listed(found), "one [2, frames, dim]"
    )
    kinds = {str(state.dtype).removeprefix("torch.") for state in states}
    yield Finding("float32", kinds == {"float32"}, _listed(kinds), "float32")


def frames(upstream: Upstream) -> Iterator[Finding]:
    """The frame count is one function of length in every layer, and the one that `frames()` states."""
    counts = {samples: _counts(upstream, samples) for samples in EDGES}
    measured = ", ".join(f"{samples}: {_listed(count) if count else 'refused'}" for samples, count in counts.items())
    passed = all(len(count) == 1 or (not count and samples < SHORTEST) for samples, count in counts.items())
    yield Finding("layers", passed, f"frames by samples {measured}", "one count in all layers")
    stated = {samples: upstream.frames(samples) for samples in EDGES}
    if None in stated.values():
        yield Finding("frames", True, "no frames()", "frames() as measured", "only equal lengths share a batch")
        return
    wrong = [samples for samples, count in counts.items() if count and count != {stated[samples]}]
    yield Finding("frames", not wrong, f"frames() {_listed(stated.values())}", "as measured", _at(wrong))


def long(upstream: Upstream) -> Iterator[Finding]:
    """30 s go through, and their frames agree with the stride."""
    states = _states(upstream, [signal(LONG_SECONDS * SAMPLE_RATE)])
    finite = all(bool(state.isfinite().all()) for state in states)
    yield Finding("long", finite, f"{LONG_SECONDS} s: {'finite' if finite else 'NaN or infinite'}", "finite")
    expected = LONG_SECONDS * SAMPLE_RATE / max(1, upstream.get_downsample_rates("hidden_states"))
    off = abs(states[0].shape[1] - expected) / expected
    measured = f"{states[0].shape[1]} frames for {LONG_SECONDS} s, {expected:.0f} by the stride: {off:.1%} off"
    yield Finding("stride", off <= STRIDE_LIMIT, measured, f"{STRIDE_LIMIT:.0%}")


def batch(upstream: Upstream) -> Iterator[Finding]:
    """An utterance's valid frames don't depend on what it is batched with."""
    lengths = BATCH if upstream.frames(BATCH[0]) is not None else (BATCH[0], BATCH[0])
    worst = leakage(upstream, lengths)
    note = "only equal lengths share a batch" if lengths[0] == lengths[1] else historical(upstream)
    yield Finding("batch invariance", worst <= BATCH_LIMIT, f"{worst:.1e} relative norm", f"{BATCH_LIMIT:.0e}", note)


def leakage(upstream: Upstream, lengths: tuple[int, ...] = BATCH) -> float:
    """Return the largest relative norm, over layers and utterances, of what batching changes in valid frames."""
    wavs = [signal(samples, seed) for seed, samples in enumerate(lengths)]
    together = _states(upstream, wavs)
    worst = []
    for index, wav in enumerate(wavs):
        for alone, batched in zip(_states(upstream, [wav]), together, strict=True):
            valid = batched[index, : alone.shape[1]]
            worst.append((valid - alone[0]).norm() / alone.norm().clamp_min(1e-30))
    return float(torch.stack(worst).max())  # a NaN stays one, and fails


def historical(upstream: Upstream) -> str:
    """Return what batching does to the sibling that keeps the published fault, given the same weights."""
    from upstreams.registry import load

    if upstream.card.historical is None:
        return ""
    sibling = load(f"{upstream.card.historical}@random")
    try:
        missing = sibling.load_state_dict(upstream.state_dict(), strict=False).missing_keys
    except RuntimeError:  # sizes of its own, from a config of its own
        missing = ["shapes"]
    if missing:
        return f"{upstream.card.historical} can't take these weights for comparison"
    worst = leakage(sibling)
    return f"{upstream.card.historical}, as published: {worst:.1e}, {'fails' if worst > BATCH_LIMIT else 'passes'}"


def evaluation(upstream: Upstream) -> Iterator[Finding]:
    """The upstream is in evaluation mode, and gives the same bits twice."""
    once, again = (_states(upstream, [signal(SAMPLE_RATE)]) for _ in range(2))
    same = all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    measured = (
        ("equal" if same else "differing") + " outputs, " + ("training" if upstream.training else "eval") + " mode"
    )
    yield Finding("evaluation", same and not upstream.training, measured, "equal outputs, eval mode")


def gradients(upstream: Upstream) -> Iterator[Finding]:
    """No weight and no output asks for a gradient."""
    with torch.enable_grad():
        states = upstream([signal(SAMPLE_RATE)])["hidden_states"]
    weights = sum(p.requires_grad for p in upstream.parameters())
    outputs = sum(state.requires_grad for state in states)
    yield Finding("gradients", weights + outputs == 0, f"asked for by {weights} weights, {outputs} outputs", "none")


def finite(upstream: Upstream) -> Iterator[Finding]:
    """Digital silence, and clipped full-scale noise, give finite numbers."""
    for rule, wav in (("silence", torch.zeros(SAMPLE_RATE)), ("loud", 1e3 * signal(SAMPLE_RATE))):
        values = torch.cat([state.flatten() for state in _states(upstream, [wav.clamp(-1, 1)])])
        bad = int((~values.isfinite()).sum())
        yield Finding(rule, bad == 0, f"{bad} of {values.numel()} values NaN or infinite", "0")


def short(upstream: Upstream) -> Iterator[Finding]:
    """A waveform shorter than one receptive field gives an error that says something, or finite frames."""
    answers = {samples: _answer(upstream, samples) for samples in (1, 100, 399)}
    measured = ", ".join(f"{samples} samples: {told}" for samples, (_, told, _) in answers.items())
    words = next((words for _, _, words in answers.values() if words), "")
    passed = all(clear for clear, _, _ in answers.values())
    yield Finding("short", passed, measured, "an error in words, or finite frames", words)


RULES: tuple[Rule, ...] = (card, shapes, frames, long, batch, evaluation, gradients, finite, short)


def _states(upstream: Upstream, wavs: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        states: list[Tensor] = upstream(wavs)["hidden_states"]
    return states


def _counts(upstream: Upstream, samples: int) -> set[int]:
    """Return the frame counts of all layers for one length; none where the upstream refuses it."""
    try:
        return {state.shape[1] for state in _states(upstream, [signal(samples)])}
    except Exception:  # `short` and `frames` say which lengths may be refused
        return set()


def _answer(upstream: Upstream, samples: int) -> tuple[bool, str, str]:
    """Return whether the answer to so short a waveform is clear, what it was, and the words of an error."""
    try:
        states = _states(upstream, [signal(samples)])
    except Exception as error:  # which error is the upstream's choice
        words = str(error).strip()
        return bool(words), type(error).__name__, words.splitlines()[0][:100] if words else "an error without a word"
    if not all(bool(state.isfinite().all()) for state in states):
        return False, "NaN or infinite", ""
    return True, f"{states[0].shape[1]} frames", ""


def _sizes(layers: int, width: int, parameters: int) -> str:
    return f"{layers or '?'} x {width or '?'}, {parameters:,} weights"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _at(samples: list[int]) -> str:
    return f"differs at {_listed(samples)} samples" if samples else ""
