"""ASV against s3prl's own modules, on the same weights and inputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from downstreams.asv import SpeakerVerification, VerificationHead
from downstreams.base import Setup
from downstreams.nets.xvector import LOST_FRAMES, MIN_FRAMES, XVector, am_softmax
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Trial, Utterance
from superb_eval.errors import UserError

HIDDEN, WIDE, DIM, SPEAKERS = 24, 40, 10, 7
LENGTHS = [60, 33, 16, 60, 47]


@pytest.fixture(scope="module")
def theirs() -> nn.ModuleDict:
    from s3prl.downstream.sv_voxceleb1 import model

    torch.manual_seed(3)
    hparams = {"agg_dim": WIDE, "dropout_p": 0.0, "batch_norm": False}
    return nn.ModuleDict(
        {
            "connector": nn.Linear(DIM, HIDDEN),
            "model": model.Model(HIDDEN, WIDE, "SP", "XVector", "UtteranceExtractor", hparams),
            "objective": model.AMSoftmaxLoss(HIDDEN, SPEAKERS, s=30.0, m=0.4),
        }
    )


def ours(theirs: nn.ModuleDict, one_frame_more: bool = True) -> XVector:
    """A head with s3prl's weights."""
    head = XVector(DIM, SPEAKERS, HIDDEN, WIDE, one_frame_more)
    copy_weights(theirs, head)
    return head


