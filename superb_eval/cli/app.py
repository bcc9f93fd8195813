"""The command line: groups of commands, joined. Heavy imports stand inside commands, so that `--help` is immediate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer

from superb_eval.cli import (
    corpora,
    distillation,
    pretraining,
    recipes,
    report,
    results,
    run,
    share,
    suite,
    upstreams,
    usage,
)
from superb_eval.cli.command import LenientCommand
from superb_eval.cli.sections import INSPECT, UPSTREAMS, CommandGroup, SectionedGroup
from superb_eval.errors import UserError
from superb_eval.runtime import allocator, screen, supervision, system_errors
from superb_eval.version import __version__

USER_ERROR, INTERRUPTED, UNREAD = 2, 130, 141
"""Exit codes beside 0 (done) and 1 (something broke: a traceback follows); UNREAD: nobody reads its output."""

app = typer.Typer(
    cls=SectionedGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    help="""Evaluate speech encoders, SUPERB style: frozen upstream, weighted sum of layers, one head per task.

\b
  superb-eval run ks -u fbank_nonorm                        # embedded synthetic corpus
  superb-eval run ks -u s3prl:fbank --data my-corpus        # a folder of manifests
  superb-eval run ks -u hubert --data /path/to/corpora      # official corpus and protocol
  superb-eval suite -u fbank_nonorm,hubert_mini@random --tasks all # tasks x upstreams
  superb-eval table results/
  superb-eval upstream check path/to/file.py:MyEncoder
""",
)
upstream_app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="List, show and check upstreams; write a new one; export one."
)
task_app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="List tasks.")
recipe_app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="List, show and copy recipes.")
corpus_app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="Make a corpus of your data, check one, export one, synthesise one."
)
app.add_typer(upstream_app, name="upstream", rich_help_panel=UPSTREAMS)
for name, group in {"recipe": recipe_app, "task": task_app, "corpus": corpus_app}.items():
    app.add_typer(group, name=name, rich_help_panel=INSPECT)
run.register(app)
suite.register(app)
recipes.register(task_app, recipe_app)
corpora.register(corpus_app)
upstreams.register(app, upstream_app)
pretraining.register(app)
distillation.register(app, upstream_app)
results.register(app)
report.register(app)
share.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        screen.show(f"superb-eval {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Take the options before a command."""
    del version


@app.command(cls=LenientCommand, rich_help_panel=INSPECT)
def doctor() -> None:
    """Report what works here, and what to install for what does not."""
    from superb_eval.runtime import environment

    for finding in environment.check():
        screen.show(f"{'ok  ' if finding.works else 'no  '}{finding.name:<24}{finding.detail}")
        if finding.remedy and not finding.works:
            screen.show(f"{'':<28}{finding.remedy}")


def main() -> None:
    """Run the command line: a user's mistake is one sentence and exit code 2, never a traceback."""
    screen.prepare()
    allocator.reuse_freed()
    apart = supervision.run_apart(sys.argv[1:], USER_ERROR)
    try:
        code, message = _run(sys.argv[1:]) if apart is None else (apart.code, apart.message)
    except BaseException:  # a defect of ours, whose traceback follows: no user's code ended the process
        supervision.finish()
        raise
    unwritten = screen.finish()
    if unwritten and not code:
        code, message = USER_ERROR, f"superb-eval: {unwritten}"
    if message:
        screen.show(message, error=True)
    supervision.finish()
    sys.exit(code)


def _run(arguments: list[str]) -> tuple[int, str]:
    """Run the command that the arguments name; return its exit code and the message about what was wrong."""
    try:
        _check_letters(arguments)
        code = _command()(arguments, prog_name="superb-eval", standalone_mode=False) or 0
    except UserError as error:
        return USER_ERROR, f"superb-eval: {error}"
    except usage.UsageError as error:
        return USER_ERROR, usage.explain(error)
    except BrokenPipeError:
        return UNREAD, ""
    except typer.Abort:  # how earlier versions of typer end an interrupted command
        code = INTERRUPTED
    except Exception as error:
        sentence = system_errors.sentence(error)
        if sentence is None:
            raise
        return USER_ERROR, f"superb-eval: {sentence}"
    return code, "superb-eval: interrupted; the same command resumes it." if code == INTERRUPTED else ""


@cache
def _command() -> Callable[..., Any]:
    """Return the tree of commands; it takes a tenth of a second to build."""
    return typer.main.get_command(app)


def _check_letters(arguments: list[str]) -> None:
    """Refuse names that are no text, which neither records nor tables could hold."""
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UserError(f"{argument}: is no UTF-8. Rename the file or folder, or write the text as UTF-8.")


if __name__ == "__main__":
    main()
