"""The official layout of SF: Audio SNIPS as s3prl prepares it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.sf import SlotFilling
from downstreams.task_types.ctc import RecogniserSettings
from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import snips
from superb_eval.corpora.official.snips import FOLDERS, SPEAKERS
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from tests.corpora.official.linked import assert_links_are_followed

LINE = "BOS PLAY NEW YORK ROME NOW EOS\tO O city city state O PlayMusic"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lines = []
    for split, folder in FOLDERS.items():
        (tmp_path / "SNIPS" / folder).mkdir(parents=True)
        for speaker in SPEAKERS[split]:
            name = f"{speaker}-snips-{folder}-0"
            soundfile.write(tmp_path / "SNIPS" / folder / f"{name}.wav", np.zeros(1600), 16_000)
            lines.append(f"{name} {LINE}\n")
    (tmp_path / "SNIPS" / "all.iob.snips.txt").write_text("".join(lines))
    (tmp_path / "SNIPS" / "slots.txt").write_text("O\ncity\nstate")
    return tmp_path


def rewrite(root: Path, *lines: str) -> None:
    path = root / "SNIPS" / "all.iob.snips.txt"
    original = path.read_text().splitlines()
    path.write_text("\n".join([*lines, *original[len(lines) :]]))


def test_splits_words_and_tags(root: Path) -> None:
    corpus = load_corpus.open_corpus("sf", root, SlotFilling.columns, CorpusSettings())
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 8, "dev": 4, "test": 4}
    first = corpus.splits["train"].utterances[0]
    assert (first.id, first.speaker, first.line) == ("Ivy-snips-train-0", "Ivy", 1)
    assert first.labels == {"text_canonical": "PLAY NEW YORK ROME NOW", "iob_canonical": "O B-city I-city B-state O"}
    assert corpus.notes == () and corpus.expected["train"] == 104_672
    assert SlotFilling.learn(corpus, RecogniserSettings())["slots"] == ["city", "state"]


def test_the_marked_text_is_that_of_s3prl(root: Path) -> None:
    from s3prl.downstream.ctc.text import CharacterTextSlotEncoder

    from downstreams.base import Setup
    from downstreams.text.vocabulary import CHARACTERS

    corpus = snips.load(root, CorpusSettings())
    head = RecogniserSettings()
    task = SlotFilling(Setup(SlotFilling.learn(corpus, head), head))
    theirs = CharacterTextSlotEncoder(list(CHARACTERS), ["B-city", "E-city", "B-state", "E-state"])
    assert task.target(corpus.splits["test"].utterances[0]) == theirs.encode(LINE)


def test_audio_without_a_line_or_by_another_voice_is_left_out_and_counted(root: Path) -> None:
    for name in ("Ivy-snips-train-9", "Brian-snips-test-0"):
        soundfile.write(root / "SNIPS" / "train" / f"{name}.wav", np.zeros(1600), 16_000)
    corpus = snips.load(root, CorpusSettings())
    assert len(corpus.splits["train"]) == 8
    assert [note[:28] for note in corpus.notes] == ["2 .wav of train left out: no"]


def test_every_bad_line_is_named(root: Path) -> None:
    rewrite(
        root,
        "Ivy-snips-train-0 BOS EOS\tO PlayMusic",
        "Joanna-snips-train-0 BOS A B EOS\tO O x",
        "Joey-snips-train-0 A B",
        "Justin-snips-train-0 BOS A EOS\tO river x",
    )
    with pytest.raises(UserError) as caught:
        snips.load(root, CorpusSettings())
    message = str(caught.value)
    assert "all.iob.snips.txt: 4 bad row(s)" in message
    assert "line 1: Ivy-snips-train-0: has an empty transcript" in message
    assert "line 2: Joanna-snips-train-0: has 2 words and 1 slots" in message
    assert "line 3: Joey-snips-train-0: expected ID BOS words EOS" in message
    assert "line 4: Justin-snips-train-0: slots.txt doesn't hold river" in message


def test_missing_parts_are_named(root: Path) -> None:
    (root / "SNIPS" / "valid").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"valid: no \.wav of Aditi, Amy"):
        snips.load(root, CorpusSettings())
    (root / "SNIPS" / "slots.txt").unlink()
    with pytest.raises(UserError, match=r"slots\.txt: no such file.*snips_preprocess"):
        snips.load(root, CorpusSettings())


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_links_are_followed(
        lambda path: snips.load(path, CorpusSettings()), root, tmp_path_factory.mktemp("links") / "copies"
    )
