"""Heads that were saved before their parameters were renamed are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from downstreams.nets.recurrent import Recogniser
from downstreams.nets.xvector import XVector
from downstreams.task_types.ctc import RecogniserSettings
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing import probe_state
from superb_eval.probing.probe import Probe, load_weights
from superb_eval.probing.probe_state import ProbeState
from superb_eval.runtime import safetensors_io

FORMER_NAMES = {"segment6": "tested", "segment7": "trained", "forward_lstm": "onward", "backward_lstm": "homeward"}

HEADS = {
    "asr": lambda: Recogniser(6, 5, RecogniserSettings(projector_dim=4, hidden_dim=4, dropout=0.0, specaug=None)),
    "asv": lambda: XVector(6, 3, hidden=4, wide=5),
}

LENGTHS = torch.tensor([20, 17])


def probe_of(head: Callable[[], nn.Module], seed: int) -> tuple[Probe, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    probe = Probe(Featurizer(2), head())
    return probe, torch.optim.Adam(probe.parameters(), lr=0.1)


def step(probe: Probe, optimizer: torch.optim.Optimizer) -> None:
    features = torch.randn(2, 20, 2, 6, generator=torch.Generator().manual_seed(1))
    optimizer.zero_grad()
    probe(features, LENGTHS).square().sum().backward()
    optimizer.step()


def with_former_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the former names."""
    named = {}
    for key, tensor in weights.items():
        name = key
        for current, former in FORMER_NAMES.items():
            name = name.replace(current, former)
        named[name] = tensor
    assert named.keys() != weights.keys()
    return named


@pytest.mark.parametrize("task", HEADS)
def test_a_checkpoint_resumes_with_the_same_bits(task: str, tmp_path: Path) -> None:
    probe, optimizer = probe_of(HEADS[task], 0)
    step(probe, optimizer)
    path = tmp_path / probe_state.LAST
    probe_state.save(path, 1, [ProbeState(0.1, probe, tmp_path)], [optimizer], "engine 1, x 2")
    resumed, other = probe_of(HEADS[task], 5)
    done, (optimizer_state,) = probe_state.resume(path, [ProbeState(0.1, resumed, tmp_path)], "engine 1, x 2")
    other.load_state_dict(optimizer_state)
    step(probe, optimizer), step(resumed, other)
    assert done == 1
    assert all(torch.equal(a, b) for a, b in zip(probe.parameters(), resumed.parameters(), strict=True))


def test_a_checkpoint_of_another_version_is_not_continued(tmp_path: Path) -> None:
    """Its updates drew other batches, so the run would be one of neither version."""
    probe, optimizer = probe_of(HEADS["asv"], 0)
    path = tmp_path / probe_state.LAST
    probe_state.save(path, 1, [ProbeState(0.1, probe, tmp_path)], [optimizer], "engine 1, x 1")
    with pytest.warns(UserWarning, match="of another version than engine 1, x 2; this training starts over"):
        assert probe_state.resume(path, [ProbeState(0.1, probe, tmp_path)], "engine 1, x 2") == (0, [])


@pytest.mark.parametrize("task", HEADS)
def test_former_weights_are_loaded(task: str, tmp_path: Path) -> None:
    probe, _ = probe_of(HEADS[task], 0)
    weights = {name: tensor.detach().contiguous() for name, tensor in probe.state_dict().items()}
    safetensors_io.write(tmp_path / "probe-1.safetensors", with_former_names(weights))
    loaded, _ = probe_of(HEADS[task], 5)
    load_weights(tmp_path / "probe-1.safetensors", loaded)
    assert all(torch.equal(a, b) for a, b in zip(probe.parameters(), loaded.parameters(), strict=True))
