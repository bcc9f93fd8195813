"""The rules about running: the same answer each time, on any input, in any precision, on any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from upstreams.base import SAMPLE_RATE, Upstream
from upstreams.contract.findings import Finding
from upstreams.contract.test_signals import signal, states

LARGEST = 65_504.0
"""What a 16-bit float can hold."""

RATE_NAMES = ("sample_rate", "sampling_rate", "samplerate", "sr", "fs")
"""What modules call the sampling rate that they are made for, in Hz."""

TOO_SHORT, SHORT = (1, 100, 399), (800, 4_000, 8_000)
"""Samples: less than a window, which may be refused in words; and words of 0.05 to 0.5 s, which may not."""

GPU_LIMIT = 1e-2
"""Relative norm between CPU and GPU; TF32 products differ by about 1e-3."""


def evaluation(upstream: Upstream) -> Iterator[Finding]:
    """The upstream is in evaluation mode, and nothing in it is drawn at random."""
    first, other, again = (_heard(upstream, seed) for seed in (0, 1, 0))
    drawn = not torch.equal(first, other) and torch.equal(first, again)  # else `state` is to blame
    measured = ("differing" if drawn else "equal") + f" outputs, {'training' if upstream.training else 'eval'} mode"
    active = sum(module.training for module in upstream.modules() if isinstance(module, nn.modules.dropout._DropoutNd))
    note = "dropout is on, or something else is drawn" if drawn else f"{active} dropout layers are on" if active else ""
    passed = not drawn and not upstream.training
    yield Finding("evaluation", passed, measured, "equal outputs, eval mode", note)


def state(upstream: Upstream) -> Iterator[Finding]:
    """What was heard before changes neither the output nor the weights and buffers."""
    before = {name: tensor.clone() for name, tensor in upstream.state_dict().items()}
    first = _heard(upstream, 0)
    _heard(upstream, 0, samples=3 * SAMPLE_RATE)
    same = torch.equal(first, _heard(upstream, 0))
    changed = [name for name, tensor in upstream.state_dict().items() if not torch.equal(tensor, before[name])]
    measured = f"{'equal' if same else 'differing'} outputs after another utterance, {len(changed)} tensors changed"
    yield Finding("state", same and not changed, measured, "equal, 0", f"such as {changed[0]}" if changed else "")


def gradients(upstream: Upstream) -> Iterator[Finding]:
    """No weight and no output asks for a gradient."""
    with torch.enable_grad():
        found = upstream([signal(SAMPLE_RATE)])["hidden_states"]
    weights = sum(p.requires_grad for p in upstream.parameters())
    outputs = sum(tensor.requires_grad for tensor in found)
    yield Finding("gradients", weights + outputs == 0, f"asked for by {weights} weights, {outputs} outputs", "none")


def finite(upstream: Upstream) -> Iterator[Finding]:
    """Digital silence, and clipped full-scale noise, give finite numbers."""
    for rule, wav in (("silence", torch.zeros(SAMPLE_RATE)), ("loud", _loud())):
        values = _flat(states(upstream, [wav]))
        bad = int((~values.isfinite()).sum())
        yield Finding(rule, bad == 0, f"{bad} of {values.numel()} values NaN or infinite", "0")


def half(upstream: Upstream) -> Iterator[Finding]:
    """Features fit in 16 bits when stored, and bfloat16 arithmetic gives finite ones."""
    plain, loud = (_flat(states(upstream, [wav])).float() for wav in (signal(SAMPLE_RATE), _loud()))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _flat(states(upstream, [signal(SAMPLE_RATE)])).float()
    seen = torch.cat([plain, loud])
    largest = float(seen[seen.isfinite()].abs().max()) if seen.isfinite().any() else float("nan")
    bad = int((~plain.isfinite()).sum() + (~rounded.isfinite()).sum())
    off = float((rounded - plain).norm() / plain.norm().clamp_min(1e-30))
    measured = f"largest value {largest:.3g}, {bad} NaN or infinite, bf16 differs by {off:.1e}"
    yield Finding("half precision", largest < LARGEST and bad == 0, measured, f"{LARGEST:,.0f}, 0")


def short(upstream: Upstream) -> Iterator[Finding]:
    """Short words give finite frames; less than one window may give an error instead, in words."""
    answers = {samples: _answer(upstream, samples) for samples in (*TOO_SHORT, *SHORT)}
    measured = ", ".join(f"{samples} samples: {told}" for samples, (_, told, _) in answers.items())
    words = next((answers[samples][2] for samples in (*SHORT, *TOO_SHORT) if answers[samples][2]), "")
    passed = all(clear and not (words and samples in SHORT) for samples, (clear, _, words) in answers.items())
    limit = f"finite frames from {SHORT[0]} on; below, those or an error in words"
    yield Finding("short", passed, measured, limit, words)


def device(upstream: Upstream) -> Iterator[Finding]:
    """Output lies where the input lay; on a GPU the same comes out, and nothing stays behind."""
    left = sorted(f"{name}.{key}".lstrip(".") for name, key in _plain_tensors(upstream))
    places = {str(tensor.device) for tensor in states(upstream, [signal(SAMPLE_RATE)])}
    passed, measured = not left and places == {"cpu"}, f"CPU in, {', '.join(sorted(places))} out"
    note = f".to(device) leaves {', '.join(left)} behind: register_buffer moves them" if left else ""
    if torch.cuda.is_available() and passed:
        off = _moved(upstream)
        passed, measured = off <= GPU_LIMIT, f"{measured}; on the GPU {off:.1e} relative norm"
    elif passed:
        measured += "; no GPU here to move to"
    yield Finding("device", passed, measured, f"the same device, {GPU_LIMIT:.0e}", note)


def rate(upstream: Upstream) -> Iterator[Finding]:
    """Whatever in it states a sampling rate states 16 kHz, or one that a `Resample` inside brings it to."""
    attributes = [(type(m).__name__, vars(m)) for m in upstream.modules()]
    inputs = {(kind, v["orig_freq"], v["new_freq"]) for kind, v in attributes if {"orig_freq", "new_freq"} <= v.keys()}
    heard = {SAMPLE_RATE, *(new for _, old, new in inputs if old == SAMPLE_RATE)}
    stated = {(kind, v[key]) for kind, v in attributes for key in RATE_NAMES if isinstance(v.get(key), int | float)}
    stated |= {(kind, old) for kind, old, _ in inputs}
    wrong = sorted(f"{kind} is made for {value:g} Hz" for kind, value in stated if value not in heard)
    yield Finding("rate", not wrong, ", ".join(wrong) or "nothing states another", f"{SAMPLE_RATE} Hz")


def _loud() -> Tensor:
    return (1e3 * signal(SAMPLE_RATE)).clamp(-1, 1)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().cpu().flatten() for tensor in tensors])


def _heard(upstream: Upstream, seed: int, samples: int = SAMPLE_RATE) -> Tensor:
    """Return all features of a signal, as one vector; `seed` is that of whatever is drawn meanwhile."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _flat(states(upstream, [signal(samples)])).nan_to_num()


