"""The contract: upstreams that keep it pass, and each planted fault breaks the rule that is named for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchaudio
from torch import Tensor, nn

from upstreams import hubert, registry
from upstreams.base import Card, Upstream, freeze
from upstreams.contract.check import Finding, check, leakage, render
from upstreams.contract.findings import CONSEQUENCES
from upstreams.loading.load_weights import card_with_sizes


class Faultless(Upstream):
    """Windows of the waveform, projected: the smallest upstream that keeps the contract."""

    def __init__(self) -> None:
        super().__init__(Card("planted", "for tests", 160, layers=2, width=8, parameters=408))
        self.project = nn.Linear(50, 8)

    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        x = self.project(nn.utils.rnn.pad_sequence(wavs, batch_first=True).unfold(1, 400, 160)[..., ::8])
        return [x, x.tanh()]

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        return {"hidden_states": self.states(wavs)}

    def frames(self, samples: int) -> int:
        return max(0, (samples - 400) // 160 + 1)


class WrongStride(Faultless):
    def get_downsample_rates(self, key: str) -> int:
        return 320


class Transposed(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x.transpose(1, 2) for x in super().states(wavs)]


class Leaking(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x - x.mean(dim=1, keepdim=True) for x in super().states(wavs)]


class Dropout(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [nn.functional.dropout(x, 0.5, training=True) for x in super().states(wavs)]


class Trainable(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x.requires_grad_() if torch.is_grad_enabled() else x for x in super().states(wavs)]


class TooLarge(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [1e6 * x for x in super().states(wavs)]


class Ragged(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        x, y = super().states(wavs)
        return [x, y[:, 1:]]


class RunningMean(Faultless):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        states = super().states(wavs)
        self.mean = 0.9 * self.mean + 0.1 * states[0].mean(dim=(0, 1))
        return states


class WrongRate(Faultless):
    def __init__(self) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(22_050)


class SilentNaN(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x / wavs[0].abs().max().sign() for x in super().states(wavs)]


class CrashingOnWords(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        if 400 <= min(map(len, wavs)) < 6_000:
            raise IndexError("index 3 is out of range")
        return super().states(wavs)


class OnlyOnGpu(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        raise RuntimeError("Expected all tensors to be on the same device, but found at least two: cpu and cuda:0!")


COMMON_FAULTS: dict[str, tuple[type[Faultless], set[str], str]] = {
    "wrong stride": (WrongStride, {"stride"}, "2998 frames for 30 s, 1500 by the stride"),
    "transposed output": (
        Transposed,
        {"axes", "card", "frames", "stride", "batch invariance"},
        "this is [batch, dim, frames]",
    ),
    "batch leakage": (Leaking, {"batch invariance"}, "relative norm"),
    "dropout left on": (Dropout, {"evaluation", "batch invariance"}, "dropout is on"),
    "gradients": (Trainable, {"gradients"}, "required by 0 weights, 2 outputs"),
    "half precision overflow": (TooLarge, {"half precision"}, "largest value"),
    "frame count off by one per layer": (Ragged, {"shapes", "layers", "frames"}, "16000: 97, 98"),
    "mutable state": (RunningMean, {"state"}, "1 tensors changed (limit: equal, 0); such as mean"),
    "wrong rate": (WrongRate, {"rate"}, "MelSpectrogram is set to 22050 Hz"),
    "NaN on silence": (SilentNaN, {"silence"}, "values NaN or infinite"),
    "crash on short input": (CrashingOnWords, {"short", "layers"}, "index 3 is out of range"),
    "GPU-only code": (OnlyOnGpu, {"device"}, "it needs a GPU: create tensors with device=wav.device"),
}
"""Common faults of new upstreams: a class with each, the rules that it breaks, and a part of the report."""


class Mixing(Faultless):
    frames = Upstream.frames  # type: ignore[assignment]

    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x - x.mean(dim=0) / 2 for x in super().states(wavs)]


class Sparse(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x[:, ::2] for x in super().states(wavs)]


class Overflowing(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [torch.where(wavs[0].abs().max() >= 1, torch.inf, x) for x in super().states(wavs)]


class Half(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x.half() for x in super().states(wavs)]


class HalfInside(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [(x.half() * 1e6).float() / 1e6 for x in super().states(wavs)]


class Counting(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        self.calls = getattr(self, "calls", 0) + 1
        return [x + 1e-3 * self.calls for x in super().states(wavs)]


class ForEightKilohertz(Faultless):
    def __init__(self) -> None:
        super().__init__()
        self.card = replace(self.card, stride=80)  # 10 ms, at 8 kHz


class Wordless(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        if min(map(len, wavs)) < 400:
            raise AssertionError
        return super().states(wavs)


class Short(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        if max(map(len, wavs)) > 200_000:
            raise ValueError("too long for me")
        return super().states(wavs)


class LeftBehind(Faultless):
    def __init__(self) -> None:
        super().__init__()
        self.window = torch.hann_window(400)


class Broken(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        raise ValueError("no")


OTHER_FAULTS: dict[type[Faultless], set[str]] = {
    Mixing: {"batch invariance"},
    Sparse: {"frames", "stride"},
    Overflowing: {"loud"},
    Half: {"float32", "half precision"},
    HalfInside: {"half precision", "silence", "loud", "long", "batch invariance", "short"},
    Counting: {"state", "batch invariance"},
    ForEightKilohertz: {"stride"},
    Wordless: {"short"},
    Short: {"long"},
    LeftBehind: {"device"},
    Broken: {"forward"},
}


def broken(upstream: Upstream) -> set[str]:
    return {finding.rule for finding in check(upstream) if not finding.passed}


@pytest.mark.parametrize("address", ["fbank", "fbank_nonorm", "hubert_nano@random", "s3prl:mfcc"])
def test_ours_keep_the_contract(address: str) -> None:
    assert broken(registry.load(address)) == set()


def test_the_smallest_upstream_keeps_it() -> None:
    assert broken(freeze(Faultless())) == set()


@pytest.mark.parametrize("fault", COMMON_FAULTS)
def test_common_faults_are_named(fault: str) -> None:
    planted, rules, words = COMMON_FAULTS[fault]
    report = check(freeze(planted()))
    assert {finding.rule for finding in report if not finding.passed} == rules
    assert words in render(report)
    assert "so: " in render(report), "the effect on the tasks is stated"


@pytest.mark.parametrize("fault", OTHER_FAULTS, ids=lambda fault: fault.__name__)
def test_other_faults_break_their_rules(fault: type[Faultless]) -> None:
    assert broken(freeze(fault())) == OTHER_FAULTS[fault]


def test_a_rate_is_guessed_from_a_false_stride() -> None:
    assert "as if it were in samples at 8000 Hz" in render(check(freeze(ForEightKilohertz())))


def test_a_resampler_inside_is_no_wrong_rate() -> None:
    upstream = freeze(WrongRate())
    upstream.resample = torchaudio.transforms.Resample(16_000, 22_050)
    assert "rate" not in broken(upstream)


def test_a_normalised_weight_does_not_stay_behind() -> None:
    upstream = Faultless()
    upstream.project = nn.utils.weight_norm(upstream.project)
    upstream.card = replace(upstream.card, parameters=416)
    assert broken(freeze(upstream)) == set()


def test_every_rule_states_its_effect_on_the_tasks() -> None:
    rules = {finding.rule for finding in check(freeze(Faultless()))} | {"forward"}
    assert rules == set(CONSEQUENCES)


def test_gradients_are_noticed() -> None:
    findings = check(Faultless().eval())
    assert [str(finding).splitlines()[0] for finding in findings if not finding.passed] == [
        "FAIL  gradients         required by 2 weights, 2 outputs (limit: none)"
    ]


def test_training_mode_is_noticed() -> None:
    assert broken(freeze(Faultless()).train()) == {"evaluation"}


@pytest.mark.parametrize("change", [{"layers": 3}, {"width": 9}, {"parameters": 1}])
def test_an_untrue_card_is_noticed(change: dict[str, int]) -> None:
    upstream = freeze(Faultless())
    upstream.card = replace(upstream.card, **change)
    assert broken(upstream) == {"card"}


def test_a_wrong_stride_is_noticed() -> None:
    upstream = freeze(Faultless())
    upstream.card = replace(upstream.card, stride=320)
    assert broken(upstream) == {"stride"}


def test_wrong_frames_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Faultless, "frames", lambda self, samples: samples // 160)
    assert broken(freeze(Faultless())) == {"frames"}


def test_every_rule_is_named_once() -> None:
    rules = [finding.rule for finding in check(freeze(Faultless()))]
    assert len(rules) == len(set(rules)) == 18


def test_the_report_has_a_line_for_each_finding() -> None:
    findings = [
        Finding("stride", True, "1 % off", "10 %"),
        Finding("batch invariance", False, "0.5", "1e-04", "see the card"),
    ]
    assert render(findings).splitlines() == [
        "pass  stride            1 % off (limit: 10 %)",
        "FAIL  batch invariance  0.5 (limit: 1e-04); see the card",
        f"                        so: {CONSEQUENCES['batch invariance']}",
        "1 of 2 rules hold: breaks the contract: batch invariance",
    ]


def test_hubert_keeps_it_and_its_published_variant_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small, since none of what is checked depends on the size: at that of HuBERT Base it takes a minute."""
    monkeypatch.setitem(hubert.CONFIGS, "hubert", hubert.CONFIGS["hubert_nano"])
    upstream = registry.load("hubert@random")
    upstream.card = card_with_sizes(upstream.card, upstream.model)
    findings = check(upstream)
    assert all(finding.passed for finding in findings)
    assert "hubert_padded, as published: " in str(findings)
    assert "fails" in next(finding.note for finding in findings if finding.rule == "batch invariance")
    assert leakage(registry.load("hubert_padded@random")) > 1e-2