def copy_weights(theirs: nn.ModuleDict, head: Any) -> None:
    model: Any = theirs["model"]
    head.connector.load_state_dict(theirs["connector"].state_dict())
    for layer, tdnn in zip(head.tdnn, model.framelevel_feature_extractor.module, strict=True):
        out, width = tdnn.kernel.weight.shape
        frames = tdnn.context_size
        # Theirs is a matrix over unfolded frames, [out, frames x in]; ours a convolution, [out, in, frames].
        layer.weight.data = (
            tdnn.kernel.weight.data.view(out, frames, width // frames)
            .transpose(1, 2)
            .clone(memory_format=torch.contiguous_format)
        )
        layer.bias.data = tdnn.kernel.bias.data.clone()  # type: ignore[union-attr]
    head.segment6.load_state_dict(model.utterancelevel_feature_extractor.linear1.state_dict())
    head.segment7.load_state_dict(model.utterancelevel_feature_extractor.linear2.state_dict())
    head.speakers.data = theirs["objective"].W.data.clone()  # type: ignore[union-attr]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    features = [torch.randn(n, DIM) for n in LENGTHS]
    return nn.utils.rnn.pad_sequence(features, batch_first=True), torch.tensor(LENGTHS)


def mask(lengths: torch.Tensor) -> torch.Tensor:
    """What s3prl's expert hands to its model."""
    ones = [torch.ones(int(n) - LOST_FRAMES) for n in lengths]
    return (1.0 - nn.utils.rnn.pad_sequence(ones, batch_first=True)) * -100000.0


def test_training_equals_s3prls_with_its_slip(theirs: nn.ModuleDict, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """In 64 bits: in 32, rounding decides on which side of ReLU's kink a unit lies, so whether it has a gradient."""
    features, lengths = batch[0].double(), batch[1]
    speakers = torch.tensor([0, 6, 3, 3, 1])
    head = ours(theirs).train().double()
    theirs = copy.deepcopy(theirs).double()
    embedding = theirs["model"](theirs["connector"](features), mask(lengths).double())
    expected = theirs["objective"](embedding, speakers)
    actual = am_softmax(head(features, lengths), speakers, 30.0, 0.4)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    expected.backward()
    actual.backward()
    torch.testing.assert_close(head.connector.weight.grad, theirs["connector"].weight.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head.speakers.grad, theirs["objective"].W.grad, rtol=1e-4, atol=1e-6)


def test_the_slip_can_be_left_out(theirs: nn.ModuleDict, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    features, lengths = batch
    slipped, plain = (
        ours(theirs).train()(features, lengths),
        ours(theirs, one_frame_more=False).train()(features, lengths),
    )
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(slipped, plain, strict=True)]
    assert same == [n == max(LENGTHS) for n in LENGTHS]
    alone = ours(theirs).train()(features[1:2, : LENGTHS[1]], lengths[1:2])
    torch.testing.assert_close(plain[1:2], alone, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_tested_embeddings_equal_s3prls_one_by_one(
    theirs: nn.ModuleDict, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    features, lengths = batch
    actual = ours(theirs).eval()(features, lengths)
    model: Any = theirs["model"]
    for row, frames, n in zip(actual, features, lengths, strict=True):
        expected = model.inference(theirs["connector"](frames[None, :n]), mask(n[None]))
        torch.testing.assert_close(row[None], nn.functional.normalize(expected, dim=-1), rtol=1e-6, atol=1e-6)


def test_parameters_are_the_protocols() -> None:
    """Protocol: 6,730,204 for a 768-dimensional upstream and 1,211 speakers."""
    assert sum(p.numel() for p in XVector(768, 1211).parameters()) == 6_730_204


def test_padding_changes_no_embedding(theirs: nn.ModuleDict, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    features, lengths = batch
    louder = features.clone()
    louder[1, LENGTHS[1] :] = 1e6
    head = ours(theirs).eval()
    assert torch.equal(head(features, lengths)[1], head(louder, lengths)[1])


def test_an_utterance_too_short_for_the_network_has_an_embedding(theirs: nn.ModuleDict) -> None:
    frames = torch.randn(1, 3, DIM)
    longer = torch.cat([frames, frames[:, -1:].expand(-1, MIN_FRAMES - 3, -1)], dim=1)
    head = ours(theirs).eval()
    actual = head(frames, torch.tensor([3]))
    assert torch.isfinite(actual).all()
    torch.testing.assert_close(actual, head(longer, torch.tensor([MIN_FRAMES])))
    loss = am_softmax(head.train()(frames, torch.tensor([3])), torch.tensor([0]), 30.0, 0.4)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_the_loss_is_the_protocols_example() -> None:
    """Two speakers, cosines 1 and -1, scale 30, margin 0.4: the right logit is 18, the other -30."""
    actual = am_softmax(torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.tensor([0]), 30.0, 0.4)
    assert actual.item() == pytest.approx(np.log1p(np.exp(-30 - 18)), rel=1e-6)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    def split(name: str, speakers: str) -> Manifest:
        rows = tuple(Utterance(f"{s}{k}", Clip(tmp_path / f"{s}{k}.wav"), s) for s in speakers for k in (1, 2))
        a, b = speakers[:2]
        trials = (Trial(f"{a}1", f"{a}2", True), Trial(f"{a}1", f"{b}1", False), Trial(f"{b}1", f"{b}2", True))
        return Manifest(name, rows, tmp_path / f"{name}.csv", trials if name != "train" else ())

    return Corpus("c", tmp_path, {n: split(n, s) for n, s in (("train", "CAB"), ("dev", "DE"), ("test", "FG"))})


def build(corpus: Corpus) -> SpeakerVerification:
    head = VerificationHead()
    return SpeakerVerification(Setup(SpeakerVerification.learn(corpus, head), head))


def embeddings(corpus: Corpus) -> Iterator[np.ndarray]:
    """One direction for each speaker, slightly turned for each utterance."""
    for k, u in enumerate(corpus.splits["test"]):
        actual = np.array([1.0, 0.1 * k]) if u.speaker == "F" else np.array([0.1 * k, 1.0])
        yield actual / np.linalg.norm(actual)


def test_trials_become_rows_and_are_scored(corpus: Corpus) -> None:
    task = build(corpus)
    assert task.labels == ["A", "B", "C"]
    assert task.target(corpus.splits["train"].utterances[0]) == 2
    rows = task.rows(corpus.splits["test"], list(embeddings(corpus)))
    assert [(row.id, row.truth) for row in rows] == [("F1 F2", "1"), ("F1 G1", "0"), ("G1 G2", "1")]
    assert float(rows[0].answer) == pytest.approx(np.cos(np.arctan(0.1)), abs=1e-6)
    (score,) = task.score(rows)
    assert score.value == 0 and score.units == 3
    assert task.chance(rows) == 50


def test_trials_belong_to_the_digest(corpus: Corpus) -> None:
    test = corpus.splits["test"]
    fewer = Manifest("test", test.utterances, test.source, test.trials[:2])
    assert fewer.digest() != test.digest()


def test_a_speaker_in_two_splits_is_refused(corpus: Corpus) -> None:
    test = corpus.splits["test"]
    stray = Utterance("A9", test.utterances[0].clip, "A")
    corpus.splits["test"] = Manifest("test", (*test.utterances, stray), test.source, test.trials)
    with pytest.raises(UserError, match=r"test\.csv: 1 speaker\(s\) of test are in train too: A\."):
        build(corpus)


def test_trials_of_one_kind_are_refused(corpus: Corpus) -> None:
    dev = corpus.splits["dev"]
    corpus.splits["dev"] = Manifest("dev", dev.utterances, dev.source, dev.trials[:1])
    with pytest.raises(UserError, match=r"dev has 1 trial\(s\), of which 1 are of one speaker; .* needs both kinds"):
        build(corpus)


def test_heads_saved_under_former_names_load(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    ours = XVector(DIM, SPEAKERS, HIDDEN, WIDE)
    former = {
        f"head.{name.replace('segment6', 'tested').replace('segment7', 'trained')}": weights
        for name, weights in ours.state_dict().items()
    }
    assert {"head.tested.weight", "head.trained.bias"} < former.keys()
    loaded = nn.ModuleDict({"head": XVector(DIM, SPEAKERS, HIDDEN, WIDE)})
    loaded.load_state_dict(former)
    assert torch.equal(loaded["head"](*batch), ours(*batch))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*head\.tester"):
        loaded.load_state_dict({**former, "head.tester.weight": torch.zeros(1)})
