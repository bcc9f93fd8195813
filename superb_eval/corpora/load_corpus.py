"""Load the corpus of a task: of its official layout, a folder of manifests, or another toolkit's data folder."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from downstreams import registry as tasks
from superb_eval.corpora import imported
from superb_eval.data import audio, read_manifest
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import SPLITS, Corpus, MissingColumnsError
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.recipe import Recipe
from superb_eval.runtime.progress import NoProgress, Progress

OFFICIAL_READERS: dict[str, str] = {
    "asr": "librispeech",
    "asv": "voxceleb1_trials",
    "er": "iemocap",
    "ic": "fluent_speech_commands",
    "ks": "speech_commands",
    "pr": "librispeech_phones",
    "qbe": "quesst14",
    "sd": "librimix",
    "sf": "snips",
    "sid": "voxceleb1",
}
"""The module of `superb_eval.corpora.official` that reads a task's official layout.

It has `LAYOUT` (a description of the files), `present(root)` and `load(root, settings)`.
"""

MANIFEST_READERS: dict[str, str] = {
    "asv": "trials",
    "qbe": "queries",
    "sd": "rttm_manifest",
}
"""The module of `superb_eval.corpora` that reads a task's folder of manifests, with `read(root, settings)`.

Only tasks whose folder holds more than utterances (trials, speaker turns) need one.
"""


def is_official(task: str, root: Path) -> bool:
    """Return whether `root` holds the official corpus of a task, or part of it."""
    return task in OFFICIAL_READERS and bool(_official_reader(task).present(root))


def read_corpus(recipe: Recipe, root: Path, progress: Progress | None = None, limit: int | None = None) -> Corpus:
    """Return the corpus under `root` as a recipe's task reads it; see `open_corpus` for `progress`.

    With a `limit` that many utterances of each split are left, about (`BaseTask.limited`).

    Raises:
        UserError: see `open_corpus` and the task's `annotate` and `limited`.
    """
    task = tasks.get(recipe.task)
    head = task.Head.model_validate(recipe.head)
    try:
        corpus = task.annotate(open_corpus(recipe.task, root, task.needs(head), recipe.corpus, progress))
    except MissingColumnsError as error:
        raise UserError(f"{error} {task.column_advice(error.present)}".rstrip()) from error
    return corpus if limit is None else _marked(task.limited(corpus, limit, head), corpus, limit)


def _marked(limited: Corpus, corpus: Corpus, limit: int) -> Corpus:
    """Return the limited corpus with its limit and a note; the corpus as it was where nothing is left out."""
    sizes = {name: (len(limited.splits[name]), len(split)) for name, split in corpus.splits.items()}
    if all(kept == whole for kept, whole in sizes.values()):
        return corpus
    counts = ", ".join(f"{kept} of {whole} of {name}" for name, (kept, whole) in sizes.items())
    return replace(limited, limit=limit, notes=(*corpus.notes, f"a try with --limit {limit}: {counts}"))


def audio_digests(clips: Sequence[Clip], progress: Progress) -> dict[Clip, str]:
    """Return `audio.digest` of every clip.

    Raises:
        UserError: a file can't be read.
    """
    digests: dict[Clip, str] = {}
    with progress.step("reading audio", len(clips)) as update:
        for done, clip in enumerate(clips, start=1):
            digests[clip] = audio.digest(clip)
            update(done)
    return digests


def corpus_digest(corpus: Corpus, digests: Mapping[Clip, str]) -> str:
    """Return a SHA-256 of the rows and trials of all splits and of their audio, given `audio.digest` of every clip."""
    rows = {name: [split.digest(), [digests[u.clip] for u in split]] for name, split in corpus.splits.items()}
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def open_corpus(
    task: str, root: Path, columns: Sequence[str], settings: CorpusSettings, progress: Progress | None = None
) -> Corpus:
    """Return the corpus of a task under `root`; `columns` are the label columns that the task reads.

    An official layout comes first, then manifests, then the data folders of other toolkits
    (`superb_eval.corpora.imported`). `progress` shows audio being written that lies in tables.

    Raises:
        UserError: there is no such folder, it holds none of these, or what it holds is incomplete or wrong.
    """
    if not root.is_dir():
        raise read_manifest.absent_corpus(root)
    if is_official(task, root):
        return _with_audio_settings(_official_reader(task).load(root, settings), settings)
    inside = is_official(task, root.resolve().parent)  # then --data is one folder too deep
    other = None if inside else imported.data_folder(task, root, settings)
    if other is not None:
        corpus = imported.load(task, other, columns, settings, progress or NoProgress())
        return _with_audio_settings(corpus, settings)
    folder = settings.folder or task
    if task in OFFICIAL_READERS and not (root / folder).is_dir():
        raise UserError(_no_corpus_message(task, root))
    if task in MANIFEST_READERS:
        return _with_audio_settings(_reader(MANIFEST_READERS[task]).read(root, settings), settings)
    corpus = read_manifest.read(
        root, folder, columns, allow_links=settings.allow_links, aliases=tasks.get(task).column_aliases
    )
    return _with_audio_settings(corpus, settings)


def _no_corpus_message(task: str, root: Path) -> str:
    manifests = f"{task}/{{{','.join(SPLITS)}}}.csv"
    message = (
        f"{root}: holds neither manifests ({manifests}) nor the official layout ({_official_reader(task).LAYOUT}), "
        "nor a data folder of Kaldi, Hugging Face or Lhotse, nor class folders of audio in train, dev and test."
    )
    parent = root.resolve().parent
    return f"{message} Did you mean --data {parent}?" if is_official(task, parent) else message


def _official_reader(task: str) -> Any:
    return _reader(f"official.{OFFICIAL_READERS[task]}")


def _reader(name: str) -> Any:
    return importlib.import_module(f"superb_eval.corpora.{name}")


def _with_audio_settings(corpus: Corpus, settings: CorpusSettings) -> Corpus:
    """Set the gain and trimming of the recipe on every clip."""
    splits = {name: s.with_audio(settings.gain_db, settings.trim_silence) for name, s in corpus.splits.items()}
    return replace(corpus, splits=splits)
