"""The rules about running: identical results each time, on any input, in any precision, on any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from upstreams.base import SAMPLE_RATE, Upstream
from upstreams.contract.findings import Finding, original_error
from upstreams.contract.test_signals import signal, states
from upstreams.loading.network_building import one_line

LARGEST = 65_504.0
"""What a 16-bit float can hold."""

RATE_NAMES = ("sample_rate", "sampling_rate", "samplerate", "sr", "fs")
"""Names of modules' attributes that state their sampling rate in Hz."""

TOO_SHORT, SHORT = (1, 100, 399), (800, 4_000, 8_000)
"""Samples: less than a window, which may be refused with a message; and words of 0.05 to 0.5 s, which may not."""

GPU_LIMIT = 1e-2
"""Relative norm between CPU and GPU; TF32 products differ by about 1e-3."""


def evaluation(upstream: Upstream) -> Iterator[Finding]:
    """The upstream is in evaluation mode, and nothing in it is random."""
    first, other, again = (_all_features(upstream, seed) for seed in (0, 1, 0))
    random = not torch.equal(first, other) and torch.equal(first, again)  # otherwise it is a fault of `state`
    measured = ("differing" if random else "equal") + f" outputs, {'training' if upstream.training else 'eval'} mode"
    active = sum(module.training for module in upstream.modules() if isinstance(module, nn.modules.dropout._DropoutNd))
    note = f"{active} dropout layers are on" if active else ""
    if random:
        note = "dropout is on, or something else is random"
    passed = not random and not upstream.training
    yield Finding("evaluation", passed, measured, "equal outputs, eval mode", note)


def state(upstream: Upstream) -> Iterator[Finding]:
    """Earlier forward passes change neither the output nor the weights and buffers."""
    before = {name: tensor.clone() for name, tensor in upstream.state_dict().items()}
    first = _all_features(upstream, 0)
    _all_features(upstream, 0, samples=3 * SAMPLE_RATE)
    same = torch.equal(first, _all_features(upstream, 0))
    changed = [name for name, tensor in upstream.state_dict().items() if not torch.equal(tensor, before[name])]
    measured = f"{'equal' if same else 'differing'} outputs after another utterance, {len(changed)} tensors changed"
    yield Finding("state", same and not changed, measured, "equal, 0", f"such as {changed[0]}" if changed else "")


def gradients(upstream: Upstream) -> Iterator[Finding]:
    """No weight and no output requires a gradient."""
    with torch.enable_grad():
        hidden = upstream([signal(SAMPLE_RATE)])["hidden_states"]
    weights = sum(p.requires_grad for p in upstream.parameters())
    outputs = sum(tensor.requires_grad for tensor in hidden)
    yield Finding("gradients", weights + outputs == 0, f"required by {weights} weights, {outputs} outputs", "none")


def finite(upstream: Upstream) -> Iterator[Finding]:
    """Digital silence, and clipped full-scale noise, give finite features."""
    for rule, wav in (("silence", torch.zeros(SAMPLE_RATE)), ("loud", _loud())):
        values = _flat(states(upstream, [wav]))
        bad = int((~values.isfinite()).sum())
        yield Finding(rule, bad == 0, f"{bad} of {values.numel()} values NaN or infinite", "0")


def half(upstream: Upstream) -> Iterator[Finding]:
    """Features fit in 16 bits when stored, and are finite in bfloat16 arithmetic."""
    plain, loud = (_flat(states(upstream, [wav])).float() for wav in (signal(SAMPLE_RATE), _loud()))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _flat(states(upstream, [signal(SAMPLE_RATE)])).float()
    extremes = torch.cat([plain, loud])
    largest = float(extremes[extremes.isfinite()].abs().max()) if extremes.isfinite().any() else float("nan")
    bad = int((~plain.isfinite()).sum() + (~rounded.isfinite()).sum())
    off = float((rounded - plain).norm() / plain.norm().clamp_min(1e-30))
    measured = f"largest value {largest:.3g}, {bad} NaN or infinite, bf16 differs by {off:.1e}"
    yield Finding("half precision", largest < LARGEST and bad == 0, measured, f"{LARGEST:,.0f}, 0")


