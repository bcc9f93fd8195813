"""Checks whether an upstream keeps the contract: `check` returns a finding for each rule of `upstreams.contract`.

The rules are those of `upstreams.base`: the card is correct, an utterance's frames depend only on the utterance,
evaluation is deterministic, and there are no gradients. It is a plain function, so that another package's
tests can assert `all(finding.passed for finding in check(upstream))`; `upstreams.contract.pytest_plugin` is for pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from upstreams import registry
from upstreams.base import SAMPLE_RATE, Upstream, freeze
from upstreams.contract import frames, running
from upstreams.contract.findings import Finding, original_error, render
from upstreams.contract.frames import leakage
from upstreams.contract.test_signals import signal, states
from upstreams.loading import adapters
from upstreams.loading.network_building import one_line

__all__ = ["RULES", "Finding", "check", "leakage", "render", "resolve_upstream", "signal"]

Rule = Callable[[Upstream], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    *(frames.card, frames.axes, frames.shapes, frames.frames, frames.long, running.rate, frames.batch),
    *(running.evaluation, running.state, running.gradients, running.finite, running.half, running.short),
    running.device,
)

NAMES = {"batch": "batch invariance", "half": "half precision", "finite": "silence"}
"""The name of a rule's first finding, where it differs from the function's."""


def check(upstream: Upstream) -> list[Finding]:
    """Check an upstream against every rule of the contract, as it is: neither frozen nor put in evaluation mode.

    A rule whose forward pass fails counts as broken, with the error as the measured value; where no forward pass works
    at all, that is the only finding. HuBERT Base takes about a minute on two slow cores, with its historical variant.
    """
    failure = _forward_failure(upstream)
    if failure is not None:
        return [failure]
    findings: list[Finding] = []
    for rule in RULES:
        try:
            findings += rule(upstream)
        except Exception as error:  # a user's model may raise anything
            name, message = NAMES.get(rule.__name__, rule.__name__), _in_words(error)
            findings.append(Finding(name, False, message, "a forward pass"))
    return findings


def resolve_upstream(upstream: str | nn.Module) -> Upstream:
    """Return the upstream to check: loaded from an address, adapted from a plain module, or an `Upstream` unchanged.

    Raises:
        UserError: it can't be loaded, or returns no hidden states.
    """
    if isinstance(upstream, str):
        return registry.load(upstream)
    if isinstance(upstream, Upstream):
        return upstream
    return freeze(adapters.from_object(upstream, type(upstream).__name__))


def _forward_failure(upstream: Upstream) -> Finding | None:
    """Return the finding for a forward pass on 1 s of audio on the CPU that fails; None: it works."""
    try:
        states(upstream, [signal(SAMPLE_RATE)])
    except Exception as error:  # a user's model may raise anything
        words = _in_words(error)
        gpu = any(word in words for word in ("CUDA", "cuda", "NVIDIA", "same device"))
        note = "it needs a GPU: create tensors with device=wav.device, and leave .cuda() out" if gpu else ""
        return Finding("device" if gpu else "forward", False, words, "a forward pass on the CPU", note)
    return None


def _in_words(error: Exception) -> str:
    original = original_error(error)
    return f"{type(original).__name__}: {one_line(original)}"
