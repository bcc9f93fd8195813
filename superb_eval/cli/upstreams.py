"""The commands about upstreams: `upstream list`, `show`, `check`, `new`, and `quick`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.new_upstream import new
from superb_eval.cli.options import Jobs, MaxGb, Out, Resume, TasksOrAll
from superb_eval.cli.sections import EVALUATE
from superb_eval.cli.show_upstream import upstream_show
from superb_eval.errors import UserError
from superb_eval.runtime import supervision
from superb_eval.runtime.screen import show

if TYPE_CHECKING:
    from upstreams.base import Card

QUICK_BASELINES = ("fbank_nonorm", "distilhubert_mini")
"""What `quick` runs beside the upstream; differences are from the first."""

QUICK_NOTE = (
    "A first picture: the smallest synthetic corpus, heads trained for seconds, few test units.\n"
    "ASR and SF show that they run, no more: no head learns to write from two dozen sentences.\n"
    "Differences marked ≠ are distinguishable; the others are inconclusive at this size. "
    "Next: superb-eval suite -u NAME --tasks all"
)

ADDRESSES = """\
Other addresses: a file of weights, a folder of transformers, ORG/MODEL of the hub: `upstream show` states what each is.
By kind: NAME@CHECKPOINT, NAME@random, hf:FOLDER, checkpoint:FILE, torchaudio:BUNDLE, s3prl:NAME[@CHECKPOINT],
units:FILE, FILE.py:Class[@CHECKPOINT]"""


def register(app: typer.Typer, upstream_app: typer.Typer) -> None:
    """Add the commands to the command line."""
    upstream_app.command("list", cls=LenientCommand)(names)
    upstream_app.command("show", cls=LenientCommand)(upstream_show)
    upstream_app.command("check", cls=LenientCommand)(check)
    upstream_app.command("new", cls=LenientCommand)(new)
    app.command(cls=LenientCommand, rich_help_panel=EVALUATE)(quick)


def names() -> None:
    """List upstreams by name, with sizes and where their weights are from, and the other kinds of address."""
    from upstreams import registry

    own = registry.cards()
    rows = [("name", "hidden states, size", "weights", "what it is")]
    rows += [(card.name, _size(card), _weights(card), card.summary) for card in own]
    others = sorted(set(registry.names()) - {card.name for card in own})
    rows += [(name, "", "", registry.card(name).summary) for name in others]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        show("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    show(f"\n{ADDRESSES}")


def _size(card: Card) -> str:
    layers = f"{card.layers} x {card.width}"
    return f"{layers}, {card.parameters / 1e6:.1f} M" if card.parameters else layers


def _weights(card: Card) -> str:
    """Return in words where the weights are from."""
    from upstreams import registry

    if not card.parameters:
        return "no weights"
    source = registry.weights_source(card.name)
    if source is None:
        return "none: @CHECKPOINT, @random"
    return "included" if Path(source).exists() else f"downloaded: {source}"


def check(
    address: Annotated[str, typer.Argument(metavar="NAME", help="an upstream's address")],
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="measure speed and memory beside HuBERT Base with random weights")
    ] = True,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="ends the check of your own FILE.py:Class that takes longer")
    ] = 3600,
    max_gb: MaxGb = None,
) -> None:
    """Check that an upstream keeps the contract: a line for each rule, and which tasks a broken one affects, and how.

    From Python: superb_eval.check_upstream. In a package's own tests: the pytest fixture keeps_contract.

    \b
    superb-eval upstream check hubert@random
    superb-eval upstream check path/to/file.py:MyEncoder --no-cost
    """
    del max_gb  # set by its callback
    from superb_eval.analysis.upstream_check import check_upstream

    with supervision.limited_to(timeout):
        report = check_upstream(address, cost)
    show(report)
    if report.broken:
        raise UserError(f"{address} breaks {len(report.broken)} of {len(report.findings)} rules; see above.")


def quick(
    name: Annotated[str, typer.Argument(metavar="NAME", help="an upstream's address")],
    tasks: TasksOrAll = "all",
    out: Out = Path("quick"),
    jobs: Jobs = None,
    max_gb: MaxGb = None,
    resume: Resume = False,
) -> None:
    """Get a first picture of an upstream in minutes: ten tiny tasks, FBANK and distilhubert_mini beside it.

    It ends in the table with intervals, and OUT/report.html. The corpus is the smallest embedded one and training is
    cut short, so the intervals are wide: it shows what works and what is far off; small differences stay inconclusive.

    \b
    superb-eval quick path/to/file.py:MyEncoder
    superb-eval quick hubert_mini --tasks ks,pr,sid
    """
    del resume, max_gb  # the one is what it does anyway, the other is set by its callback
    from superb_eval.cli import results, suite
    from superb_eval.report import page
    from superb_eval.results.table.build import TableOptions
    from superb_eval.runtime.progress import TerminalProgress
    from upstreams import registry

    registry.load(name)  # one that can't be opened is refused before the baselines run
    upstreams, failure = ",".join(dict.fromkeys([*QUICK_BASELINES, name])), None
    try:
        suite.suite(upstreams, tasks, profile="nano", out=out, jobs=jobs)
    except (UserError, SystemExit) as error:  # the runs that finished are worth a look
        failure = error
    if any(out.glob("*/*/*/result.json")):
        reference = QUICK_BASELINES[0]
        results.table(out, against=reference)
        options = page.ReportOptions(TableOptions("strict", reference, ()), None, 0.0)  # no audio in it
        show(f"report: {page.write(out, out / 'report.html', options, TerminalProgress())}\n{QUICK_NOTE}")
    if failure is not None:
        raise failure
