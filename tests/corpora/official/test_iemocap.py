"""The official layout of ER: sessions, labels, and s3prl's lists."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from downstreams.er import EmotionRecognition
from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import iemocap
from superb_eval.data.manifest import Corpus
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from tests.corpora.official.linked import assert_links_are_followed

EMOTIONS = ("neu", "hap", "exc", "fru", "ang", "sad", "xxx")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small official layout: two dialogues a session; the audio files are only present."""
    for session in range(1, 6):
        for dialog in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1b"):
            names = [f"{dialog}_{'FM'[k % 2]}{k:03d}" for k in range(len(EMOTIONS))]
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
            for name, emotion in zip(names, EMOTIONS, strict=True):
                lines += [f"[6.2901 - 8.2357]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]", "C-E2:\tNeutral;\t()", ""]
                touch(tmp_path / "IEMOCAP" / f"Session{session}/sentences/wav/{dialog}/{name}.wav")
            path = tmp_path / "IEMOCAP" / f"Session{session}/dialog/EmoEvaluation/{dialog}.txt"
            touch(path)
            path.write_text("\n".join(lines))
    return tmp_path


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def load(root: Path) -> Corpus:
    return load_corpus.open_corpus("er", root, ("emotion",), CorpusSettings())


def lists(root: Path, corpus: Corpus, folder: str = "meta_data") -> None:
    """Write lists like s3prl's, with each session's utterances in reverse order."""
    base = root / "IEMOCAP"
    entries = {
        k: [
            {"path": str(u.clip.path.relative_to(base)), "label": u.labels["emotion"], "speaker": "x"}
            for u in reversed(corpus.splits[f"Session{k}"].utterances)
        ]
        for k in iemocap.SESSIONS
    }
    for k in iemocap.SESSIONS:
        others = [entry for j in iemocap.SESSIONS if j != k for entry in entries[j]]
        for name, chosen in (("test", entries[k]), ("train", others)):
            path = base / folder / f"Session{k}" / f"{name}_meta_data.json"
            touch(path)
            path.write_text(json.dumps({"labels": {"neu": 0, "hap": 1, "ang": 2, "sad": 3}, "meta_data": chosen}))


def test_sessions_are_folds_and_excited_is_happy(root: Path) -> None:
    corpus = load(root)
    assert list(corpus.splits) == list(corpus.expected) == [f"Session{k}" for k in range(1, 6)]
    assert sum(corpus.expected.values()) == 5531
    for k, split in enumerate(corpus.splits.values(), start=1):
        assert [u.labels["emotion"] for u in split] == ["neu", "hap", "hap", "ang", "sad"] * 2
        assert {u.labels["fold"] for u in split} == {str(k)}
        assert {u.speaker for u in split} == {f"Ses0{k}F", f"Ses0{k}M"}
        assert all(u.speaker[-1] == u.id.split("_")[-1][0] for u in split), "who speaks, not who wore the markers"
        assert all(u.clip.path.is_file() for u in split)
    folds = EmotionRecognition.folds(corpus)
    assert [[len(split) for split in fold.splits.values()] for fold in folds] == [[32, 8, 10]] * 5
    assert len(corpus.notes) == 1 and "20 % of the utterances outside each fold" in corpus.notes[0]


def test_the_utterances_are_those_of_torchaudio(root: Path) -> None:
    from torchaudio.datasets import IEMOCAP

    theirs = IEMOCAP(root)
    metadata = [theirs.get_metadata(k) for k in range(len(theirs))]
    expected = {name: label.replace("exc", "hap") for _, _, name, label, _ in metadata if label != "fru"}
    assert {u.id: u.labels["emotion"] for split in load(root).splits.values() for u in split} == expected


@pytest.mark.parametrize("folder", ["meta_data", "."])
def test_s3prls_lists_give_the_order_where_present(root: Path, folder: str) -> None:
    made = load(root)
    lists(root, made, folder)
    corpus = load(root)
    assert corpus.notes == ()
    for name, split in corpus.splits.items():
        assert [u.id for u in split] == [u.id for u in reversed(made.splits[name].utterances)]
        assert {u.speaker for u in split} == {u.speaker for u in made.splits[name]}
    (first, *_), (other, *_) = EmotionRecognition.folds(corpus), EmotionRecognition.folds(made)
    assert {u.id for u in first.splits["dev"]} != {u.id for u in other.splits["dev"]}


