"""ER against s3prl's own expert: the folds, the dev sets, the head, the answers; and the mean of folds."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from downstreams.base import Prediction, Setup
from downstreams.batching.targets import Targets
from downstreams.er import EmotionRecognition
from downstreams.nets.heads import UtteranceLevel
from superb_eval import recipe
from superb_eval.data import manifest, read_manifest
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError
from superb_eval.results.stats.intervals import interval
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate

EMOTIONS = ("neu", "hap", "ang", "sad")
SIZES = {"train": 23, "dev": 9, "test": 13}


def emotions(root: Path, column: str = "fold", folds: int = 5) -> Path:
    """Manifests over one file that need only be there; folds cut across the splits."""
    (root / "er").mkdir(parents=True)
    (root / "a.wav").touch()
    for split, size in SIZES.items():
        rows = [f"{split}{k},a.wav,s{k},{EMOTIONS[k % 4]},{1 + k % folds}" for k in range(size)]
        (root / "er" / f"{split}.csv").write_text("\n".join([f"id,path,speaker,emotion,{column}", *rows]))
    return root


def read(root: Path) -> Corpus:
    return read_manifest.read(root, "er", EmotionRecognition.columns)


def build(labels: tuple[str, ...] = EMOTIONS) -> EmotionRecognition:
    return EmotionRecognition(Setup(list(labels), EmotionRecognition.Head()))


def ids(corpus: Corpus) -> dict[str, list[str]]:
    return {name: [u.id for u in split] for name, split in corpus.splits.items()}


@pytest.fixture
def expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds s3prl's expert for a fold of ours, from lists like its own; its audio reader no longer works."""
    from s3prl.downstream.emotion import dataset
    from s3prl.downstream.emotion.expert import DownstreamExpert

    monkeypatch.setattr(dataset.torchaudio, "load", lambda path: (torch.zeros(1, 16), 16_000))

    def build_expert(rows: list[manifest.Utterance], fold: int) -> Any:
        listed = [{"path": f"{u.id}.wav", "label": u.labels["emotion"], "speaker": "x", "k": u.labels} for u in rows]
        folder = tmp_path / "lists" / f"Session{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, inside in (("test", True), ("train", False)):
            chosen = [row for row in listed if (row["k"]["fold"] == str(fold)) is inside]
            content = {"labels": {e: i for i, e in enumerate(EMOTIONS)}, "meta_data": chosen}
            (folder / f"{name}_meta_data.json").write_text(json.dumps(content))
        datarc = {"root": str(tmp_path), "meta_data": str(folder.parent), "test_fold": f"fold{fold}"}
        datarc |= {"pre_load": True, "train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "valid_ratio": 0.2}
        model = {"projector_dim": 256, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}
        return DownstreamExpert(48, {"datarc": datarc, "modelrc": model}, str(tmp_path))

    return build_expert


def test_folds_and_dev_sets_are_s3prls(tmp_path: Path, expert: Any) -> None:
    corpus = read(emotions(tmp_path))
    everything = [u for split in corpus.splits.values() for u in split]
    for number, fold in enumerate(EmotionRecognition.folds(corpus), start=1):
        theirs = expert(everything, number)
        expected = {
            "train": [theirs.train_dataset[k][2] for k in range(len(theirs.train_dataset))],
            "dev": [theirs.dev_dataset[k][2] for k in range(len(theirs.dev_dataset))],
            "test": [theirs.test_dataset[k][2] for k in range(len(theirs.test_dataset))],
        }
        assert ids(fold) == expected


def test_loss_gradient_and_answers_equal_s3prls(tmp_path: Path, expert: Any) -> None:
    corpus = read(emotions(tmp_path))
    rows = corpus.splits["train"].utterances[:7]
    theirs = expert([u for split in corpus.splits.values() for u in split], 1)
    task = build()
    head = task.head(48)
    assert isinstance(head, UtteranceLevel)
    head.projector.load_state_dict(theirs.projector.state_dict())
    head.classifier.load_state_dict(theirs.model.post_net.linear.state_dict())
    frames, lengths = torch.randn(7, 40, 48), torch.tensor([40, 9, 1, 33, 20, 2, 40])
    targets = [task.target(u) for u in rows]
    records: dict[str, Any] = defaultdict(list)
    expected = theirs("dev", [f[:n] for f, n in zip(frames, lengths.tolist(), strict=True)], targets, [], records)
    output = head(frames, lengths)
    actual = task.loss(output, lengths, Targets.of(targets))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    expected.backward()
    actual.backward()
    torch.testing.assert_close(head.projector.weight.grad, theirs.projector.weight.grad, rtol=1e-4, atol=1e-7)
    assert task.decode(output, lengths) == records["predict"]
    assert [u.labels["emotion"] for u in rows] == records["truth"]


def test_parameters_are_the_protocols() -> None:
    assert sum(p.numel() for p in build().head(768).parameters()) == 197_892


def test_dev_shares_are_the_protocols_for_the_counts_of_iemocap(tmp_path: Path) -> None:
    """protocol: train and dev of the five folds, from 1,085 / 1,023 / 1,151 / 1,031 / 1,241 utterances."""
    corpus = read(emotions(tmp_path))
    row = corpus.splits["train"].utterances[0]
    sizes = {1: 1085, 2: 1023, 3: 1151, 4: 1031, 5: 1241}
    rows = [
        replace(row, id=f"{k}-{n}", labels={"emotion": "neu", "fold": str(k)})
        for k, size in sizes.items()
        for n in range(size)
    ]
    whole = replace(corpus, splits={"all": manifest.Manifest("all", tuple(rows), tmp_path)})
    actual = [[len(split) for split in fold.splits.values()] for fold in EmotionRecognition.folds(whole)]
    assert actual == [[3556, 890, 1085], [3606, 902, 1023], [3504, 876, 1151], [3600, 900, 1031], [3432, 858, 1241]]


def test_every_row_is_tested_once_and_never_trained_on_in_its_fold(tmp_path: Path) -> None:
    corpus = read(emotions(tmp_path, folds=12))
    folds = EmotionRecognition.folds(corpus)
    assert len(folds) == 12
    tested = Counter(name for fold in folds for name in ids(fold)["test"])
    assert tested == Counter(u.id for split in corpus.splits.values() for u in split)
    for number, fold in enumerate(folds, start=1):
        assert {u.labels["fold"] for u in fold.splits["test"]} == {str(number)}, "2 before 10"
        assert sum(map(len, fold.splits.values())) == sum(SIZES.values())
        assert len({name for names in ids(fold).values() for name in names}) == sum(SIZES.values())


def test_without_folds_the_splits_are_used_as_they_are(tmp_path: Path) -> None:
    corpus = read(emotions(tmp_path, column="sentence"))
    assert EmotionRecognition.folds(corpus) == [corpus]


def test_half_made_folds_are_refused(tmp_path: Path) -> None:
    corpus = read(emotions(tmp_path / "a"))
    dev = corpus.splits["dev"]
    lost = replace(dev.utterances[1], labels={"emotion": "neu"})
    with pytest.raises(UserError, match=r"1 of 37 ER rows have no fold, such as 'dev1'\. Give each row one"):
        EmotionRecognition.folds(_with_dev(corpus, lost))
    twice = replace(dev.utterances[1], id="train3")
    with pytest.raises(UserError, match=r"1 ER id\(s\) are in two splits, such as 'train3'"):
        EmotionRecognition.folds(_with_dev(corpus, twice))
    with pytest.raises(UserError, match="every ER row is of fold '1'; two at least are needed"):
        EmotionRecognition.folds(read(emotions(tmp_path / "b", folds=1)))


def _with_dev(corpus: Corpus, row: manifest.Utterance) -> Corpus:
    return replace(corpus, splits={**corpus.splits, "dev": replace(corpus.splits["dev"], utterances=(row,))})


def test_an_emotion_that_only_the_tested_fold_has_is_refused_by_name(tmp_path: Path) -> None:
    corpus = read(emotions(tmp_path))
    dev = corpus.splits["dev"]
    odd = replace(dev.utterances[0], labels={"emotion": "bored", "fold": "3"})
    third = EmotionRecognition.folds(_with_dev(corpus, odd))[2]
    with pytest.raises(UserError, match="'dev0': emotion 'bored' is never seen in train"):
        EmotionRecognition.learn(third, None)


def test_the_protocols_classes_come_first(tmp_path: Path) -> None:
    corpus = read(emotions(tmp_path))
    assert EmotionRecognition.learn(corpus, None) == ["neu", "hap", "ang", "sad"]
    rows = [
        replace(u, labels={"emotion": e})
        for u, e in zip(corpus.splits["dev"].utterances[:3], ("sad", "bored", "neu"), strict=True)
    ]
    train = replace(corpus.splits["dev"], utterances=tuple(rows))
    assert EmotionRecognition.learn(replace(corpus, splits={"train": train}), None) == ["neu", "sad", "bored"]


ANSWERS = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from(EMOTIONS), st.sampled_from(EMOTIONS)), min_size=1, max_size=30
)


