"""The one error that people are meant to read, and the near misses that make it helpful."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can fix: one sentence that names what was found, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of `known`, or an empty string where nothing is near."""
    # One wrong letter of two leaves half of them right.
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6 if len(name) > 3 else 0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
