"""How near two trainings come to each other whose arithmetic differs: in batches, in parts, on other processors.

Rounding differences of 1e-7 grow with each update: Adam moves a weight by the whole rate even where its gradient is
hardly more than rounding. So the first two updates are compared tightly (the second one's loss depends on the first
one's gradients), and what follows as far as any processor's rounding lets it. The same arithmetic, such as a resumed
training, gives the same bits: that is compared with ==.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

UPDATES = 2
"""Updates whose losses are compared tightly."""

LATER = 0.02
"""Relative difference of later losses, and of weights."""

STATES = 2e-5
"""Difference of hidden states, in parts of the largest value; 7e-6 in `make test-rounding`."""


def assert_near_losses(ours: Sequence[float], theirs: Sequence[float], rel: float = 1e-4) -> None:
    """Compare the losses of each update, from the first one whose arithmetic differs."""
    assert len(ours) == len(theirs) > UPDATES
    assert ours[:UPDATES] == pytest.approx(theirs[:UPDATES], rel=rel)
    assert ours == pytest.approx(theirs, rel=max(rel, LATER))


def assert_near_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Compare all weights of two networks together: the gradient of a key's bias in attention is rounding alone."""
    assert ours.keys() == theirs.keys()
    one, other = (torch.cat([weights[name].flatten() for name in theirs]) for weights in (ours, theirs))
    assert float((one - other).norm()) <= LATER * float(other.norm())


def assert_near_states(ours: Tensor, theirs: Tensor) -> None:
    """Compare hidden states [..., dim] of one network whose batches, or order of operations, differ.

    Every value is a sum over a layer, so its rounding goes with the largest one, not with itself.
    """
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=STATES * float(theirs.abs().max()))
