"""Linear centred kernel alignment: how similar two representations of the same utterances are.

Kornblith et al. 2019 (arXiv 1905.00414), section 3: with a linear kernel CKA is the cosine of two centred Gram
matrices. It is 1 for representations that differ by a rotation and a scale alone, and doesn't depend on the
order of dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def linear_cka(ours: Array, theirs: Array) -> Array:
    """Return the CKA [our layers, their layers] of [units, layers, dim] and [units, layers, another dim].

    NaN where a layer is constant over units.

    Raises:
        ValueError: the two don't describe as many units.
    """
    a, b = _paired(ours, theirs)
    with np.errstate(invalid="ignore"):
        return np.clip(_unit_length(a) @ _unit_length(b).T, 0.0, 1.0)


def by_chance(ours: Array, theirs: Array) -> Array:
    """Return the CKA [our layers, their layers] to expect if one side's units were permuted at random.

    It is well above 0 where there are few units for many dimensions: only what lies above it is similarity. It is the
    exact mean over all permutations of units, tr(K) tr(L) / ((n - 1) |K| |L|) for centred Gram matrices K and L, since
    a permuted centred matrix has its trace on the diagonal and the rest, which sums to minus the trace, off it.
    """
    a, b = (_traces(grams) for grams in _paired(ours, theirs))
    return np.outer(a, b) / max(1, len(ours) - 1)


def _paired(ours: Array, theirs: Array) -> tuple[Array, Array]:
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} units can't be compared one by one")
    return _grams(ours), _grams(theirs)


def _grams(values: Array) -> Array:
    """Centred Gram matrices [layers, units * units]: units x units, so that 768 dimensions cost no more than 80."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    return np.stack([(layer @ layer.T).ravel() for layer in centred.transpose(1, 0, 2)])


def _unit_length(grams: Array) -> Array:
    lengths = np.linalg.norm(grams, axis=1, keepdims=True)
    found: Array = np.divide(grams, lengths, out=np.full_like(grams, np.nan), where=lengths > 0)
    return found


def _traces(grams: Array) -> Array:
    units = round(grams.shape[1] ** 0.5)
    found: Array = _unit_length(grams).reshape(-1, units, units).trace(axis1=1, axis2=2)
    return found
