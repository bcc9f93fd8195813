"""Compares a run that was made again with its record: reproduced to the bit, or within the prediction interval.

A figure of a second training differs from the first by the spread between seeds, in both: the 95 % prediction interval
on the same test units is value ± t(df) · √2 · sd between seeds. Another processor's rounding counts like another seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from superb_eval.results import code_versions, platforms
from superb_eval.results.record import MetricRecord, RunRecord
from superb_eval.results.stats import training_spread
from superb_eval.results.stats.training_spread import TrainingSpread
from upstreams.loading import legacy_fingerprints

LEVEL = 0.95
"""Nominal coverage of a prediction interval."""

ROUNDING = 0.1
"""Percentage points that rounding may move a figure that nothing was trained for.

Measured: QbE of the embedded corpus on four upstreams, with four settings of vector instructions, had equal MTWV but
for once, where two trials next to each other changed places: 0.044 points, the share of one false alarm.
"""

Outcome = Literal["reproduced", "within", "unknown", "OUTSIDE", "FAILED"]

MEANINGS: dict[Outcome, str] = {
    "reproduced": "reproduced to the bit",
    "within": "within the prediction interval",
    "unknown": "without a prediction interval",
    "OUTSIDE": "outside the prediction interval",
    "FAILED": "that can't be made again",
}
"""What each outcome means, from the best to the worst."""


@dataclass(frozen=True)
class RerunResult:
    """The outcome of making one run again, with its reason; a run is as bad as the worst of its figures."""

    folder: Path
    outcome: Outcome
    message: str

    def faulty(self) -> bool:
        """Return whether the outcome is a fault of the record, or of what it was made from."""
        return self.outcome in ("OUTSIDE", "FAILED")

    def __str__(self) -> str:
        return f"{self.outcome} {self.folder}: {self.message}"


def summary(results: Sequence[RerunResult], asked: int) -> str:
    """Return in a sentence or two how many of the runs asked for were made again, and with which outcomes."""
    counts = Counter(result.outcome for result in results)
    outcomes = ", ".join(f"{counts[outcome]} {meaning}" for outcome, meaning in MEANINGS.items() if counts[outcome])
    fewer = " No more are of unchanged recipe, code, weights and data." if len(results) < asked else ""
    chance = " One figure in twenty lies outside by chance." if counts["OUTSIDE"] else ""
    return f"{len(results)} run(s) made again{f': {outcomes}' if outcomes else ''}.{fewer}{chance}"


def compare(folder: Path, recorded: RunRecord, again: RunRecord) -> RerunResult:
    """Compare a run with its record: predictions and figures to the bit, else each strict figure with its interval."""
    elsewhere = platforms.differences(platforms.of_record(recorded), platforms.of_record(again))
    changed = _changed_inputs(recorded, again, rounded_elsewhere=bool(elsewhere))
    if changed:
        return RerunResult(folder, "FAILED", f"its command runs something else now: {', '.join(changed)}")
    equal = recorded.predictions == again.predictions and _values(recorded) == _values(again)
    if equal and not elsewhere:
        figures = ", ".join(f"{metric.key} {metric.value:.2f}" for metric in recorded.metrics)
        return RerunResult(folder, "reproduced", f"{figures}: predictions and figures to the bit, on the same platform")
    outcomes = [_compare_figure(recorded, metric, again) for metric in recorded.metrics if metric.protocol == "strict"]
    worst: Outcome = next(outcome for outcome in reversed(MEANINGS) if outcome in {each for each, _ in outcomes})
    return RerunResult(folder, worst, f"{'; '.join(text for _, text in outcomes)}. {_reason(elsewhere)}")


def _changed_inputs(recorded: RunRecord, again: RunRecord, rounded_elsewhere: bool) -> list[str]:
    """Return the inputs that are no longer the record's; on another platform an upstream may round differently."""
    upstreams = [legacy_fingerprints.current(record.upstream.fingerprint) for record in (recorded, again)]
    identities = recorded.upstream.identity, again.upstream.identity
    rounding = platforms.only_rounding_differs(recorded.upstream.address, *identities)
    known_code = bool(recorded.code) and not code_versions.is_digest(recorded.code)
    changes = {
        "its upstream has changed": upstreams[0] != upstreams[1] and not (rounding and rounded_elsewhere),
        "its recipe has changed": recorded.recipe_digest != again.recipe_digest,
        "its corpus has changed": recorded.corpus.digest != again.corpus.digest,
        f"its code was {recorded.code}, is {again.code}": known_code and recorded.code != again.code,
    }
    return [change for change, happened in changes.items() if happened]


def _values(record: RunRecord) -> dict[tuple[str, str], float]:
    return {(metric.protocol, metric.key): metric.value for metric in record.metrics}


def _compare_figure(record: RunRecord, metric: MetricRecord, again: RunRecord) -> tuple[Outcome, str]:
    value = _values(again).get((metric.protocol, metric.key))
    if value is None:
        return "FAILED", f"{metric.key} is no longer a metric of the task"
    figures = f"{metric.key} {metric.value:.2f} recorded, {value:.2f} again ({value - metric.value:+.2f})"
    width = _half_width(record, metric.key)
    if width is None:
        return "unknown", f"{figures}: training variance unknown: no prediction interval"
    half, source = width
    outcome: Outcome = "within" if abs(value - metric.value) <= half else "OUTSIDE"
    interval = f"[{metric.value - half:.2f}, {metric.value + half:.2f}]"
    return outcome, f"{figures}, {MEANINGS[outcome]} {interval} ({source})"


def _half_width(record: RunRecord, key: str) -> tuple[float, str] | None:
    """Return half the width of a metric's prediction interval, and where it is from; None: nothing is known of it."""
    spread = training_spread.find(record, key)
    if spread is None:
        return None
    half = prediction_half_width(spread)
    if half == ROUNDING:
        return ROUNDING, f"{spread.source}: rounding alone"
    return half, f"sd {spread.seed_sd:.2f} between seeds, {spread.df:.0f} degrees of freedom, {spread.source}"


def prediction_half_width(spread: TrainingSpread) -> float:
    """Return half the width of the prediction interval of a second training: that of rounding at least."""
    from scipy.stats import t

    return max(ROUNDING, float(t.ppf((1 + LEVEL) / 2, spread.df)) * 2**0.5 * spread.seed_sd)


def _reason(elsewhere: Sequence[str]) -> str:
    if elsewhere:
        return f"On another platform, whose rounding counts like another seed: {', '.join(elsewhere)}"
    return (
        "On the same platform, but not to the bit: seeds or rates that trained together round differently from one "
        "alone; where none did, something is not deterministic"
    )
