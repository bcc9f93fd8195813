"""A pytest plugin, active where superb-eval is installed: packages check their upstreams in their own tests.

def test_contract(keeps_contract):
    keeps_contract(MyEncoder())                 # an object as it is, frozen and in evaluation mode
    keeps_contract("my_package/encoder.py:MyEncoder@weights.pt")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from torch import nn


class KeepsContract(Protocol):
    """Fails the test, with the whole report, where an upstream breaks a rule."""

    def __call__(self, upstream: str | nn.Module, *, but: tuple[str, ...] = ()) -> None:
        """Check an upstream by address or as an object; rules named in `but` may be broken."""


@pytest.fixture(scope="session")
def keeps_contract() -> KeepsContract:
    """Return a function that checks an upstream against the contract of superb-eval."""

    def assert_keeps_contract(upstream: str | nn.Module, *, but: tuple[str, ...] = ()) -> None:
        from upstreams.contract.check import check, render, resolve_upstream

        findings = check(resolve_upstream(upstream))
        if any(not finding.passed and finding.rule not in but for finding in findings):
            pytest.fail(render(findings), pytrace=False)

    return assert_keeps_contract
