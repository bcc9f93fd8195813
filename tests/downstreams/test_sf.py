"""SF: marks, vocabularies, scores and bad rows. The metrics themselves: test_slots.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from downstreams.base import Setup
from downstreams.batching.buckets import Buckets
from downstreams.sf import SlotFilling
from downstreams.task_types.ctc import RecogniserSettings
from superb_eval.corpora import load_corpus
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.recipe import TrainSettings

Pair = tuple[str, str]
SMALL = {"projector_dim": 24, "hidden_dim": 24, "specaug": None, "dropout": 0.0}
TRAIN = [("fly to new york", "O O B-city I-city"), ("rome paris monday", "B-city B-city B-day"), ("go", "O")]


def corpus(train: list[Pair], test: list[Pair]) -> Corpus:
    def split(name: str, rows: list[Pair]) -> Manifest:
        labels = [{"text_canonical": text, "iob_canonical": tags} for text, tags in rows]
        made = (Utterance(f"{name}{i}", Clip(Path("a.wav")), "anna", label, i + 2) for i, label in enumerate(labels))
        return Manifest(name, tuple(made), Path(f"sf/{name}.csv"))

    return Corpus(
        "mine", Path(), {"train": split("train", train), "dev": split("dev", test), "test": split("test", test)}
    )


def build(train: list[Pair], test: list[Pair], **head: Any) -> tuple[SlotFilling, Corpus]:
    rows, settings = corpus(train, test), RecogniserSettings.model_validate({**SMALL, **head})
    return SlotFilling(Setup(SlotFilling.learn(rows, settings), settings)), rows


def test_values_are_marked_and_neighbours_stay_apart() -> None:
    task, rows = build(TRAIN, [("go", "O")])
    assert task.labels["slots"] == ["city", "day"]
    truths = [task.truth(u) for u in rows.splits["train"]]
    assert truths == [
        "FLY TO B-city NEW YORK E-city",
        "B-city ROME E-city B-city PARIS E-city B-day MONDAY E-day",
        "GO",
    ]


def test_the_protocols_numbers_for_39_slots() -> None:
    tags = " ".join(f"B-slot{i}" for i in range(39))
    task, _ = build([(" ".join(["a"] * 39), tags)], [("a", "O")])
    assert len(task.vocabulary) == 109
    with torch.device("meta"):
        whole = SlotFilling(Setup(task.labels, RecogniserSettings())).head(768)
    assert sum(p.numel() for p in whole.parameters()) == 42_986_605


def test_the_protocols_quirks_of_spelling() -> None:
    task, rows = build([("r & b , rome .", "O O O O B-city O")], [("a", "O")])
    (row,) = rows.splits["train"]
    target = task.target(row)
    assert task.truth(row) == "R AND B B-city ROME E-city"
    assert target[-1] == task.vocabulary.speller.between[0]
    assert task.target(rows.splits["test"].utterances[0])[-1] == 1
    unknown, _ = build([("é b", "O B-city")], [("a", "O")])
    assert unknown.vocabulary.decode(unknown.vocabulary.encode(["é"], ["O"])) == "<unk>"


def test_answers_are_decoded_and_scored() -> None:
    task, rows = build(TRAIN, [TRAIN[0], ("paris", "B-city")])
    paths = [task.target(rows.splits["test"].utterances[0]), [31, 19, 32, 0]]
    frames = [[o for output in path for o in (output, 0)] for path in paths]
    lengths = torch.tensor([len(f) for f in frames])
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(f) for f in frames], batch_first=True)
    answers = task.decode(torch.nn.functional.one_hot(padded, 35).float(), lengths)
    assert answers == ["FLY TO B-city NEW YORK E-city", "B-city P E-city"]
    predictions = task.rows(rows.splits["test"], answers)
    f1, cer = task.score(predictions)
    assert (f1.value, f1.units) == (100.0, 2)
    assert (cer.value, cer.units) == (pytest.approx(100 * 4 / 13), 2)
    assert task.chance(predictions) == 100.0


def test_the_best_constant_answer_names_the_commonest_slots() -> None:
    task, rows = build(TRAIN, [TRAIN[0], TRAIN[1], ("go", "O")])
    answers = [task.truth(u) for u in rows.splits["test"]]
    # `city` alone: 1, 2/3 and 0.
    assert task.chance(task.rows(rows.splits["test"], answers)) == pytest.approx(100 * (1 + 2 / 3) / 3)


def test_subwords_where_the_recipe_asks_for_them() -> None:
    task, rows = build(TRAIN * 4, [TRAIN[0]], vocabulary={"sentencepiece": 30})
    assert len(task.vocabulary) == 34
    for u in rows.splits["train"]:
        assert task.target(u)[-1] == 1
        assert task.truth(u) == build(TRAIN, [TRAIN[0]])[0].truth(u)


def test_training_sees_overlapping_buckets_by_length_of_the_label() -> None:
    task, rows = build(TRAIN, [("go", "O")])
    settings = TrainSettings(steps=1, eval_every=1, batch_size=2)
    sampler = task.sampler(rows.splits["train"], [1.0, 2.0, 3.0], settings, 0)
    assert isinstance(sampler, Buckets)
    assert sampler.batches == [[1, 0], [2, 0], [2, 0]]


def test_every_bad_row_is_named() -> None:
    bad = [("go home", "O"), ("go", "city"), ("a b", "B-city I-day"), ("a", "I-city"), ("a", "B-")]
    with pytest.raises(UserError) as caught:
        build([*TRAIN, *bad], [("go", "O")])
    message = str(caught.value)
    assert "sf/train.csv: 5 bad row(s)" in message
    assert "line 5: text_canonical has 2 words, iob_canonical 1 tags" in message
    assert "line 6: tag 'city' is not O, B-slot or I-slot" in message
    assert "line 7: tag 'I-day' continues no day; a value begins with 'B-day'" in message
    assert "line 8: tag 'I-city'" in message and "line 9: tag 'B-' is not" in message


def test_slots_never_seen_in_training_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"(?s)dev\.csv: 1 bad.*line 2: slot 'river' is never seen in train \(known: city, day\)"
    ):
        build(TRAIN, [("rhine", "B-river")])
    with pytest.raises(UserError, match="no row has a slot"):
        build([("go", "O")], [("go", "O")])


def test_plain_names_of_columns_are_read(tmp_path: Path) -> None:
    """`text` and `iob`, as people write them, give the same corpus as the names of Audio SNIPS."""
    digests = set()
    for name, columns in (("plain", "text,iob"), ("canonical", "text_canonical,iob_canonical")):
        folder = tmp_path / name / "sf"
        folder.mkdir(parents=True)
        (tmp_path / name / "a.wav").touch()
        for split in ("train", "dev", "test"):
            (folder / f"{split}.csv").write_text(f"id,path,speaker,{columns}\n{split},a.wav,anna,to rome,O B-city\n")
        read = load_corpus.open_corpus("sf", tmp_path / name, SlotFilling.columns, CorpusSettings())
        digests.add(tuple(split.digest() for split in read.splits.values()))
    assert len(digests) == 1