@given(ANSWERS)
@settings(max_examples=300, deadline=None)
def test_the_score_is_the_plain_mean_of_the_folds_accuracies(answers: list[tuple[int, str, str]]) -> None:
    rows = [Prediction(str(k), truth, answer, fold) for k, (fold, truth, answer) in enumerate(answers)]
    right = defaultdict(list)
    for row in rows:
        right[row.fold].append(row.truth == row.answer)
    expected = 100 * np.mean([sum(r) / len(r) for r in right.values()])
    (score,) = build().score(rows)
    assert score.value == pytest.approx(expected)
    constant = [[np.mean([r.truth == e for r in rows if r.fold == k]) for k in right] for e in EMOTIONS]
    assert build().chance(rows) == pytest.approx(100 * max(map(np.mean, constant)))


def test_the_interval_resamples_within_folds() -> None:
    """Folds that are each wholly right or wrong leave nothing to chance, however rows of several folds would mix."""
    rows = [Prediction(f"{k}-{n}", "neu", "neu" if k < 3 else "sad", k) for k in (1, 2, 3, 4) for n in range(5 * k)]
    (score,) = build().score(rows)
    assert score.value == 50.0
    assert interval(score) == (50.0, 50.0)
    mixed = [row._replace(answer="neu" if n % 2 else "sad") for n, row in enumerate(rows)]
    low, high = interval(build().score(mixed)[0])
    assert low < build().score(mixed)[0].value < high


