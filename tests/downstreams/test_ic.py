"""IC against s3prl's own expert, on the same tables, weights and inputs."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from downstreams.base import Prediction, Setup
from downstreams.batching.targets import Targets
from downstreams.ic import IntentClassification, IntentHead
from downstreams.nets.heads import UtteranceLevel
from superb_eval import recipe
from superb_eval.data import read_manifest
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError
from superb_eval.recipe import Recipe
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate

ACTIONS = ["change language", "activate", "deactivate", "increase", "decrease", "bring"]
OBJECTS = ["none", "music", "lights", "volume", "heat", "lamp", "newspaper", "juice", "socks", "shoes"]
OBJECTS += ["Chinese", "Korean", "English", "German"]
LOCATIONS = ["none", "kitchen", "bedroom", "washroom"]
TRAIN = [(ACTIONS[k % 6], OBJECTS[k], LOCATIONS[k % 4]) for k in range(14)]


def intents(root: Path, rows: dict[str, list[tuple[str, str, str]]]) -> Path:
    """A corpus as manifests in `ic/`, and as the tables that s3prl reads in `data/`."""
    (root / "ic").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "a.wav").touch()
    for split, values in rows.items():
        ours = [f"{split}{k},a.wav,anna,{','.join(v)}" for k, v in enumerate(values)]
        (root / "ic" / f"{split}.csv").write_text("\n".join(["id,path,speaker,action,object,location", *ours]))
        theirs = [f"{k},a.wav,anna,words,{','.join(v)}" for k, v in enumerate(values)]
        name = {"dev": "valid"}.get(split, split)
        header = ",path,speakerId,transcription,action,object,location"
        (root / "data" / f"{name}_data.csv").write_text("\n".join([header, *theirs]))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return intents(tmp_path_factory.mktemp("ic"), {"train": TRAIN, "dev": TRAIN[:3], "test": TRAIN[3:9]})


@pytest.fixture(scope="module")
def corpus(root: Path) -> Corpus:
    return read_manifest.read(root, "ic", IntentClassification.needs(IntentHead()))


@pytest.fixture(scope="module")
def task(corpus: Corpus) -> IntentClassification:
    return build(corpus)


def build(corpus: Corpus, head: IntentHead | None = None) -> IntentClassification:
    head = head or IntentHead()
    return IntentClassification(Setup(IntentClassification.learn(corpus, head), head))


@pytest.fixture(scope="module")
def expert(root: Path) -> Any:
    """s3prl's expert, with the settings of its config.yaml."""
    from s3prl.downstream.fluent_commands.expert import DownstreamExpert

    torch.manual_seed(2)
    datarc = {"file_path": str(root), "num_workers": 0, "train_batch_size": 32, "eval_batch_size": 32}
    model = {"projector_dim": 256, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}
    return DownstreamExpert(48, {"datarc": datarc, "modelrc": model}, str(root))


def test_values_are_numbered_as_s3prl_does(task: IntentClassification, expert: Any, corpus: Corpus) -> None:
    assert task.sizes == expert.values_per_slot == [6, 14, 4]
    for slot, values in task.labels.items():
        assert [expert.Sy_intent[slot][value] for value in values] == list(range(len(values)))
    assert task.labels["object"] == OBJECTS, "in order of first appearance, not sorted"
    for k, utterance in enumerate(corpus.splits["test"]):
        expected = [expert.Sy_intent[s][expert.test_df.loc[k][s]] for s in ("action", "object", "location")]
        assert task.target(utterance) == expected


def test_loss_gradient_answers_and_accuracy_equal_s3prls(
    task: IntentClassification, expert: Any, corpus: Corpus
) -> None:
    head = task.head(48)
    assert isinstance(head, UtteranceLevel)
    head.projector.load_state_dict(expert.projector.state_dict())
    head.classifier.load_state_dict(expert.model.post_net.linear.state_dict())
    torch.manual_seed(3)
    frames, lengths = torch.randn(14, 40, 48), torch.randint(1, 41, (14,))
    train = corpus.splits["train"]
    targets = [task.target(u) for u in train]
    records: dict[str, Any] = defaultdict(list)
    # Copies: the expert's own module must not share the graph with ours.
    features = [f[:n].clone() for f, n in zip(frames, lengths.tolist(), strict=True)]
    theirs = expert("test", features, targets, [u.id for u in train], records)
    output = head(frames, lengths)
    ours = task.loss(output, lengths, Targets.of(targets))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    theirs.backward()
    ours.backward()
    torch.testing.assert_close(head.projector.weight.grad, expert.projector.weight.grad, rtol=1e-4, atol=1e-7)
    decoded = task.decode(output, lengths)
    assert [tuple(json.loads(answer).values()) for answer in decoded] == records["predict"]
    rows = task.rows(train, decoded)
    assert [tuple(json.loads(row.truth).values()) for row in rows] == records["truth"]
    assert task.score(rows)[0].value == pytest.approx(100 * sum(records["acc"]) / 14)


