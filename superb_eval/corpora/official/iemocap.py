"""ER: IEMOCAP, with its five sessions as the folds of the protocol.

Source of the rules: s3prl `downstream/emotion` (`IEMOCAP_preprocess.py`, `expert.py`). Improvised and scripted
dialogues are both used; excited counts as happy; of the other emotions only neutral, angry and sad are used.

The protocol makes its dev sets by a fixed permutation of the utterances outside a fold (`downstreams/er.py`), so they
depend on the order of the utterances, which in s3prl's lists was that of its authors' file system. The lists are used
where the corpus folder holds them.

`torchaudio.datasets.IEMOCAP` is not used: it orders by file name, has no folds, and skips missing files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from superb_eval.data.audio import Clip
from superb_eval.data.audio_paths import AudioPaths
from superb_eval.data.manifest import Corpus, Manifest, Utterance, bad_rows_message
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

FOLDERS = ("IEMOCAP", "IEMOCAP_full_release")
SESSIONS = (1, 2, 3, 4, 5)
WAVS, LABELS = Path("sentences", "wav"), Path("dialog", "EmoEvaluation")
EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
"""The protocol's label of each emotion that the annotators agreed on; others are left out."""

LAYOUT = f"IEMOCAP/Session{{1..5}}/{WAVS}/<dialog>/*.wav with IEMOCAP/Session{{1..5}}/{LABELS}/*.txt"
ORIGIN = "SAIL at the University of Southern California distributes IEMOCAP on request, for research"

EXPECTED = {"Session1": 1_085, "Session2": 1_023, "Session3": 1_151, "Session4": 1_031, "Session5": 1_241}
"""Utterances of the four emotions, by s3prl's lists."""

NOTE = (
    "the five dev sets are 20 % of the utterances outside each fold, drawn with seed 0 as in the protocol, but from "
    "the utterances in the order of their names: s3prl's lists (Session*/{train,test}_meta_data.json), whose order "
    "gives the protocol's own dev sets, are not in the corpus folder"
)


