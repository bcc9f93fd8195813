"""The report on an upstream: its card, every rule of the contract, and what it costs beside HuBERT Base."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from superb_eval.analysis import cost as costs
from superb_eval.analysis.cost import Cost
from upstreams.base import Card
from upstreams.contract.check import Finding, check, render, resolve_upstream

BASELINE = "hubert@random"
SECONDS, ROUNDS = 2.0, 5
"""Length of the utterance, and how often each is timed."""


@dataclass(frozen=True)
class ContractReport:
    """What the rules found of one upstream. As text it is what `superb-eval upstream check` prints."""

    card: Card
    findings: tuple[Finding, ...]
    costs: tuple[Cost, ...] = ()

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The rules that don't hold."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def __str__(self) -> str:
        about = f"{self.card.name}: {self.card.summary}"
        notes = [f"  note: {note}" for note in self.card.notes]
        cost = ["", costs.render(self.costs)] if self.costs else []
        return "\n".join([about, *notes, render(self.findings), *cost])


def check_upstream(upstream: str | nn.Module, cost: bool = False) -> ContractReport:
    """Check an upstream against every rule of the contract.

    Args:
        upstream: its address, or the object itself: an `Upstream` as it stands, or a module to adapt and freeze.
        cost: measure speed and memory too, beside HuBERT Base with random weights; only by address.

    Raises:
        UserError: it can't be opened, or gives nothing that can be taken for hidden states.
    """
    resolved = resolve_upstream(upstream)
    findings = tuple(check(resolved))
    runs = all(finding.rule not in {"forward", "device"} or finding.passed for finding in findings)
    if not (cost and runs and isinstance(upstream, str)):
        return ContractReport(resolved.card, findings)
    return ContractReport(
        resolved.card, findings, tuple(costs.measure([BASELINE, upstream], seconds=SECONDS, rounds=ROUNDS))
    )
