"""The official layout of IC: the tables of Fluent Speech Commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.corpora import load_corpus
from superb_eval.corpora.official import fluent_speech_commands
from superb_eval.data.manifest import Corpus
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from tests.corpora.official.linked import assert_links_are_followed

HEADER = ",path,speakerId,transcription,action,object,location"
ROWS = {
    "train": [
        '0,wavs/speakers/2BqV/a1.wav,2BqV,"Change language, please",change language,none,none',
        "1,wavs/speakers/2BqV/a2.wav,2BqV,Turn on the lights,activate,lights,kitchen",
    ],
    "valid": ["0,wavs/speakers/xyzw/b1.wav,xyzw,Lights on,activate,lights,none"],
    "test": ["0,wavs/speakers/mnop/c1.wav,mnop,Lights in the kitchen,activate,lights,kitchen"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small official layout; the audio files are only present."""
    folder = tmp_path / "fluent_speech_commands_dataset"
    (folder / "data").mkdir(parents=True)
    for split, rows in ROWS.items():
        write(tmp_path, split, rows)
        for row in rows:
            path = folder / row.split(",")[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


def write(root: Path, split: str, rows: list[str], header: str = HEADER) -> None:
    path = root / "fluent_speech_commands_dataset" / "data" / f"{split}_data.csv"
    path.write_text("\n".join([header, *rows]) + "\n")


def load(root: Path) -> Corpus:
    return load_corpus.open_corpus("ic", root, fluent_speech_commands.SLOTS, CorpusSettings())


def test_the_tables_are_the_splits(root: Path) -> None:
    corpus = load(root)
    assert {name: [u.id for u in split] for name, split in corpus.splits.items()} == {
        "train": ["2BqV/a1", "2BqV/a2"],
        "dev": ["xyzw/b1"],
        "test": ["mnop/c1"],
    }
    first = corpus.splits["train"].utterances[0]
    assert first.labels == {
        "action": "change language",
        "object": "none",
        "location": "none",
        "transcription": "Change language, please",
    }
    assert (first.speaker, first.line) == ("2BqV", 2)
    assert first.clip.path == root / "fluent_speech_commands_dataset" / "wavs" / "speakers" / "2BqV" / "a1.wav"
    assert corpus.expected == {"train": 23_132, "dev": 3_118, "test": 3_793}


def test_the_rows_are_those_of_torchaudio(root: Path) -> None:
    from torchaudio.datasets import FluentSpeechCommands

    corpus = load(root)
    for split, name in (("train", "train"), ("dev", "valid"), ("test", "test")):
        theirs = FluentSpeechCommands(root, name)
        expected = [theirs.get_metadata(k) for k in range(len(theirs))]
        folder = root / "fluent_speech_commands_dataset"
        for u, (path, _, _, speaker, text, *slots) in zip(corpus.splits[split], expected, strict=True):
            assert (str(u.clip.path.relative_to(folder)), u.speaker) == (path, speaker)
            assert [u.labels[s] for s in ("transcription", *fluent_speech_commands.SLOTS)] == [text, *slots]


def test_every_bad_row_is_named(root: Path) -> None:
    bad = [
        ROWS["train"][0],
        "1,wavs/speakers/2BqV/gone.wav,2BqV,x,activate,lights,kitchen",
        "2,wavs/speakers/2BqV/a2.wav,2BqV,x,activate,,kitchen",
        ROWS["train"][0],
        "3,../../a.wav,2BqV,x,activate,lights,kitchen",
        "4,wavs",
    ]
    write(root, "train", bad)
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    for words in (
        "train_data.csv: 5 bad row(s)",
        "line 3: no such file: ",
        "line 4: empty object",
        "line 5: wavs/speakers/2BqV/a1.wav appears twice",
        "line 6: path '../../a.wav' leads out of the corpus folder",
        "line 7: empty speakerId; empty action",
        "distributes Fluent Speech Commands",
    ):
        assert words in message


def test_missing_tables_and_columns_are_named(root: Path) -> None:
    write(root, "valid", ["x,y"], header="path,speakerId")
    with pytest.raises(UserError, match=r"valid_data\.csv: missing column\(s\) action, object, location \(found: path"):
        load(root)
    write(root, "valid", [])
    with pytest.raises(UserError, match=r"valid_data\.csv: has column names but no rows"):
        load(root)
    (root / "fluent_speech_commands_dataset" / "data" / "valid_data.csv").unlink()
    with pytest.raises(UserError, match=r"valid_data\.csv: no such table\. Expected fluent_speech_commands_dataset/"):
        load(root)


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_links_are_followed(load, root, tmp_path_factory.mktemp("links") / "copies")
