"""KS against s3prl's own modules, on the same weights and inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from downstreams import registry
from downstreams.base import Prediction, Setup
from downstreams.batching.targets import Targets
from downstreams.ks import OFFICIAL_CLASSES, KeywordSpotting
from downstreams.nets.heads import UtteranceLevel
from downstreams.task_types.classification import ProjectorHead
from superb_eval.corpora.official.speech_commands import CLASSES
from superb_eval.data import read_manifest
from superb_eval.data.manifest import Corpus
from superb_eval.errors import UserError


@pytest.fixture(scope="module")
def corpus(tones: Path) -> Corpus:
    return read_manifest.read(tones, "ks", ("keyword",))


def build(corpus: Corpus) -> KeywordSpotting:
    head = ProjectorHead()
    return KeywordSpotting(Setup(KeywordSpotting.learn(corpus, head), head))


@pytest.fixture
def task(corpus: Corpus) -> KeywordSpotting:
    return build(corpus)


def s3prl_head(dim: int, classes: int) -> tuple[nn.Module, nn.Module]:
    """The two parts of s3prl's `downstream/speech_commands/expert.py`, whose sampler import no longer works."""
    from s3prl.downstream import model

    torch.manual_seed(1)
    return nn.Linear(dim, 256), model.UtteranceLevel(input_dim=256, output_dim=classes, pooling="MeanPooling")


def ours_with_their_weights(projector: nn.Module, theirs: nn.Module, dim: int, classes: int) -> UtteranceLevel:
    head = UtteranceLevel(dim, 256, classes)
    head.projector.load_state_dict(projector.state_dict())
    head.classifier.load_state_dict(theirs.post_net.linear.state_dict())  # type: ignore[union-attr]
    return head


def test_forward_loss_and_gradient_equal_s3prls() -> None:
    projector, theirs = s3prl_head(dim=48, classes=12)
    head = ours_with_their_weights(projector, theirs, 48, 12)
    frames, lengths, labels = torch.randn(6, 50, 48), torch.tensor([50, 9, 1, 33, 50, 20]), torch.arange(6)
    expected, _ = theirs(projector(frames), lengths)
    actual = head(frames, lengths)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    nn.CrossEntropyLoss()(expected, labels).backward()
    nn.functional.cross_entropy(actual, labels).backward()
    torch.testing.assert_close(head.projector.weight.grad, projector.weight.grad, rtol=1e-5, atol=1e-7)


def test_pooling_first_gives_the_same_logits() -> None:
    head = UtteranceLevel(48, 256, 12)
    frames, lengths = torch.randn(6, 50, 48), torch.tensor([50, 9, 1, 33, 50, 20])
    pooled = torch.stack([f[:n].mean(dim=0) for f, n in zip(frames, lengths.tolist(), strict=True)])
    torch.testing.assert_close(head(pooled, torch.ones(len(pooled))), head(frames, lengths), rtol=1e-5, atol=1e-5)


def test_padding_changes_no_output() -> None:
    head = UtteranceLevel(8, 4, 3)
    frames, lengths = torch.randn(2, 10, 8), torch.tensor([10, 4])
    louder = frames.clone()
    louder[1, 4:] = 1e6
    assert torch.equal(head(frames, lengths)[1], head(louder, lengths)[1])


def test_parameters_are_the_protocols() -> None:
    """Protocol: 199,948 for a 768-dimensional upstream (256 x 769 + 12 x 257)."""
    assert sum(p.numel() for p in UtteranceLevel(768, 256, 12).parameters()) == 199_948


def test_loss_starts_near_that_of_guessing(task: KeywordSpotting) -> None:
    logits = torch.zeros(3, 3)
    assert task.loss(logits, None, Targets.of([0, 1, 2])).item() == pytest.approx(torch.log(torch.tensor(3.0)).item())


def test_the_official_classes_come_first_in_their_order(task: KeywordSpotting, corpus: Corpus) -> None:
    assert OFFICIAL_CLASSES == CLASSES
    assert task.labels == ["yes", "no", "_unknown_"]
    rows = corpus.splits["train"].utterances
    zero = replace(rows[0], labels={"keyword": "zero"})
    more = replace(corpus, splits={**corpus.splits, "train": replace(corpus.splits["train"], utterances=(*rows, zero))})
    assert build(more).labels == ["yes", "no", "_unknown_", "zero"]


def test_a_test_label_never_seen_in_training_is_refused(corpus: Corpus) -> None:
    test = corpus.splits["test"]
    wrong = replace(test.utterances[2], labels={"keyword": "maybe"})
    bad = replace(test, utterances=(*test.utterances[:2], wrong, *test.utterances[3:]))
    with pytest.raises(UserError, match=r"test\.csv: (?s:.*)line 4: keyword 'maybe' is never seen in train"):
        build(replace(corpus, splits={**corpus.splits, "test": bad}))


def test_answers_are_scored(task: KeywordSpotting) -> None:
    answers = task.decode(torch.tensor([[0.1, 0.9, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.ones(3))
    assert answers == ["no", "yes", "_unknown_"]
    rows = [Prediction("", truth, answer) for truth, answer in zip(["no", "no", "_unknown_"], answers, strict=True)]
    (score,) = task.score(rows)
    assert score.value == pytest.approx(200 / 3)
    assert task.chance(rows) == pytest.approx(200 / 3)


def test_every_task_is_found_by_its_name() -> None:
    for name in registry.names():
        kind = registry.get(name)
        assert kind.name == name and kind.metrics and kind.title
    with pytest.raises(UserError, match="no task is called 'kss'. Did you mean 'ks'"):
        registry.get("kss")
