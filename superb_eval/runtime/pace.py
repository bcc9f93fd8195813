"""How long a step still takes, by the pace of its recent part; and durations as text."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import NamedTuple

RECENT = 0.5
"""Share of the time so far whose pace counts: long enough to hold evaluations, and a slow start is soon over."""

LEAST_UNITS, LEAST_SHARE = 10, 0.1
"""So many units, or this share of them where that is less, make an estimate: single ones differ."""

SAMPLED = 0.01
"""Share of the time so far between two samples of the progress at least, so that there are few of them."""


class _Sample(NamedTuple):
    time: float
    done: int


class Pace:
    """The pace of a step. The first update is no measure of it: libraries are loaded and functions compiled in it."""

    def __init__(self, started: float) -> None:
        self.started = started
        self._samples: deque[_Sample] = deque()
        self._first: _Sample | None = None
        self._latest: _Sample | None = None

    def update(self, done: int, now: float) -> None:
        """Take account of the units done at a time."""
        if self._latest is not None and done == self._latest.done:
            return
        self._latest, elapsed = _Sample(now, done), now - self.started
        self._first = self._first or self._latest
        if not self._samples or now - self._samples[-1].time >= SAMPLED * elapsed:
            self._samples.append(self._latest)
        while len(self._samples) > 2 and self._samples[1].time <= now - RECENT * elapsed:
            self._samples.popleft()

    def seconds_left(self, total: int, now: float) -> float | None:
        """Return an estimate of the seconds until `total` units are done; None as long as too few of them are."""
        if self._first is None or self._latest is None:
            return None
        if self._latest.done - self._first.done < min(LEAST_UNITS, LEAST_SHARE * (total - self._first.done)):
            return None
        first, latest = self._samples[0], self._latest
        each = (latest.time - first.time) / (latest.done - first.done)
        return max(0.0, each * (total - latest.done) - (now - latest.time))


def duration(seconds: float) -> str:
    """Return a duration as text, such as `45 s`, `2.5 min`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.{0 if seconds > 597 else 1}f} min"
    return f"{seconds / 3600:.1f} h"


def time_left(seconds: float | None, clock: datetime | None = None) -> str:
    """Return the time left and the finishing time as text, such as `about 12 min left, until 18:12`.

    `clock` is the time of day now; empty where the seconds are unknown.
    """
    if seconds is None:
        return ""
    clock = clock or datetime.now()
    end = clock + timedelta(seconds=seconds)
    day = "" if end.date() == clock.date() else f"{end:%a %d %b}, "
    return f"about {duration(seconds)} left, until {day}{end:%H:%M}"
