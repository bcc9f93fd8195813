"""A view that shows nothing and records its events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from superb_eval.suite.events import Event, EventHandler, Failed, Finished, SuiteOutcome
from superb_eval.suite.run import OpenView


def recording(events: list[Event]) -> OpenView:
    """Return a view whose events are appended to `events`."""

    def open_view(outcome: SuiteOutcome, total: int) -> AbstractContextManager[EventHandler]:
        return _recorded(events, outcome)

    return open_view


@contextmanager
def _recorded(events: list[Event], outcome: SuiteOutcome) -> Iterator[EventHandler]:
    def handle(event: Event) -> None:
        events.append(event)
        if isinstance(event, Finished):
            outcome.finished.append(event)
        if isinstance(event, Failed):
            outcome.failed.append(event)

    yield handle
