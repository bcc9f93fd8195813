"""CTC's loss and decoding, and the heads of PR, ASR and SF, against s3prl's modules on the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from downstreams.batching.targets import Targets
from downstreams.nets.heads import FrameHead
from downstreams.nets.recurrent import Recogniser, stack_frames
from downstreams.task_types import ctc
from downstreams.task_types.ctc import RecogniserSettings

LENGTHS = torch.tensor([30, 9, 1, 17])


def small(**changes: object) -> RecogniserSettings:
    return RecogniserSettings.model_validate({"projector_dim": 12, "hidden_dim": 7, **changes})


def reference(dim: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    """The projector and the recurrent network of s3prl's `downstream/asr/expert.py`."""
    from s3prl.downstream.asr.model import RNNs

    torch.manual_seed(3)
    layers = {"dim": [7, 7], "dropout": [0.2, 0.2], "layer_norm": [False] * 2, "proj": [False] * 2}
    rnns = RNNs(
        12,
        outputs,
        320,
        module="LSTM",
        bidirection=True,
        sample_rate=[1, 1],
        sample_style="concat",
        total_rate=-1,
        **layers,
    )
    return nn.Linear(dim, 12), rnns


def test_the_recurrent_head_equals_s3prls() -> None:
    projector, theirs = reference(20, 9)
    ours = Recogniser(20, 9, small())
    ours.projector.load_state_dict(projector.state_dict())
    for layer, other in zip(ours.recurrent, theirs.rnns, strict=True):  # type: ignore[arg-type]
        for name, weight in other.layer.state_dict().items():
            one = layer.backward_lstm if name.endswith("_reverse") else layer.forward_lstm
            one.state_dict()[name.removesuffix("_reverse")].copy_(weight)
    ours.classifier.load_state_dict(theirs.linear.state_dict())  # type: ignore[union-attr]
    features = torch.randn(4, 30, 20)
    theirs.eval(), ours.eval()
    expected, lengths = theirs(projector(features), LENGTHS)
    actual = ours(features, LENGTHS)
    assert torch.equal(lengths, LENGTHS)
    for row, other, n in zip(actual, expected, LENGTHS.tolist(), strict=True):
        torch.testing.assert_close(row[:n], other[:n], rtol=1e-6, atol=1e-6)
    targets = [[3, 4, 4, 1], [5, 1], [2], [6, 7, 1]]
    objective = nn.CTCLoss(blank=0, zero_infinity=True)
    padded = nn.utils.rnn.pad_sequence([torch.tensor(t) for t in targets], batch_first=True)
    sizes = torch.tensor([len(t) for t in targets])
    reference_loss = objective(expected.log_softmax(-1).transpose(0, 1), padded, lengths, sizes)
    torch.testing.assert_close(ctc.loss(actual, LENGTHS, Targets.of(targets), 0), reference_loss, rtol=1e-6, atol=1e-6)


def test_the_frame_head_equals_s3prls() -> None:
    from s3prl.downstream.model import FrameLevel

    projector, theirs, ours = nn.Linear(20, 12), FrameLevel(12, 9), FrameHead(20, 12, 9)
    ours.projector.load_state_dict(projector.state_dict())
    ours.classifier.load_state_dict(theirs.linear.state_dict())
    features = torch.randn(4, 30, 20)
    torch.testing.assert_close(ours(features, LENGTHS), theirs(projector(features))[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "parameters"),
    [
        (lambda: FrameHead(768, 256, 74), 215_882),
        (lambda: Recogniser(768, 32, RecogniserSettings()), 42_828_832),
        (lambda: Recogniser(768, 109, RecogniserSettings()), 42_986_605),
    ],
)
def test_parameters_are_the_protocols(head: object, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in head().parameters()) == parameters  # type: ignore[operator]


def test_padding_changes_no_output() -> None:
    ours = Recogniser(20, 9, small()).eval()
    features = torch.randn(4, 30, 20)
    louder = features.clone()
    louder[1, 9:] = 1e6
    assert torch.equal(ours(features, LENGTHS)[1, :9], ours(louder, LENGTHS)[1, :9])
    torch.testing.assert_close(ours(features[1:2, :9], LENGTHS[1:2])[0], ours(features, LENGTHS)[1, :9])


def test_masks_and_dropout_are_for_training_alone() -> None:
    ours = Recogniser(20, 9, small())
    features = torch.randn(4, 30, 20)
    assert not torch.equal(ours(features, LENGTHS), ours(features, LENGTHS))
    ours.eval()
    assert torch.equal(ours(features, LENGTHS), ours(features, LENGTHS))
    without = Recogniser(20, 9, small(specaug=None, dropout=0.0))
    assert torch.equal(without(features, LENGTHS), without(features, LENGTHS))


def logits(*paths: list[int]) -> tuple[Tensor, Tensor]:
    rows = [nn.functional.one_hot(torch.tensor(path), 4).float() for path in paths]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(path) for path in paths])


def test_greedy_decoding_merges_repeats_then_drops_blanks() -> None:
    assert ctc.greedy(*logits([0, 1, 1, 0, 1, 2, 2], [3], [0, 0, 0]), blank=0) == [[1, 1, 2], [3], []]
    assert ctc.greedy(*logits([1, 1, 0]), blank=1) == [[0]]


def test_a_target_too_long_for_its_frames_costs_nothing() -> None:
    output, lengths = torch.randn(2, 5, 4, requires_grad=True), torch.tensor([5, 2])
    loss = ctc.loss(output, lengths, Targets.of([[1, 2], [1, 2, 3]]), 0)
    torch.testing.assert_close(loss, ctc.loss(output[:1], lengths[:1], Targets.of([[1, 2]]), 0) / 2)
    loss.backward()
    assert output.grad is not None and output.grad.isfinite().all()


def test_frames_are_stacked_where_the_recipe_wants_longer_ones() -> None:
    assert [ctc.stacking(small(frame_samples=n), 160) for n in (None, 160, 320, 640, 100)] == [1, 1, 2, 4, 1]
    assert [ctc.stacking(small(frame_samples=n), 320) for n in (320, 480, 640)] == [1, 1, 2]
    features = torch.arange(10.0).reshape(1, 5, 2)
    assert stack_frames(features, 2).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]]
    assert ctc.stacked_lengths(torch.tensor([5, 4, 1]), 2).tolist() == [3, 2, 1]
    head = Recogniser(2, 4, small(), stack=2)
    assert head(features, torch.tensor([5])).shape == (1, 3, 4)


def test_heads_saved_under_former_names_load() -> None:
    ours, loaded = Recogniser(20, 9, small()).eval(), Recogniser(20, 9, small()).eval()
    former = {
        name.replace("forward_lstm", "onward").replace("backward_lstm", "homeward"): weights
        for name, weights in ours.state_dict().items()
    }
    assert {"recurrent.0.onward.weight_ih_l0", "recurrent.1.homeward.bias_hh_l0"} < former.keys()
    before = dict(former)
    loaded.load_state_dict(former)
    assert former.keys() == before.keys(), "the caller's state dict is left alone"
    features = torch.randn(4, 30, 20)
    assert torch.equal(loaded(features, LENGTHS), ours(features, LENGTHS))
