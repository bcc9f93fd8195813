"""Which column of a source is the task's, and which split is train, dev or test."""

from __future__ import annotations

import pytest

from superb_eval.data.importers.columns import SPEAKER_CLASSES, resolve, split_candidates
from superb_eval.errors import UserError


def test_a_columns_own_name_precedes_an_alias_and_a_choice_precedes_both() -> None:
    present = ["sentence", "text", "raw"]
    assert resolve(["text"], present, {}).names == {"text": "text"}
    assert resolve(["text"], present, {"text": "raw"}).names == {"text": "raw"}
    found = resolve(["text"], ["path", "Sentence"], {})
    assert found.names == {"text": "Sentence"} and found.notes == ("text is the column Sentence",)


def test_two_aliases_are_a_choice_that_is_the_users() -> None:
    with pytest.raises(UserError, match="sentence and transcript may each be it. Name it: --column text=sentence"):
        resolve(["text"], ["sentence", "transcript"], {})
    with pytest.raises(UserError, match=r"no column is it \(found: none\). Name it: --column text=NAME"):
        resolve(["text"], [], {})


def test_optional_columns_are_left_out_where_none_is_there_but_not_where_two_are() -> None:
    assert resolve(["emotion"], ["label", "session"], {}, ["fold"]).names == {"emotion": "label", "fold": "session"}
    assert resolve(["emotion"], ["label"], {}, ["fold"]).names == {"emotion": "label"}
    with pytest.raises(UserError, match="client_id and spk may each be it"):
        resolve([], ["client_id", "spk"], {}, ["speaker"])


def test_label_is_the_speaker_only_where_speakers_are_the_classes() -> None:
    assert resolve([], ["label"], {}, ["speaker"]).names == {}
    assert resolve(["speaker"], ["label"], {}, aliases=SPEAKER_CLASSES).names == {"speaker": "label"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train", "validation", "test"], (["train"], ["validation"], ["test"])),
        (["train_nodup", "train_dev", "test_eval92"], (["train_nodup"], ["train_dev"], ["test_eval92"])),
        (["train_si284", "test_dev93", "Eval2000"], (["train_si284"], ["test_dev93"], ["Eval2000"])),
        (["train.clean.100", "dev.clean", "dev.other"], (["train.clean.100"], ["dev.clean", "dev.other"], [])),
        (["validated", "invalidated", "other", "contest", "training"], (["training"], [], [])),
        ([""], ([], [], [])),
    ],
)
def test_splits_are_recognised_by_the_words_in_their_names(names: list[str], expected: tuple[list[str], ...]) -> None:
    assert tuple(split_candidates(names).values()) == expected
