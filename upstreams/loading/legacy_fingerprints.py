"""Legacy fingerprints of upstreams, so that features and results stored under them are still read.

They were a SHA-256 of an upstream's source, card and weights. `legacy_fingerprints.csv` lists those of the upstreams
whose weights this package fixes, computed with the locked versions of the libraries.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("legacy_fingerprints.csv")


def legacy(fingerprint: str) -> tuple[str, ...]:
    """Return the legacy fingerprints of the same features."""
    return tuple(old for old, new in _table().items() if new == fingerprint)


def current(fingerprint: str) -> str:
    """Return the current fingerprint for a legacy one; any other unchanged."""
    return _table().get(fingerprint, fingerprint)


@cache
def _table() -> dict[str, str]:
    """Return the current fingerprint by the legacy one."""
    with TABLE.open(newline="", encoding="utf8") as file:
        return {row["earlier"]: row["fingerprint"] for row in csv.DictReader(file)}
