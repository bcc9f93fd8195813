"""The commands about corpora: `corpus new`, `check`, `export` and `synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from superb_eval.cli.command import LenientCommand
from superb_eval.cli.options import MOST_SEED, Resume
from superb_eval.errors import UserError
from superb_eval.runtime.screen import show

Task = Annotated[str, typer.Argument(metavar="TASK", help="a task such as ks")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="KEY=VALUE", help="change the recipe, such as -o corpus.folder=x; repeatable"
    ),
]


def register(corpus_app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (new, check, export, synth):
        corpus_app.command(cls=LenientCommand)(command)


def new(
    task: Task,
    source: Annotated[Path, typer.Argument(metavar="FROM", help="the folder to read; it is not changed")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="folder to write; an unfinished one is resumed")],
    column: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=NAME", help="the task's column and its name in FROM; repeatable")
    ] = None,
    splits: Annotated[
        str,
        typer.Option(
            metavar="SPLIT=NAME,...",
            help="FROM's splits, such as train=train_nodup,dev=dev,test=eval; '+' joins several",
        ),
    ] = "",
    shares: Annotated[
        str,
        typer.Option(metavar="N,N,N", help="divide anew into train, dev and test; 80,10,10 where FROM is undivided"),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, metavar="N", help="of the division and of trials")] = 0,
    split_by: Annotated[
        Literal["speaker", "utterance"], typer.Option(help="speaker: where known, each is in one split only")
    ] = "speaker",
    speaker: Annotated[
        str, typer.Option(metavar="PATTERN", help="finds the speaker in a file's name or path: '^(\\w+)_nohash'")
    ] = "",
    trials: Annotated[
        int,
        typer.Option(min=2, max=10**7, metavar="N", help="of asv: how many for dev and for test, half of one speaker"),
    ] = 1000,
    audio: Annotated[
        Literal["link", "copy"], typer.Option(help="link the audio files, or copy them; bytes in tables become files")
    ] = "link",
    override: Overrides = None,
    resume: Resume = False,
) -> None:
    """Make a corpus, a folder of manifests, of what you have; its columns and splits are found by name, or named.

    FROM holds data folders of Kaldi or ESPnet (wav.scp), a data set of Hugging Face (save_to_disk, Parquet,
    audiofolder), manifests of Lhotse, or class folders of audio. Its own splits are used where it has them; else
    whole speakers are assigned by shares and seed. What was chosen and left out is printed, and stored in corpus.json.

    \b
    superb-eval corpus new asr data --out my-asr --splits train=train_nodup,dev=train_dev,test=eval   # Kaldi, ESPnet
    superb-eval corpus new ks saved-dataset --out my-ks --column keyword=label                        # Hugging Face
    superb-eval corpus new ks speech_commands --out my-ks --speaker '^(\\w+)_nohash'                   # class folders
    superb-eval corpus new asr manifests --out my-asr                                                 # Lhotse
    superb-eval corpus new asv my-recordings --out my-asv --shares 70,15,15 --trials 2000
    superb-eval corpus new ic data --out my-ic -o "head.slots=[size, roast]"
    """
    del resume  # which it does anyway
    from superb_eval.corpora.building import new_corpus, summary
    from superb_eval.corpora.building.request import CorpusRequest, parse_columns, parse_shares, parse_splits
    from superb_eval.runtime.progress import TerminalProgress

    request = CorpusRequest(
        task=task,
        source=source,
        out=out,
        overrides=tuple(override or ()),
        columns=parse_columns(column or ()),
        splits=parse_splits(splits),
        shares=parse_shares(shares),
        seed=seed,
        split_by=split_by,
        speaker=speaker,
        trials=trials,
        audio=audio,
    )
    show("\n".join(summary.describe(new_corpus.make_corpus(request, TerminalProgress()), request)))


def synth(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="folder to write; an unfinished one is resumed")],
    size: Annotated[Literal["nano", "mini"], typer.Option(help="nano: for tests; mini: for the quickstart")] = "mini",
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEED, metavar="N", help="the same seed gives the same bytes on one platform")
    ] = 0,
    tasks: Annotated[
        str,
        typer.Option(
            metavar="TASK,...", help="such as ks,sid; also unlabelled, for training encoders; default: all ten tasks"
        ),
    ] = "",
    resume: Resume = False,
) -> None:
    """Synthesise the embedded corpus: a folder of manifests with speech from espeak-ng (extra `synth`).

    \b
    superb-eval corpus synth --size nano --out my-corpus
    superb-eval corpus synth --tasks unlabelled --out my-unlabelled
    """
    del resume  # which it does anyway
    from superb_eval.corpora import embedded
    from superb_eval.runtime.progress import TerminalProgress

    embedded.synthesise(size, out, seed, TerminalProgress(), tasks.replace(",", " ").split())
    show(f"corpus: {out}")


def check(
    task: Task,
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="official corpora, manifests, or data of other toolkits")
    ],
    full: Annotated[bool, typer.Option("--full", help="decode every file instead of reading its header")] = False,
    override: Overrides = None,
) -> None:
    """Examine a corpus: counts, hours, labels, what splits share, every bad row and file, transcripts that don't fit.

    \b
    superb-eval corpus check ks --data my-corpus --full
    superb-eval corpus check ic --data my-corpus -o "head.slots=[size, roast]"
    """
    from downstreams import registry
    from downstreams.base import Setup
    from superb_eval.corpora import checks
    from superb_eval.corpora.load_corpus import read_corpus
    from superb_eval.runs.config import choose_recipe
    from superb_eval.runtime.progress import TerminalProgress

    kind = registry.get(task)
    chosen = choose_recipe(task, data, overrides=override or ())
    corpus = read_corpus(chosen, data, TerminalProgress())
    with TerminalProgress().step("examining", sum(map(len, corpus.splits.values()))) as update:
        report = checks.check_corpus(corpus, kind.label_column, full, lambda done, total: update(done, total=total))
    show("\n".join(checks.describe(report)))
    if report.problems:
        raise UserError(f"{corpus.name} has {len(report.problems)} problem(s); see above.")
    head = kind.Head.model_validate(chosen.head)
    for fold in kind.folds(corpus):
        for text in checks.row_remarks(kind(Setup(kind.learn(fold, head), head)), fold):
            show(f"  remark: {text} (at 50 frames per second, as HuBERT's)")


def export(
    task: Task,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="folder to write; an unfinished export is resumed")],
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="official corpora, manifests, or data of other toolkits")
    ] = None,
    folder: Annotated[str | None, typer.Argument(metavar="FOLDER", help="the corpus, in place of --data")] = None,
    override: Overrides = None,
    resume: Resume = False,
) -> None:
    """Write a task's rows and audio as a data set of Hugging Face, for load_dataset("audiofolder", data_dir=OUT).

    Clips are cut by the rows, and written as FLAC of 16 bit at 16 kHz. Whether they may be shared is a matter
    of the corpus' licence.

    \b
    superb-eval corpus export ks --data my-corpus --out ks-dataset
    """
    del resume  # which it does anyway
    from downstreams import registry
    from superb_eval.corpora.load_corpus import read_corpus
    from superb_eval.export import hf_dataset
    from superb_eval.runs.config import choose_recipe
    from superb_eval.runtime.progress import TerminalProgress

    if folder is not None:  # which came before the task once
        task, data = (task, Path(folder)) if task in registry.names() else (folder, Path(task))
    if data is None:
        raise UserError("corpus export: whose rows? Give the corpus with --data FOLDER.")
    corpus = read_corpus(choose_recipe(task, data, overrides=override or ()), data, TerminalProgress())
    show(f"data set: {hf_dataset.export(corpus, task, out, TerminalProgress())}")
