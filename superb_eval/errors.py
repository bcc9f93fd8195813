"""The one error that people are meant to read, and the near misses that make it helpful."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """A mistake the user can fix: one sentence that names what was found, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class OwnCodeError(UserError):
    """An error in the user's own code, which its cause shows with its lines: a run's log has them."""


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return names separated by commas: the first `most` of them, long ones cut, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(name, 80) for name in names[:most]) + more


def shortened(text: str, most: int = 500) -> str:
    """Return a text of at most `most` characters: of a longer one the beginning, and how long it is."""
    return text if len(text) <= most else f"{text[: most - 30]}... ({len(text)} characters)"


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of `known`, or an empty string where nothing is near."""
    close = nearest(name, known)
    return f" Did you mean '{close}'?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the nearest of `known`, or an empty string where nothing is near."""
    known = list(known)
    # One wrong letter of two leaves half of them right.
    cutoff = 0.6 if len(name) > 3 else 0.5
    close = same_names(name, known) or difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return close[0] if close else ""


def same_names(name: str, known: Iterable[str]) -> list[str]:
    """Return those of `known` that differ from a name in case, or in hyphens for underscores, alone."""
    return [other for other in known if _plain(other) == _plain(name)]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")
