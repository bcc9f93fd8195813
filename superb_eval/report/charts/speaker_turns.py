"""Draws who speaks when: a lane for each speaker, over the time of the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from downstreams.metrics import diarization
from superb_eval.data.manifest import Turn
from superb_eval.report import markup
from superb_eval.report.charts.figure import SERIES

WIDTH, LANE = 190.0, 9.0


def draw(texts: Sequence[str]) -> list[Markup] | None:
    """Return a drawing of each of some lists of turns, as predictions hold them; None where one can't be read."""
    try:
        lists = [diarization.turns_from_json(text) for text in texts]
    except (ValueError, TypeError, KeyError):
        return None
    end = max((turn.end for turns in lists for turn in turns), default=1.0)
    across = markup.linear(0.0, end, 0.0, WIDTH)
    return [_lanes(turns, across) for turns in lists]


def _lanes(turns: Sequence[Turn], across: Callable[[float], float]) -> Markup:
    speakers = sorted({str(turn.speaker) for turn in turns})
    parts = []
    for turn in turns:
        lane = speakers.index(str(turn.speaker))
        hint = markup.tag("title", f"{turn.start:.2f} to {turn.end:.2f} s")
        size = {"width": max(1.0, across(turn.end) - across(turn.start)), "height": LANE - 2}
        parts.append(
            markup.tag("rect", hint, x=across(turn.start), y=lane * LANE, class_=f"turn s{lane % SERIES + 1}", **size)
        )
    height = max(1, len(speakers)) * LANE
    kind = {"viewBox": f"0 0 {markup.number(WIDTH)} {markup.number(height)}", "width": WIDTH, "height": height}
    label = f"{len(turns)} turns of {len(speakers)} speakers"
    return markup.tag("svg", *parts, role="img", aria_label=label, **kind)