def test_five_folds_from_manifests_to_record(tones: Path, tmp_path: Path) -> None:
    root = _tones_with_folds(tones, tmp_path / "corpus")
    short = ("train.steps=30", "train.eval_every=15", "train.lr=3e-2", "train.batch_size=8")
    record, folder = evaluate(RunConfig("fbank_nonorm", "er", root, overrides=short, out=tmp_path / "r"))
    (acc,) = record.metrics
    assert acc.value > 60 > (record.chance or 100)
    assert [training.fold for training in record.training] == [1, 2, 3]
    assert record.features.extracted == acc.units == 72, "one pass of the upstream for all folds"
    lines = (folder / "predictions.csv").read_text().splitlines()[1:]
    parts = [line.split(",") for line in lines]
    shares = [np.mean([p[1] == p[2] for p in parts if p[3] == fold]) for fold in "123"]
    assert acc.value == pytest.approx(100 * np.mean(shares))


def _tones_with_folds(tones: Path, root: Path) -> Path:
    shutil.copytree(tones / "audio", root / "audio")
    (root / "er").mkdir()
    for split in ("train", "dev", "test"):
        lines = (tones / "ks" / f"{split}.csv").read_text().splitlines()[1:]
        rows = [f"{line},{1 + k % 3}" for k, line in enumerate(lines)]
        (root / "er" / f"{split}.csv").write_text("\n".join(["id,path,speaker,emotion,fold", *rows]))
    return root


def test_the_official_recipe_is_the_protocol() -> None:
    """protocol: s3prl downstream/emotion/config.yaml, with the rates that the published rows were searched over."""
    official = recipe.load(recipe.find("er", "superb"))
    train = official.train
    assert (train.steps, train.batch_size * train.accumulate, train.eval_every) == (30_000, 4 * 8, 1000)
    assert (train.optimizer, train.clip, train.rates()) == ("adam", 1.0, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5))
    assert official.head == {"projector_dim": 256}
