"""The official layouts of ASR and PR: LibriSpeech's splits, transcripts, and lexicons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from downstreams.pr import PhoneHead, PhonemeRecognition
from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import librispeech, librispeech_phones
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from tests.corpora.official.linked import assert_links_are_followed

SETTINGS = CorpusSettings()
CHAPTERS = {
    "train-clean-100": {"19/198": ["HELLO THERE", "A DOG"], "103/1240": ["HELLO DOG"]},
    "dev-clean": {"1272/128104": ["A DOG'S"]},
    "test-clean": {"61/70968": ["THERE A DOG"]},
}
G2P = "HELLO\tHH AH0 L OW1\nHELLO\tHH EH0 L OW1\nTHERE\tDH EH1 R\nA\tAH0\n"
OTHERS = "A\tEY1\nDOG\tD AO1 G\nDOG'S\tD AO1 G Z\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, chapters in CHAPTERS.items():
        for chapter, texts in chapters.items():
            folder = tmp_path / "LibriSpeech" / split / chapter
            folder.mkdir(parents=True)
            stem = chapter.replace("/", "-")
            for i, _ in enumerate(texts):
                soundfile.write(folder / f"{stem}-{i:04d}.flac", np.zeros(1600), 16_000)
            lines = [f"{stem}-{i:04d} {text}\n" for i, text in enumerate(texts)]
            (folder / f"{stem}.trans.txt").write_text("".join(lines))
    for name, text in zip(librispeech_phones.LEXICONS, (G2P, OTHERS), strict=True):
        (tmp_path / name).write_text(text)
    return tmp_path


def transcript(root: Path) -> Path:
    return root / "LibriSpeech" / "train-clean-100" / "19" / "198" / "19-198.trans.txt"


def test_the_splits_are_the_protocols(root: Path) -> None:
    corpus = load_corpus.open_corpus("asr", root, ("text",), SETTINGS)
    assert corpus.name == "LibriSpeech" and corpus.expected == {"train": 28_539, "dev": 2_703, "test": 2_620}
    ids = {name: [u.id for u in split] for name, split in corpus.splits.items()}
    assert ids == {
        "train": ["103-1240-0000", "19-198-0000", "19-198-0001"],
        "dev": ["1272-128104-0000"],
        "test": ["61-70968-0000"],
    }
    first = corpus.splits["train"].utterances[1]
    assert (first.speaker, first.labels, first.line) == ("19", {"text": "HELLO THERE"}, 1)
    assert all(u.clip.path.is_file() for split in corpus.splits.values() for u in split)


def test_words_have_their_first_pronunciation_in_the_order_of_the_files(root: Path) -> None:
    corpus = load_corpus.open_corpus("pr", root, ("phones",), SETTINGS)
    phones = {u.labels["text"]: u.labels["phones"] for split in corpus.splits.values() for u in split}
    assert phones == {
        "HELLO DOG": "HH AH0 L OW1 D AO1 G",
        "HELLO THERE": "HH AH0 L OW1 DH EH1 R",
        "A DOG": "AH0 D AO1 G",
        "A DOG'S": "AH0 D AO1 G Z",
        "THERE A DOG": "DH EH1 R AH0 D AO1 G",
    }
    assert len(PhonemeRecognition.learn(corpus, PhoneHead())) == 74


def test_words_in_no_lexicon_are_all_named_with_their_lines(root: Path) -> None:
    transcript(root).write_text("19-198-0000 HELLO WORLD\n19-198-0001 MY CAT\n")
    with pytest.raises(UserError) as caught:
        librispeech_phones.load(root, SETTINGS)
    message = str(caught.value)
    assert "train-clean-100: 2 bad row(s)" in message
    assert "19-198.trans.txt line 1 (19-198-0000): in no lexicon: WORLD; add a line" in message
    assert "line 2 (19-198-0001): in no lexicon: MY, CAT" in message


def test_missing_and_malformed_lexicons_are_named(root: Path) -> None:
    (root / librispeech_phones.LEXICONS[0]).write_text("HELLO HH AH0\nDOG\tD\n")
    with pytest.raises(
        UserError, match=r"200k-g2p\.txt: 1 bad row\(s\):\s+line 1: 'HELLO HH AH0' is not a word, a tab"
    ):
        librispeech_phones.load(root, SETTINGS)
    (root / librispeech_phones.LEXICONS[0]).unlink()
    with pytest.raises(UserError, match=r"200k-g2p\.txt: no such lexicon.*huggingface"):
        librispeech_phones.load(root, SETTINGS)


def test_lines_without_audio_and_audio_without_lines_are_all_named(root: Path) -> None:
    transcript(root).write_text("19-198-0000\n19-198-0007 HELLO\n")
    with pytest.raises(UserError) as caught:
        librispeech.load(root, SETTINGS)
    message = str(caught.value)
    assert "3 bad row(s)" in message
    assert "19-198.trans.txt line 1: 19-198-0000 has an empty transcript" in message
    assert "line 2: the chapter has no 19-198-0007.flac" in message
    assert "19/198/19-198-0001.flac: 19-198.trans.txt has no line for it" in message


def test_missing_splits_are_named(root: Path) -> None:
    (root / "LibriSpeech" / "dev-clean").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"has no folder dev-clean.*openslr\.org/12"):
        librispeech.load(root, SETTINGS)
    (root / "LibriSpeech" / "dev-clean").mkdir()
    with pytest.raises(UserError, match="dev-clean: holds no utterance"):
        librispeech.load(root, SETTINGS)


def test_manifests_may_be_in_a_folder_of_another_name(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "asr_words").mkdir(parents=True)
    soundfile.write(other / "a.wav", np.zeros(1600), 16_000)
    for split in ("train", "dev", "test"):
        (other / "asr_words" / f"{split}.csv").write_text("id,path,speaker,text\nx,a.wav,anna,yes\n")
    corpus = load_corpus.open_corpus("asr", other, ("text",), CorpusSettings(folder="asr_words"))
    assert len(corpus.splits["train"]) == 1
    with pytest.raises(UserError, match="holds neither manifests"):
        load_corpus.open_corpus("asr", other, ("text",), SETTINGS)


@pytest.mark.parametrize("reader", [librispeech, librispeech_phones])
def test_links_to_folders_and_files_are_followed(
    reader: Any, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_links_are_followed(
        lambda path: reader.load(path, SETTINGS), root, tmp_path_factory.mktemp("links") / "copies"
    )
