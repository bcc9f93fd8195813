"""A board that shows nothing, and keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from superb_eval.suite.events import Event, Failed, Finished, SuiteOutcome, Tell
from superb_eval.suite.run import Shown


def keeping(told: list[Event]) -> Shown:
    """Return a board whose events go into `told`."""

    def show(outcome: SuiteOutcome, total: int) -> AbstractContextManager[Tell]:
        return _kept(told, outcome)

    return show


@contextmanager
def _kept(told: list[Event], outcome: SuiteOutcome) -> Iterator[Tell]:
    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, Finished):
            outcome.finished.append(event)
        if isinstance(event, Failed):
            outcome.failed.append(event)

    yield tell
