"""PR: its vocabulary, targets, sampling and score; that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from downstreams.base import Prediction, Setup
from downstreams.batching.buckets import Buckets
from downstreams.batching.targets import Targets
from downstreams.pr import PhoneHead, PhonemeRecognition
from downstreams.text.vocabulary import ARPABET
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.recipe import TrainSettings


def corpus(train: list[str], test: list[str]) -> Corpus:
    def split(name: str, rows: list[str]) -> Manifest:
        made = (Utterance(f"{name}{i}", Clip(Path("a.wav")), "anna", {"phones": p}, i + 2) for i, p in enumerate(rows))
        return Manifest(name, tuple(made), Path(f"pr/{name}.csv"))

    return Corpus(
        "mine", Path(), {"train": split("train", train), "dev": split("dev", test), "test": split("test", test)}
    )


def build(train: list[str], test: list[str]) -> tuple[PhonemeRecognition, Corpus]:
    rows, head = corpus(train, test), PhoneHead()
    return PhonemeRecognition(Setup(PhonemeRecognition.learn(rows, head), head)), rows


def test_phones_with_stress_have_the_protocols_outputs() -> None:
    task, rows = build(["HH AH0 L OW1", "Z"], ["HH UW2", "Q"])
    assert task.labels == ["<pad>", "<eos>", "<unk>", *ARPABET]
    assert sum(p.numel() for p in task.head(768).parameters()) == 215_882
    target = task.target(rows.splits["train"].utterances[0])
    assert [task.labels[i] for i in target] == ["HH", "AH0", "L", "OW1", "<eos>"]
    assert [task.truth(u) for u in rows.splits["test"]] == ["HH UW2", "<unk>"]


def test_other_phones_are_learnt_from_training() -> None:
    task, rows = build(["b a", "a c"], ["a d"])
    assert task.labels == ["<pad>", "<eos>", "<unk>", "a", "b", "c"]
    assert task.target(rows.splits["test"].utterances[0]) == [3, 2, 1]


def test_answers_are_decoded_and_scored() -> None:
    task, rows = build(["b a", "a c"], ["a c b", "b"])
    output = torch.full((2, 5, 6), -9.0)
    for row, path in enumerate(([3, 3, 0, 5, 1], [0, 0, 4, 4, 4])):
        output[row, range(5), path] = 9.0
    answers = task.decode(output, torch.tensor([5, 2]))
    assert answers == ["a c", ""]
    predictions = task.rows(rows.splits["test"], answers)
    assert predictions == [
        Prediction("test0", "a c b", "a c", speaker="anna"),
        Prediction("test1", "b", "", speaker="anna"),
    ]
    (score,) = task.score(predictions)
    assert (score.value, score.units) == (50.0, 2)
    assert task.chance(predictions) == 50.0


def test_training_sees_overlapping_buckets_by_length_of_the_label() -> None:
    task, rows = build(["a", "a b c", "a b", "a b c d"], ["a"])
    sampler = task.sampler(
        rows.splits["train"], [1.0, 1.0, 30.0, 1.0], TrainSettings(steps=1, eval_every=1, batch_size=2), 0
    )
    assert isinstance(sampler, Buckets)
    assert sampler.batches == [[3, 1], [2, 1], [2], [2]]


def test_it_learns_from_frames(one_thread: None) -> None:
    task, rows = build(["a b", "b a", "c a b", "b c"], ["a"])
    train = rows.splits["train"]
    targets = [task.target(u) for u in train]
    lengths = torch.tensor([4 * len(t) for t in targets])
    features = torch.zeros(4, int(lengths.max()), 6)
    for row, target in zip(features, targets, strict=True):
        row[range(0, 4 * len(target), 4), target] = 1.0
    torch.manual_seed(0)
    head = task.head(6)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(60):
        loss = task.loss(head(features, lengths), lengths, Targets.of(targets))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert task.decode(head(features, lengths), lengths) == [task.truth(u) for u in train]


def test_phones_are_a_column_of_the_manifest() -> None:
    task, rows = build(["a"], ["a"])
    assert task.columns == ("phones",)
    spaced = replace(rows.splits["test"].utterances[0], labels={"phones": " a  a "})
    assert task.truth(spaced) == "a a"


def test_rows_that_cannot_be_aligned_and_phones_without_an_output_are_named() -> None:
    """A target needs a frame for each output and one between equal neighbours: `a a <eos>` four."""
    task, rows = build(["a a", "a b"], ["a d", "b"])
    assert task.remarks(rows.splits["train"], [4, 3]) == []
    assert task.remarks(rows.splits["train"], [3, 2]) == [
        "train: 2 of 2 rows (such as line 2) need more outputs than they have frames: they are not trained on"
    ]
    assert task.remarks(rows.splits["test"], [3, 1]) == [
        "test: 1 of 2 rows (such as line 3) need more outputs than they have frames: they can't be recognised whole",
        "test: 1 of 2 rows (such as line 2) hold symbols that have no output: these can't be recognised",
    ]
