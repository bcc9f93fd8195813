"""The commands about upstreams: `upstream list`, `show`, `check`, `new`, and `quick`, `onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from superb_eval.errors import UserError

ADDRESSES = "NAME@CHECKPOINT, NAME@random, hf:FOLDER, torchaudio:BUNDLE, s3prl:NAME[@CHECKPOINT], FILE.py:Class"


def register(app: typer.Typer, upstream_app: typer.Typer) -> None:
    """Add the commands to the command line."""
    upstream_app.command("list")(names)
    upstream_app.command("show")(show)
    upstream_app.command("check")(check)
    upstream_app.command("new")(new)
    app.command()(quick)
    app.command()(onnx)


def names() -> None:
    """List upstreams by name, and the other kinds of address."""
    from upstreams import registry

    own = registry.cards()
    for card in own:
        print(f"{card.name:<20}{card.summary}")
    for name in sorted(set(registry.names()) - {card.name for card in own}):
        print(f"{name:<20}{registry.card(name).summary}")
    print(f"\n{ADDRESSES}")


def show(name: Annotated[str, typer.Argument(help="an upstream's name or address")]) -> None:
    """Show the card of an upstream: size, stride, licence, source, training data."""
    from dataclasses import asdict

    from upstreams import registry

    for key, value in asdict(registry.card(name)).items():
        print(f"{key:<15}{'; '.join(value) if isinstance(value, tuple) else value}")


def check(
    address: Annotated[str, typer.Argument(help="an upstream's address")],
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="measure speed and memory beside HuBERT Base with random weights")
    ] = True,
) -> None:
    """Check that an upstream keeps the contract: a line for each rule, and what a broken one does to which tasks.

    From Python: superb_eval.check_upstream. In a package's own tests: the pytest fixture keeps_contract.

    \b
    superb-eval upstream check hubert@random
    superb-eval upstream check path/to/file.py:MyEncoder --no-cost
    """
    from superb_eval.analysis import upstream_check

    report = upstream_check.check_upstream(address, cost)
    print(report)
    if report.broken:
        raise UserError(f"{address} breaks {len(report.broken)} of {len(report.findings)} rules; see above.")


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="such as my_encoder")],
    out: Annotated[
        Path | None, typer.Option(help="folder to write; default: upstreams/ in a checkout, else the current one")
    ] = None,
) -> None:
    """Write a new upstream, ready to be filled in: its file, its card and a test, all of which work as they are.

    \b
    superb-eval upstream new my_encoder
    superb-eval upstream check my_encoder        # in a checkout; elsewhere my_encoder.py:MyEncoder
    """
    from superb_eval.cli import scaffold

    made = scaffold.write(name, out)
    print("\n".join(f"wrote {path}" for path in made.files))
    print(f"next: superb-eval upstream check {made.address}\n      superb-eval quick {made.address}")


def quick(
    name: Annotated[str, typer.Argument(metavar="NAME", help="an upstream's address")],
    tasks: Annotated[str, typer.Option("--tasks", metavar="TASK,...", help="such as ks,sid; or all")] = "all",
    out: Annotated[Path, typer.Option(help="results folder; what is finished there is kept")] = Path("quick"),
    jobs: Annotated[int | None, typer.Option(min=1, help="cells at a time; default: one per core")] = None,
) -> None:
    """Get a first picture of an upstream in minutes: ten tiny tasks, FBANK and distilhubert_mini beside it.

    It ends in the table with intervals, and OUT/report.html. The corpus is the smallest embedded one and training is
    cut short, so the intervals are wide: it shows what works and what is far off, and decides nothing finer.

    \b
    superb-eval quick path/to/file.py:MyEncoder
    superb-eval quick hubert_mini --tasks ks,pr,sid
    """
    from superb_eval.cli import results, suite
    from superb_eval.cli.quick import BESIDE, NOTE, draw
    from superb_eval.runtime.progress import TerminalProgress

    upstreams, failure = ",".join(dict.fromkeys([*BESIDE, name])), None
    try:
        suite.suite(upstreams, tasks, profile="nano", out=out, jobs=jobs)
    except (UserError, SystemExit) as error:  # what else ran is worth a look
        failure = error
    if any(out.glob("*/*/*/result.json")):
        results.table(out, against=BESIDE[0])
        print(f"report: {draw(out, BESIDE[0], TerminalProgress())}\n{NOTE}")
    if failure is not None:
        raise failure


def onnx(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run's folder, the one with result.json")],
    out: Annotated[Path, typer.Option("-o", "--out", help="file to write")] = Path("model.onnx"),
) -> None:
    """Write the upstream and head of a finished run as one ONNX model: a waveform in, the head's output out.

    What it gives is compared with this program's own output on several lengths before the file is kept. Extra: onnx.

    \b
    superb-eval onnx results/hubert_mini/ks/mini-seed0-1a2b3c4d5e -o ks.onnx
    """
    from superb_eval.export.onnx import export

    made = export(run, out)
    print(f"{out}: {made.summary()}")
