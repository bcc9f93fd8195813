"""Does an upstream keep the contract? `check` tries every rule of `upstreams.contract`, a finding for each.

The rules are those of `upstreams.base`: what the card says holds, an utterance's frames depend on nothing but the
utterance, evaluation is deterministic, and no gradient comes near. It is a plain function, so that another package's
tests can assert `all(finding.passed for finding in check(upstream))`; `upstreams.contract.pytest_plugin` is for pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from upstreams import registry
from upstreams.base import SAMPLE_RATE, Upstream, freeze
from upstreams.contract import frames, running
from upstreams.contract.findings import Finding, render
from upstreams.contract.frames import leakage
from upstreams.contract.test_signals import signal, states
from upstreams.loading import adapters

__all__ = ["RULES", "Finding", "check", "leakage", "opened", "render", "signal"]

Rule = Callable[[Upstream], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    *(frames.card, frames.axes, frames.shapes, frames.frames, frames.long, running.rate, frames.batch),
    *(running.evaluation, running.state, running.gradients, running.finite, running.half, running.short),
    running.device,
)

NAMES = {"batch": "batch invariance", "half": "half precision", "finite": "silence"}
"""What a rule's first finding is called, where it isn't called as its function."""


def check(upstream: Upstream) -> list[Finding]:
    """Try an upstream against every rule of the contract, as it stands: it is neither frozen nor put in eval mode.

    A rule whose forward pass fails counts as broken, with the error as what was measured; where no forward pass works
    at all, that is the only finding. HuBERT Base takes about a minute on two slow cores, its historical sibling
    included.
    """
    fatal = _fatal(upstream)
    if fatal is not None:
        return [fatal]
    findings: list[Finding] = []
    for rule in RULES:
        try:
            findings += rule(upstream)
        except Exception as error:  # somebody's model may raise anything
            name, told = NAMES.get(rule.__name__, rule.__name__), f"{type(error).__name__}: {error}"
            findings.append(Finding(name, False, told, "a forward pass"))
    return findings


def opened(upstream: str | nn.Module) -> Upstream:
    """Return what is to be checked: an address is opened, a plain module adapted and frozen, an `Upstream` left alone.

    Raises:
        UserError: it can't be opened, or gives nothing that can be taken for hidden states.
    """
    if isinstance(upstream, str):
        return registry.load(upstream)
    if isinstance(upstream, Upstream):
        return upstream
    return freeze(adapters.from_object(upstream, type(upstream).__name__))


def _fatal(upstream: Upstream) -> Finding | None:
    """Return why no forward pass works on 1 s of sound on the CPU, if none does."""
    try:
        states(upstream, [signal(SAMPLE_RATE)])
    except Exception as error:  # somebody's model may raise anything
        words = f"{type(error).__name__}: {str(error).strip() or 'without a word'}"
        gpu = any(word in words for word in ("CUDA", "cuda", "NVIDIA", "same device"))
        note = "it wants a GPU: make new tensors with device=wav.device, and leave .cuda() out" if gpu else ""
        return Finding("device" if gpu else "forward", False, words.splitlines()[0], "a forward pass on the CPU", note)
    return None
