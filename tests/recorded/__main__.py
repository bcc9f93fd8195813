"""Keeps the documents' figures equal to recorded runs.

    python -m tests.recorded collect RESULTS --set embedded --commit 1e6b11e --rename "hubert@/my/folder/cut=hubert@cut"
    python -m tests.recorded write

`collect` reads a results folder and writes `recipes/recorded/SET.runs.csv` and `SET.cells.csv`. `write` rewrites what
stands between `<!-- recorded: NAME -->` and `<!-- end -->` in the documents, from those files and
`tests/recorded/templates/NAME.md.j2`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from superb_eval.errors import UserError
from superb_eval.runtime.progress import TerminalProgress
from tests.recorded import collecting, pages

app = typer.Typer(help=(__doc__ or "").splitlines()[0], add_completion=False, pretty_exceptions_enable=False)


@app.command()
def collect(
    results: Annotated[Path, typer.Argument(help="results folder of one corpus and profile")],
    set_name: Annotated[str, typer.Option("--set", help="name of the set, such as embedded")],
    commit: Annotated[str, typer.Option(help="of the code that made the runs; records hold none")],
    rename: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="of an upstream; repeatable")] = None,
    against: Annotated[str, typer.Option(metavar="NAME,...", help="references of differences; default: all")] = "",
    shared: Annotated[str, typer.Option(metavar="NAME,...", help="rows whose runs the set `embedded` holds")] = "",
) -> None:
    """Write the runs of a results folder, and the cells and differences of its table, into `recipes/recorded/`."""
    references, elsewhere = (text.replace(",", " ").split() for text in (against, shared))
    written, left_out = collecting.collect(
        results, set_name, commit, rename or (), references, elsewhere, TerminalProgress()
    )
    for path in written:
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    for problem in left_out:
        print(f"left out: {problem}", file=sys.stderr)


@app.command()
def write() -> None:
    """Rewrite the figures of the documents."""
    for path in pages.write():
        print(path)


if __name__ == "__main__":
    try:
        app(standalone_mode=False)
    except (UserError, typer.Abort) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