def present(root: Path) -> bool:
    """Return whether `root` holds IEMOCAP, or part of it."""
    return any((root / name).is_dir() for name in FOLDERS)


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return a split for each session, with the label columns `emotion`, `fold` (the session's number) and `dialog`.

    Raises:
        UserError: a session, its audio or its labels are missing, or s3prl's lists contradict one another.
    """
    del settings
    base = next(root / name for name in FOLDERS if (root / name).is_dir())
    _check_sessions(base)
    lists = _lists(base)
    splits = {}
    for k in SESSIONS:
        folder = base / f"Session{k}"
        source = lists.get(k, folder)
        utterances = _listed(base, source, k) if k in lists else _labelled(folder, k)
        splits[folder.name] = Manifest(folder.name, tuple(utterances), source)
    _check_train_lists(base, lists, splits)
    return Corpus(name="IEMOCAP", root=root, splits=splits, notes=() if lists else (NOTE,), expected=EXPECTED)


def _check_sessions(base: Path) -> None:
    needed = [base / f"Session{k}" / part for k in SESSIONS for part in (WAVS, LABELS)]
    missing = [str(path.relative_to(base)) for path in needed if not path.is_dir()]
    if missing:
        raise UserError(
            f"{base}: has no {', '.join(missing)}. ER tests each of the five sessions in turn, so all are needed. "
            f"{ORIGIN}."
        )


def _labelled(folder: Path, session: int) -> list[Utterance]:
    """Return the utterances of a session that have one of the emotions, ordered by file of labels and line."""
    wavs = {p.stem: p for p in _visible(folder / WAVS, "*/*.wav")}
    utterances, bad = [], []
    for path in _visible(folder / LABELS, "*.txt"):
        for number, name, emotion in _labels(path):
            if emotion not in EMOTIONS:
                continue
            if name in wavs:
                utterances.append(_utterance(wavs[name], EMOTIONS[emotion], session))
            else:
                bad.append(f"{path.name}: line {number}: no audio {WAVS}/*/{name}.wav")
    if bad:
        raise UserError(f"{bad_rows_message(folder, bad)}\n{ORIGIN}.")
    if not utterances:
        raise UserError(f"{folder / LABELS}: no utterance is {', '.join(EMOTIONS)}. {ORIGIN}.")
    return utterances


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Return matching files in order, without the archive's `._*` files."""
    return sorted(p for p in folder.glob(pattern) if not p.name.startswith("."))


def _labels(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, utterance and emotion of each line that begins with a time span in brackets."""
    for number, line in enumerate(outside_files.read_bytes(path).decode("latin-1").splitlines(), start=1):
        if line.startswith("["):
            fields = [field for field in line.split("\t") if field]
            if len(fields) < 3:
                raise UserError(f"{path}: line {number}: '{line}' is not '[start - end]', utterance, emotion, by tabs.")
            yield number, fields[1], fields[2]


def _utterance(path: Path, emotion: str, session: int) -> Utterance:
    # The dialogue is named after the speaker with the motion-capture markers; the utterance's last part names its own.
    speaker = f"Ses{session:02d}{path.stem.rpartition('_')[2][:1]}"
    labels = {"emotion": emotion, "fold": str(session), "dialog": path.parent.name}
    return Utterance(path.stem, Clip(path), speaker, labels)


def _lists(base: Path) -> dict[int, Path]:
    """Return s3prl's list of each fold's test utterances, where the corpus folder holds them; else nothing."""
    for folder in (base / "meta_data", base):
        lists = {k: folder / f"Session{k}" / "test_meta_data.json" for k in SESSIONS}
        missing = [str(path) for path in lists.values() if not path.is_file()]
        if not missing:
            return lists
        if len(missing) < len(SESSIONS):
            raise UserError(f"{', '.join(missing)}: no such list, but others are present. Copy all five, or none.")
    return {}


def _listed(base: Path, path: Path, session: int) -> list[Utterance]:
    """Return the utterances of a list, in its order."""
    paths = AudioPaths(base, allow_links=True)
    bad, utterances = [], []
    for number, (name, emotion) in enumerate(_entries(path), start=1):
        problems = [] if emotion in EMOTIONS else [f"label '{emotion}' is none of {', '.join(EMOTIONS)}"]
        problems += [] if name.startswith(f"Session{session}/") else [f"path '{name}' is not of Session{session}"]
        problems += paths.problems(name)
        if problems:
            bad.append(f"entry {number}: {'; '.join(problems)}")
        else:
            utterances.append(_utterance(base / name, EMOTIONS[emotion], session))
    if bad:
        raise UserError(f"{bad_rows_message(path, bad)}\n{ORIGIN}.")
    return utterances


def _entries(path: Path) -> list[tuple[str, str]]:
    try:
        content: Any = outside_files.read_json(path)
        return [(str(entry["path"]), str(entry["label"])) for entry in content["meta_data"]]
    except (ValueError, KeyError, TypeError) as error:
        form = '{"meta_data": [{"path": ..., "label": ...}, ...]}'
        raise UserError(f"{path}: expected {form}, as s3prl's lists are ({error!r}). Copy it again.") from error


def _check_train_lists(base: Path, lists: dict[int, Path], splits: dict[str, Manifest]) -> None:
    """Refuse train lists that differ from the test lists of the other folds."""
    for k, path in lists.items():
        train = path.with_name("train_meta_data.json")
        if not train.is_file():
            continue
        listed = [base / name for name, _ in _entries(train)]
        if listed != [u.clip.path for name, split in splits.items() if name != f"Session{k}" for u in split]:
            raise UserError(
                f"{train}: its utterances are not those of the other sessions' test lists, in their order, as in "
                "s3prl's. Copy all ten lists from there, or remove them."
            )
