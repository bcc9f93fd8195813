"""Fingerprints that upstreams had before they were known by what they give, so that what was stored then is read.

Until then a fingerprint was a SHA-256 of an upstream's source, card and weights. `legacy_fingerprints.csv` lists those
of the upstreams whose weights this package fixes, as they came out with the locked versions of the libraries.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("legacy_fingerprints.csv")


def earlier(fingerprint: str) -> tuple[str, ...]:
    """Return the fingerprints under which the same features were known before."""
    return tuple(old for old, new in _table().items() if new == fingerprint)


def current(fingerprint: str) -> str:
    """Return today's fingerprint for one of before; any other as it is."""
    return _table().get(fingerprint, fingerprint)


@cache
def _table() -> dict[str, str]:
    """Return today's fingerprint by the earlier one."""
    with TABLE.open(newline="", encoding="utf8") as file:
        return {row["earlier"]: row["fingerprint"] for row in csv.DictReader(file)}