def test_a_missing_session_is_named(root: Path) -> None:
    (root / "IEMOCAP" / "Session3").rename(root / "elsewhere")
    with pytest.raises(
        UserError, match=r"has no Session3/sentences/wav, Session3/dialog/EmoEvaluation\. ER tests each"
    ):
        load(root)


def test_the_folder_may_have_the_archives_name(root: Path) -> None:
    (root / "IEMOCAP").rename(root / "IEMOCAP_full_release")
    assert len(load(root).splits["Session1"]) == 10
    assert load_corpus.is_official("er", root)
    with pytest.raises(UserError, match=rf"Did you mean --data {root}\?"):
        load(root / "IEMOCAP_full_release")


def test_hidden_files_of_the_archive_are_ignored(root: Path) -> None:
    session = root / "IEMOCAP" / "Session1"
    (session / "dialog/EmoEvaluation/._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07[\xff")
    touch(session / "sentences/wav/Ses01F_impro01/._Ses01F_impro01_F000.wav")
    assert len(load(root).splits["Session1"]) == 10


def test_missing_audio_and_malformed_labels_are_named(root: Path) -> None:
    session = root / "IEMOCAP" / "Session2"
    for name in ("Ses02F_impro01_F000", "Ses02F_impro01_M001", "Ses02F_impro01_M003"):
        (session / f"sentences/wav/Ses02F_impro01/{name}.wav").unlink()
    with pytest.raises(UserError) as caught:
        load(root)
    assert "Session2: 2 bad row(s)" in str(caught.value), "nobody misses the frustrated one"
    assert "Ses02F_impro01.txt: line 3: no audio sentences/wav/*/Ses02F_impro01_F000.wav" in str(caught.value)
    labels = session / "dialog/EmoEvaluation/Ses02F_impro01.txt"
    labels.write_text("[1 - 2] Ses02F_impro01_F000 neu")
    with pytest.raises(UserError, match=r"Ses02F_impro01\.txt: line 1: .* is not '\[start - end\]'"):
        load(root)
    shutil.rmtree(session / "dialog/EmoEvaluation")
    (session / "dialog/EmoEvaluation").mkdir()
    with pytest.raises(UserError, match="EmoEvaluation: no utterance is neu, hap, exc, ang, sad"):
        load(root)


def change(root: Path, name: str, edit: Any) -> None:
    path = root / "IEMOCAP" / "meta_data" / name
    content = json.loads(path.read_text())
    edit(content["meta_data"])
    path.write_text(json.dumps(content))


def test_lists_that_contradict_one_another_are_refused(root: Path) -> None:
    lists(root, load(root))
    change(root, "Session2/train_meta_data.json", lambda entries: entries.reverse())
    with pytest.raises(UserError, match=r"Session2/train_meta_data\.json: its utterances are not those of the other"):
        load(root)


def test_bad_lists_are_refused(root: Path) -> None:
    lists(root, load(root))

    def spoil(entries: list[dict[str, str]]) -> None:
        entries[0]["path"] = "Session4/sentences/wav/gone.wav"
        entries[1]["label"] = "bored"
        entries[2]["path"] = "Session5/../../x.wav"

    change(root, "Session4/test_meta_data.json", spoil)
    with pytest.raises(UserError) as caught:
        load(root)
    for words in (
        "Session4/test_meta_data.json: 3 bad row(s)",
        "entry 1: no such file",
        "entry 2: label 'bored' is none of",
        "entry 3: path 'Session5/../../x.wav' is not of Session4; path",
    ):
        assert words in str(caught.value)
    path = root / "IEMOCAP" / "meta_data" / "Session4" / "test_meta_data.json"
    path.write_text("[]")
    with pytest.raises(UserError, match=r'Session4/test_meta_data\.json: expected \{"meta_data"'):
        load(root)
    path.unlink()
    with pytest.raises(UserError, match=r"Session4/test_meta_data\.json: no such list, but others are present"):
        load(root)


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_links_are_followed(load, root, tmp_path_factory.mktemp("links") / "copies")