def short(upstream: Upstream) -> Iterator[Finding]:
    """Short words give finite frames; less than one window may raise an error with a message instead."""
    outcomes = {samples: _short_outcome(upstream, samples) for samples in (*TOO_SHORT, *SHORT)}
    measured = ", ".join(f"{samples} samples: {outcome}" for samples, (_, outcome, _) in outcomes.items())
    message = next((outcomes[samples][2] for samples in (*SHORT, *TOO_SHORT) if outcomes[samples][2]), "")
    passed = all(clear and not (text and samples in SHORT) for samples, (clear, _, text) in outcomes.items())
    limit = f"finite frames from {SHORT[0]} on; below, those or an error with a message"
    yield Finding("short", passed, measured, limit, message)


def device(upstream: Upstream) -> Iterator[Finding]:
    """Output is on the input's device; a GPU gives the same features, and every tensor is moved with the module."""
    unmoved = sorted(f"{name}.{key}".lstrip(".") for name, key in _unregistered_tensors(upstream))
    devices = {str(tensor.device) for tensor in states(upstream, [signal(SAMPLE_RATE)])}
    passed, measured = not unmoved and devices == {"cpu"}, f"CPU in, {', '.join(sorted(devices))} out"
    note = f".to(device) leaves {', '.join(unmoved)} behind: register_buffer moves them" if unmoved else ""
    if torch.cuda.is_available() and passed:
        off = _gpu_difference(upstream)
        passed, measured = off <= GPU_LIMIT, f"{measured}; on the GPU {off:.1e} relative norm"
    elif passed:
        measured += "; no GPU here to move to"
    yield Finding("device", passed, measured, f"the same device, {GPU_LIMIT:.0e}", note)


def rate(upstream: Upstream) -> Iterator[Finding]:
    """Every stated sampling rate is 16 kHz, or one that a `Resample` inside converts to."""
    attributes = [(type(m).__name__, vars(m)) for m in upstream.modules()]
    inputs = {(kind, v["orig_freq"], v["new_freq"]) for kind, v in attributes if {"orig_freq", "new_freq"} <= v.keys()}
    accepted = {SAMPLE_RATE, *(new for _, old, new in inputs if old == SAMPLE_RATE)}
    stated = {(kind, v[key]) for kind, v in attributes for key in RATE_NAMES if isinstance(v.get(key), int | float)}
    stated |= {(kind, old) for kind, old, _ in inputs}
    wrong = sorted(f"{kind} is set to {value:g} Hz" for kind, value in stated if value not in accepted)
    yield Finding("rate", not wrong, ", ".join(wrong) or "no other rate stated", f"{SAMPLE_RATE} Hz")


def _loud() -> Tensor:
    return (1e3 * signal(SAMPLE_RATE)).clamp(-1, 1)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().cpu().flatten() for tensor in tensors])


def _all_features(upstream: Upstream, seed: int, samples: int = SAMPLE_RATE) -> Tensor:
    """Return all features of a signal, as one vector; `seed` is set before the pass."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _flat(states(upstream, [signal(samples)])).nan_to_num()


def _short_outcome(upstream: Upstream, samples: int) -> tuple[bool, str, str]:
    """Return whether so short a waveform is handled clearly, the outcome, and the message of an error."""
    try:
        hidden = states(upstream, [signal(samples)])
    except Exception as error:  # which error is the upstream's choice
        original = original_error(error)
        text, kind = one_line(original), type(original).__name__
        clear = text != kind
        return clear, kind, text[:100] if clear else "an error without a message"
    if not all(bool(tensor.isfinite().all()) for tensor in hidden):
        return False, "NaN or infinite", ""
    return True, f"{hidden[0].shape[1]} frames", ""


def _unregistered_tensors(upstream: Upstream) -> Iterator[tuple[str, str]]:
    """Yield module and attribute of floating-point tensors that aren't weights, buffers or computed from them."""
    for name, module in upstream.named_modules():
        for key, value in vars(module).items():
            # Weight and spectral normalisation, and pruning, compute `key` from these in each pass.
            computed = any(f"{key}{end}" in module._parameters for end in ("_g", "_orig"))
            if isinstance(value, Tensor) and value.is_floating_point() and not computed:
                yield name, key


def _gpu_difference(upstream: Upstream) -> float:
    """Return the relative norm of the difference on the GPU; infinite where the output isn't on it."""
    wav = signal(SAMPLE_RATE)
    on_cpu = _flat(states(upstream, [wav]))
    try:
        on_gpu = states(upstream.to("cuda"), [wav.to("cuda")])
    finally:
        upstream.to("cpu")
    if not all(tensor.is_cuda for tensor in on_gpu):
        return float("inf")
    return float((_flat(on_gpu) - on_cpu).norm() / on_cpu.norm().clamp_min(1e-30))