def _answer(upstream: Upstream, samples: int) -> tuple[bool, str, str]:
    """Return whether the answer to so short a waveform is clear, what it was, and the words of an error."""
    try:
        found = states(upstream, [signal(samples)])
    except Exception as error:  # which error is the upstream's choice
        words = str(error).strip()
        return bool(words), type(error).__name__, words.splitlines()[0][:100] if words else "an error without a word"
    if not all(bool(tensor.isfinite().all()) for tensor in found):
        return False, "NaN or infinite", ""
    return True, f"{found[0].shape[1]} frames", ""


def _plain_tensors(upstream: Upstream) -> Iterator[tuple[str, str]]:
    """Yield module and attribute of floating-point tensors that are neither weights nor buffers, nor made of them."""
    for name, module in upstream.named_modules():
        for key, value in vars(module).items():
            # Weight and spectral normalisation, and pruning, compute `key` anew from these in each pass.
            made = any(f"{key}{end}" in module._parameters for end in ("_g", "_orig"))
            if isinstance(value, Tensor) and value.is_floating_point() and not made:
                yield name, key


def _moved(upstream: Upstream) -> float:
    """Return the relative norm of what differs on the GPU; infinite where the output isn't there."""
    wav = signal(SAMPLE_RATE)
    here = _flat(states(upstream, [wav]))
    try:
        there = states(upstream.to("cuda"), [wav.to("cuda")])
    finally:
        upstream.to("cpu")
    if not all(tensor.is_cuda for tensor in there):
        return float("inf")
    return float((_flat(there) - here).norm() / here.norm().clamp_min(1e-30))
