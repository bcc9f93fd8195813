"""The bidirectional LSTM of ASR and SF: padded, as a CPU computes it, and packed, as a GPU does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from downstreams.nets import recurrent
from downstreams.nets.recurrent import BidirectionalLSTM, packing
from superb_eval.data.padding import valid_mask

LENGTHS = torch.tensor([7, 12, 1, 9])


@pytest.fixture
def lstm() -> BidirectionalLSTM:
    torch.manual_seed(0)
    return BidirectionalLSTM(5, 3)


def outputs_and_gradients(output: Tensor, lstm: nn.Module, features: Tensor) -> list[Tensor]:
    """The valid frames, and the gradients of their squares."""
    valid = output[valid_mask(LENGTHS, output.shape[1])]
    return [valid, *torch.autograd.grad(valid.square().sum(), [features, *lstm.parameters()])]


def test_packed_and_padded_are_torchs_bidirectional_lstm(lstm: BidirectionalLSTM) -> None:
    features = torch.randn(4, 12, 5, requires_grad=True)
    theirs = nn.LSTM(5, 3, batch_first=True, bidirectional=True)
    weights = [*lstm.forward_lstm.parameters(), *lstm.backward_lstm.parameters()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights, strict=True)))
    sequence = pack_padded_sequence(features, LENGTHS, batch_first=True, enforce_sorted=False)
    expected = outputs_and_gradients(pad_packed_sequence(theirs(sequence)[0], batch_first=True)[0], theirs, features)
    for output in (lstm.padded(features, LENGTHS), lstm.packed(features, LENGTHS)):
        for ours, other in zip(outputs_and_gradients(output, lstm, features), expected, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


def test_the_packed_sequence_is_torchs() -> None:
    features = torch.arange(48).view(4, 12, 1)
    sequence = pack_padded_sequence(features, LENGTHS, batch_first=True, enforce_sorted=False)
    numbers, batch_sizes = packing(LENGTHS, 12)
    assert numbers.tolist() == sequence.data.flatten().tolist()
    assert batch_sizes.tolist() == sequence.batch_sizes.tolist()


def test_joined_weights_lie_in_one_tensor_and_pass_gradients(lstm: BidirectionalLSTM) -> None:
    directions = [lstm.forward_lstm, lstm.backward_lstm]
    joined = recurrent._weights(directions, torch.bfloat16)
    own = [*lstm.forward_lstm.parameters(), *lstm.backward_lstm.parameters()]
    for slices, weights in zip(joined, own, strict=True):
        torch.testing.assert_close(slices, weights.bfloat16(), rtol=0, atol=0)
    assert len({slices.untyped_storage().data_ptr() for slices in joined}) == 1
    order = [joined[k].data_ptr() for k in (0, 1, 4, 5, 2, 3, 6, 7)]
    assert order == sorted(order), "all matrices, then all biases"
    sum(slices.sum() for slices in joined).backward()  # type: ignore[union-attr]
    assert all(weights.grad is not None and torch.all(weights.grad == 1) for weights in own)


def test_an_lstms_own_weights_are_not_copied(lstm: BidirectionalLSTM) -> None:
    own = list(lstm.forward_lstm.parameters())
    assert all(a is b for a, b in zip(recurrent._weights([lstm.forward_lstm], torch.float32), own, strict=True))


def test_under_autocast_a_cpu_computes_recurrences_in_float32(lstm: BidirectionalLSTM) -> None:
    features = torch.randn(4, 12, 5)
    with torch.autocast("cpu", torch.bfloat16):
        output = lstm(features, LENGTHS)
    assert torch.equal(output, lstm(features, LENGTHS))
