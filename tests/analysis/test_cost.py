"""What upstreams cost: counts that can be checked by hand, and comparisons that hold on a busy machine."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from superb_eval.analysis import cost
from superb_eval.analysis.cost import Cost
from superb_eval.errors import UserError
from superb_eval.results.table import costs
from upstreams import registry


def by_hand(frames: int, width: int, feed_forward: int, layers: int) -> int:
    """Multiply-accumulates of transformer layers: four projections, attention's two products, two more projections."""
    return layers * (4 * frames * width**2 + 2 * frames**2 * width + 2 * frames * width * feed_forward)


def convolutions(samples: int, channels: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-accumulates of HuBERT's convolutions, and the frames that they leave."""
    total, before = 0, 1
    for kernel, stride, after in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), channels, strict=True):
        samples = (samples - kernel) // stride + 1
        total, before = total + samples * kernel * before * after, after
    return total, samples


def test_multiply_accumulates_by_hand() -> None:
    config = registry.load("hubert_nano@random").model.config  # type: ignore[union-attr]
    width, kernel = config.hidden_size, config.num_conv_pos_embeddings
    expected, frames = convolutions(32_000, config.conv_dim)
    windows, first = (32_000 - 10) // 5 + 1, config.conv_dim[0]
    expected += windows * 10 * 10 + first * 10 * 10  # the first norm, from the windows' covariance
    expected += first * 10 + first * (windows + 1 + 10)  # its mean; its bias, an eleventh input; a window of padding
    expected += frames * config.conv_dim[-1] * width  # projection
    # The positional convolution pads by half its kernel on both sides, and drops its last frame.
    expected += (frames + 1) * kernel * width * (width // config.num_conv_pos_embedding_groups)
    expected += by_hand(frames, width, config.intermediate_size, config.num_hidden_layers)
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        # Layers are products of matrices then, and each has one window of padding, of two taps.
        expected += sum(2 * before * after for before, after in pairwise(config.conv_dim))
    found = cost.measure(["hubert_nano@random"], seconds=2.0, rounds=3)[0]
    assert found.macs == pytest.approx(expected / 2.0, rel=1e-6)


def test_weights_with_and_without_heads() -> None:
    names = ["hubert@random", "distilhubert@random", "fbank"]
    base, student, fbank = cost.measure(names, seconds=0.5, rounds=3)
    assert (base.weights, base.with_heads) == (94_371_712, 94_697_600)
    assert (student.weights, student.with_heads) == (23_491_968, 23_491_968 + 3_543_552)
    assert (fbank.weights, fbank.with_heads) == (0, None)
    assert 1 - student.weights / base.weights == pytest.approx(0.75, abs=0.005)
    if base.memory is not None and student.memory is not None:
        assert base.memory > 4 * base.weights
        assert student.memory < base.memory
    text = cost.render([base, student, fbank])
    assert "94.37 M" in text and "94.70 M" in text and "0.249" in text and "3 rounds" in text


def test_a_results_folder_keeps_what_was_measured_together(tmp_path: Path) -> None:
    figures = {found.name: found.figures() for found in cost.measure(["fbank", "hubert_nano@random"], rounds=3)}
    costs.write(tmp_path, {"before": {"real_time_factor": 1.0}})
    costs.write(tmp_path, figures)
    assert costs.read(tmp_path) == figures
    assert figures["hubert_nano@random"].keys() == {"real_time_factor", "gmacs_per_second"}


@pytest.mark.slow
def test_hubert_base_against_distilhubert() -> None:
    """The paper: 75 % smaller, 73 % faster (arXiv 2110.01900, abstract). Here the convolutions, which both share, are
    faster than the library's, so that layers count for more."""
    base, student = cost.measure(["hubert@random", "distilhubert@random"], seconds=4.0, rounds=5)
    assert 1.5 < student.speed_up(base)[1] < 3.5
    assert base.macs is not None and student.macs is not None
    assert 2.0 < base.macs / student.macs < 2.2


def test_ratios_are_of_neighbours_in_time() -> None:
    """One turn in which the machine was ten times slower changes no ratio."""
    slow, fast = (Cost(name, 1, None, 1.0, 2.0, times, None) for name, times in TIMES.items())
    assert fast.speed_up(slow) == (2.0, 2.0, 2.0)
    assert slow.speed_up(fast)[1] == 0.5
    assert slow.real_time_factor == (1.0, 1.0, 1.0)


TIMES = {"slow": (2.0, 2.0, 20.0, 2.0, 2.0), "fast": (1.0, 1.0, 10.0, 1.0, 1.0)}


def test_turns_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Noted(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
            calls.append(self.name)
            return {"hidden_states": [torch.zeros(1, 1, 1)]}

    times = cost._times([Noted(name) for name in "ab"], torch.zeros(800), 4)  # type: ignore[misc]
    assert [len(row) for row in times] == [4, 4]
    assert "".join(calls[2:]) in ("abbaabba", "baabbaab")


def test_recurrent_layers_give_no_count(tmp_path: object) -> None:
    (tmp_path / "net.py").write_text(  # type: ignore[operator]
        """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(160, 8, batch_first=True)
    def forward(self, wavs):
        return self.rnn(torch.stack(wavs).unflatten(1, (-1, 160)))[0]
"""
    )
    found = cost.measure([f"{tmp_path}/net.py:Net"], seconds=1.0, rounds=3)
    assert found[0].macs is None
    assert " - " in cost.render(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_no_gpu_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match=r"--device cuda: 0 CUDA GPU\(s\) are found"):
        cost.measure(["fbank"], device="cuda")


def test_columns_stay_apart_whatever_they_hold() -> None:
    """Once, a first upstream without weights printed `peak MB` and `size` as one number."""
    times = (0.01, 0.011, 0.012)
    free = Cost("fbank", 0, None, None, 10.0, times, 19_000_000)
    large = Cost("a-very-long-address/of-an-upstream@random", 9_000_000_000, 9_900_000_000, 1e15, 10.0, times, 10**12)
    lines = cost.render([free, large]).splitlines()
    assert [len(line.split("  ")) >= 8 for line in lines[:3]] == [True] * 3
    assert lines[1].split()[-6:-4] == ["19", "-"] and len({len(line) for line in lines[:3]}) == 1
    assert "9000.00 M   9900.00 M  1000000.00  0.0011" in lines[2] and "  1000000     -  1.00" in lines[2]