def test_parameters_are_the_protocols(task: IntentClassification) -> None:
    assert sum(p.numel() for p in task.head(768).parameters()) == 203_032


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 6), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_an_answer_is_right_where_every_slot_is(triples: list[tuple[int, ...]]) -> None:
    labels = {slot: ["x", "y", "z"] for slot in ("a", "b", "c")}
    task = IntentClassification(Setup(labels, IntentHead(slots=("a", "b", "c"))))
    logits = torch.zeros(len(triples), 9)
    for logit, triple in zip(logits, triples, strict=True):
        for slot in range(3):
            logit[3 * slot + triple[slot]] = 1.0
    truths = [dict(zip("abc", ("xyz"[v] for v in triple[3:]), strict=True)) for triple in triples]
    decoded = task.decode(logits, torch.ones(len(logits)))
    rows = [Prediction(str(k), json.dumps(t), a) for k, (t, a) in enumerate(zip(truths, decoded, strict=True))]
    expected = 100 * sum(t[:3] == t[3:] for t in triples) / len(triples)
    assert task.score(rows)[0].value == pytest.approx(expected)
    most = max(sum(other[3:] == t[3:] for other in triples) for t in triples)
    assert task.chance(rows) == pytest.approx(100 * most / len(triples))


def test_values_with_any_characters_are_distinguished(corpus: Corpus) -> None:
    row = corpus.splits["train"].utterances[0]
    labels = [
        {"action": 'a", "b', "object": "c", "location": "d"},
        {"action": "a", "object": 'b", "c', "location": "d"},
    ]
    rows = tuple(replace(row, labels=values) for values in labels)
    task = build(replace(corpus, splits={"train": replace(corpus.splits["train"], utterances=rows)}))
    first, second = (task.truth(u) for u in rows)
    assert first != second
    assert task.show([task.truth(corpus.splits["train"].utterances[3])]) == [
        "action increase, object volume, location washroom"
    ]


def test_values_never_seen_in_training_are_refused_those_of_all_slots_at_once(tmp_path: Path) -> None:
    bad = [("fly", "none", "none"), ("activate", "music", "roof")]
    root = intents(tmp_path, {"train": TRAIN, "dev": TRAIN[:1], "test": bad})
    with pytest.raises(UserError, match=r"line 2: action 'fly' is never seen(?s:.*)line 3: location 'roof'"):
        build(read_manifest.read(root, "ic", ("action", "object", "location")))


def test_the_slots_are_the_recipes(tones: Path, tmp_path: Path) -> None:
    """Manifests with slots of their own, from the recipe to the record."""
    root = _two_slots(tones, tmp_path / "corpus")
    short = ("train.steps=80", "train.eval_every=20", "train.lr=3e-2", "train.batch_size=8")
    order = RunConfig("fbank_nonorm", "ic", root, overrides=(*short, "head.slots=[pitch, height]"), out=tmp_path / "r")
    record, folder = evaluate(order)
    assert record.metrics[0].value > 60 > (record.chance or 100)
    assert record.recipe["head"]["slots"] == ["pitch", "height"]
    labels = json.loads((folder / "labels.json").read_text())
    assert labels == {"1": {"pitch": ["yes", "no", "_unknown_"], "height": ["low", "high"]}}
    advice = (
        r"missing column\(s\) action, object, location \(found: id, path, speaker, pitch, height\)\. Or name the slots"
    )
    with pytest.raises(UserError, match=advice + r' to recognise, such as -o "head\.slots=\[pitch, height\]"\.$'):
        evaluate(replace(order, overrides=short))


def _two_slots(tones: Path, root: Path) -> Path:
    (root / "ic").mkdir(parents=True)
    (root / "audio").mkdir()
    for split in ("train", "dev", "test"):
        rows = []
        for line in (tones / "ks" / f"{split}.csv").read_text().splitlines()[1:]:
            name, path, speaker, word = line.split(",")
            (root / "audio" / f"{name}.flac").write_bytes((tones / path).read_bytes())
            rows.append(f"{name},audio/{name}.flac,{speaker},{word},{'high' if word == '_unknown_' else 'low'}")
        (root / "ic" / f"{split}.csv").write_text("\n".join(["id,path,speaker,pitch,height", *rows]))
    return root


def test_slots_that_the_official_corpus_lacks_are_named(corpus: Corpus) -> None:
    with pytest.raises(UserError, match=r"has no label size \(found: action, object, location\)\. Fix -o head\.slots"):
        build(corpus, IntentHead(slots=("action", "size")))


def test_the_official_recipe_is_the_protocol() -> None:
    """protocol: s3prl downstream/fluent_commands/config.yaml, with the rates that published rows were searched over."""
    official = load("superb")
    train = official.train
    assert (train.steps, train.batch_size, train.accumulate, train.eval_every) == (200_000, 32, 1, 5000)
    assert (train.optimizer, train.clip, train.rates()) == ("adam", 1.0, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5))
    assert official.head == {"projector_dim": 256, "slots": ("action", "object", "location")}
    with pytest.raises(UserError, match="head.slots"):
        load("nano", "head.slots=[]")


def load(profile: str, *overrides: str) -> Recipe:
    return recipe.load(recipe.find("ic", profile), overrides)
