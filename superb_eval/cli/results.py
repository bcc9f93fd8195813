"""The commands that read results: `table`, `verify`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import Historical, Published, RecordedData, Results, Trust
from superb_eval.cli.sections import COMPARE
from superb_eval.errors import UserError
from superb_eval.runtime.screen import show, show_rendered, visible

if TYPE_CHECKING:
    from superb_eval.results.table.result_table import ResultTable
    from superb_eval.results.verify import VerifyReport
    from superb_eval.results.verify_checks import Scope


ENDINGS: dict[str, Literal["markdown", "latex", "csv", "json"]] = {
    ".md": "markdown",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
}
"""The format that the name of a table's file ends with."""

MARK = re.compile(rb"(strict|historical) figures|published figures|\Atable,upstream,published,", re.IGNORECASE)
"""In the title of every table, or the first line of its CSV."""


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (table, verify):
        app.command(cls=LenientCommand, rich_help_panel=COMPARE)(command)


def table(
    results: Results = Path("results"),
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="reference row: differences, speed-up and % retained")
    ] = None,
    published: Published = "",
    historical: Historical = False,
    speakers: Annotated[
        Literal["new", "these"], typer.Option(help="intervals for new speakers, or for new utterances of these")
    ] = "new",
    format: Annotated[
        Literal["rich", "markdown", "latex", "csv", "json"] | None,
        typer.Option(help="rich: for a terminal; default: what FILE's ending names, such as .md or .tex, else rich"),
    ] = None,
    tasks: Annotated[str, typer.Option(metavar="TASK,...", help="columns, such as ks,sid; default: all")] = "",
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="best row first, by a column such as ks, 'asr cer' or mean")
    ] = "",
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="intervals and differences, or the figures alone")
    ] = True,
    wide: Annotated[
        bool | None,
        typer.Option("--wide/--compact", help="in a terminal: with intervals, or one line a row; default: what fits"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="file to write, rich tables in plain text; default: print"),
    ] = None,
) -> None:
    """Print upstreams x tasks with intervals, differences from a reference, and the direction of each metric.

    The reference comes first, the others follow from the largest to the smallest.

    Strict figures have everything chosen on dev. The published procedures of ASV, SD and QbE look at the test set:
    their historical figures are the ones to compare with the literature.

    Intervals hold for new speakers, and include the variance of training. Where that is unknown (one seed, and a recipe
    or corpus that ships none), nothing is called distinguishable: `suite --seeds 3` measures it.

    \b
    superb-eval table results/
    superb-eval table results/ --against hubert_mini --out table.md
    superb-eval table results/ --tasks pr,asr,ks --sort asr --no-intervals --format latex
    superb-eval table results/ --historical --published hubert_base,distilhubert
    superb-eval table --published all --against hubert_base
    """
    from superb_eval.results.formats import terminal
    from superb_eval.results.stats.resampling import NEW_SPEAKERS, THESE_SPEAKERS
    from superb_eval.results.table import build as tables
    from superb_eval.runtime import atomic_files, own_file
    from superb_eval.runtime.progress import TerminalProgress

    target = None if out is None else own_file.check(out, MARK, "table")
    wanted = tables.TableOptions(
        "historical" if historical else "strict",
        against,
        tuple(published.replace(",", " ").split()),
        THESE_SPEAKERS if speakers == "these" else NEW_SPEAKERS,
        tuple(tasks.replace(",", " ").split()),
        sort,
        intervals,
    )
    found, left_out = tables.collect(results, wanted, TerminalProgress())
    form = format or (ENDINGS.get(out.suffix.lower()) if out else None) or "rich"
    text = terminal.text(found, wide, out is not None) if form == "rich" else _formatted(found, left_out, form)
    if target is None:
        show_rendered(text) if form == "rich" else show(text, end="")
    else:
        atomic_files.write_text(target, text)
    for problem in left_out:
        show(f"left out: {visible(problem)}", error=True)


def _formatted(tables: list[ResultTable], left_out: list[str], format: str) -> str:
    from superb_eval.results.formats import tabular
    from superb_eval.results.formats.latex import latex
    from superb_eval.results.formats.markdown import markdown

    if format == "json":
        return tabular.as_json(tables, left_out) + "\n"
    if format == "csv":
        return tabular.as_csv(tables)
    return "\n\n".join(map(markdown if format == "markdown" else latex, tables)) + "\n"


def verify(
    results: Results = Path("results"),
    data: RecordedData = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="leave out what reads weights and audio: upstreams and corpora")
    ] = False,
    again: Annotated[
        int, typer.Option(min=0, metavar="N", help="make N runs again, chosen at random, and compare their figures")
    ] = 0,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="feature store for --again; an empty folder extracts features again, too"),
    ] = None,
    trust: Trust = None,
) -> None:
    """Score all predictions again, and name the runs that no longer match their recipe, code, weights or data.

    An upstream that is somebody's own code (FILE.py:Class) is run only where --trust names its file; without, the
    digests of its files are compared.

    --again N makes N runs again, in a temporary folder, by their recorded commands. Reproduced means to the bit, on the
    same processor, vector instructions, threads and versions. Elsewhere rounding counts like another seed, and the new
    figure is to lie in the 95 % prediction interval: value ± t * sqrt(2) * sd between seeds.

    \b
    superb-eval verify results/
    superb-eval verify results/ --data /path/to/corpora
    superb-eval verify results/ --again 2
    superb-eval verify results/ --trust my_encoder.py
    """
    from superb_eval.results import verify as verification
    from superb_eval.results.verify_checks import Scope
    from superb_eval.runtime.progress import TerminalProgress

    scope = Scope(data, quick, tuple(trust or ()))
    report = verification.verify(results, scope, TerminalProgress())
    for finding in report.findings:
        show(visible(str(finding)))
    show(report.summary())
    faulty = report.faulty_folders() | (_run_again(results, report, again, scope, store) if again else set())
    if faulty:
        raise UserError(f"{results}: {len(faulty)} of {report.checked} run(s) don't hold; see above.")


def _run_again(results: Path, report: VerifyReport, count: int, scope: Scope, store: Path | None) -> set[Path]:
    """Make runs again, print how they compare with their records, and return the folders of those that don't hold."""
    from superb_eval.results import verify_reruns
    from superb_eval.results.folder import open_results
    from superb_eval.runs import rerun
    from superb_eval.runtime.progress import TerminalProgress

    runs = rerun.repeatable(open_results(results).finished, report.findings)
    reruns = []
    for result in rerun.rerun_all(rerun.choose(runs, count), scope.data, store, TerminalProgress(), scope.trusted):
        show(visible(str(result)), flush=True)
        reruns.append(result)
    show(verify_reruns.summary(reruns, asked=count))
    return {result.folder for result in reruns if result.faulty()}
