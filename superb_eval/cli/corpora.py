"""The commands about corpora: `corpus synth`, `check` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from superb_eval.errors import UserError

Task = Annotated[str, typer.Argument(help="a task such as ks")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="KEY=VALUE", help="change the recipe: -o corpus.folder=x"),
]


def register(corpus_app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (synth, check, export):
        corpus_app.command()(command)


def synth(
    out: Annotated[Path, typer.Option(help="folder to write; an unfinished one is resumed")],
    size: Annotated[Literal["nano", "mini"], typer.Option(help="nano: for tests; mini: for the quickstart")] = "mini",
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same bytes on one platform")] = 0,
    tasks: Annotated[
        str, typer.Option(help="such as ks,sid; also unlabelled, for training encoders; default: all ten tasks")
    ] = "",
) -> None:
    """Synthesise the embedded corpus: a folder of manifests with speech from espeak-ng (extra `synth`).

    \b
    superb-eval corpus synth --size nano --out my-corpus
    superb-eval corpus synth --tasks unlabelled --out my-unlabelled
    """
    from superb_eval.corpora import embedded
    from superb_eval.runtime.progress import TerminalProgress

    embedded.synthesise(size, out, seed, TerminalProgress(), tasks.replace(",", " ").split())
    print(f"corpus: {out}")


def check(
    task: Task,
    data: Annotated[Path, typer.Option(help="official corpora or a folder of manifests")],
    full: Annotated[bool, typer.Option("--full", help="decode every file instead of reading its header")] = False,
    override: Overrides = None,
) -> None:
    """Examine a corpus: counts, hours, labels, speakers and files shared between splits, every bad row and file.

    \b
    superb-eval corpus check ks --data my-corpus --full
    superb-eval corpus check ic --data my-corpus -o "head.slots=[size, roast]"
    """
    from downstreams import registry
    from superb_eval.corpora import checks
    from superb_eval.corpora.load_corpus import read_corpus
    from superb_eval.runs.config import choose_recipe
    from superb_eval.runtime.progress import TerminalProgress

    kind = registry.get(task)
    chosen = choose_recipe(task, data, overrides=override or ())
    corpus = read_corpus(chosen, data)
    with TerminalProgress().step("examining", sum(map(len, corpus.splits.values()))) as update:
        report = checks.check_corpus(corpus, kind.label_column, full, lambda done, total: update(done, total=total))
    print("\n".join(checks.describe(report)))
    if report.problems:
        raise UserError(f"{corpus.name} has {len(report.problems)} problem(s); see above.")
    for fold in kind.folds(corpus):
        kind.learn(fold, kind.Head.model_validate(chosen.head))


def export(
    data: Annotated[Path, typer.Argument(metavar="ROOT", help="official corpora or a folder of manifests")],
    task: Task,
    out: Annotated[Path, typer.Option(help="folder to write; an unfinished export is resumed")],
    override: Overrides = None,
) -> None:
    """Write a task's rows and audio as a data set of Hugging Face, for load_dataset("audiofolder", data_dir=OUT).

    Clips are cut by the rows, and written as FLAC of 16 bit at 16 kHz. Whether they may be shared is a matter
    of the corpus' licence.

    \b
    superb-eval corpus export my-corpus ks --out ks-dataset
    """
    from superb_eval.corpora.load_corpus import read_corpus
    from superb_eval.export import hf_dataset
    from superb_eval.runs.config import choose_recipe
    from superb_eval.runtime.progress import TerminalProgress

    corpus = read_corpus(choose_recipe(task, data, overrides=override or ()), data)
    print(f"data set: {hf_dataset.export(corpus, task, out, TerminalProgress())}")
