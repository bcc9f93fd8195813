"""A first picture of an upstream: what `superb-eval quick` puts beside it, says of it and draws."""

from __future__ import annotations

from pathlib import Path

from superb_eval.runtime.progress import Progress

BESIDE = ("fbank_nonorm", "distilhubert_mini")
"""What the upstream stands between; differences are from the first."""

NOTE = (
    "A first picture: the smallest synthetic corpus, heads trained for seconds, few test units.\n"
    "ASR and SF show that they run, no more: no head learns to write from two dozen sentences.\n"
    "Differences marked ≠ are there; the others can't be told at this size. Next: superb-eval suite -u NAME --tasks all"
)


def draw(results: Path, against: str, reporter: Progress) -> Path:
    """Write `results`/report.html, without clips to hear, and return its path.

    Raises:
        UserError: see `superb_eval.report.page.write`.
    """
    from superb_eval.report import page
    from superb_eval.results.table.build import Wanted

    asked = page.Asked(Wanted("strict", against, ()), None, 0.0)
    return page.write(results, results / "report.html", asked, reporter)
