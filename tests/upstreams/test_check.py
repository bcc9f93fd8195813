"""The contract: what keeps it passes, and each planted fault breaks the rule that is named for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from upstreams import registry
from upstreams.base import Card, Upstream, freeze
from upstreams.check import Finding, check, leakage, render


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


class Dropout(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [nn.functional.dropout(x, 0.5, training=True) for x in super().states(wavs)]


class Leaking(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x - x.mean(dim=1, keepdim=True) for x in super().states(wavs)]


class Mixing(Faultless):
    frames = Upstream.frames  # type: ignore[assignment]

    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x - x.mean(dim=0) / 2 for x in super().states(wavs)]


class Ragged(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        x, y = super().states(wavs)
        return [x, y[:, 1:]]


class Sparse(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x[:, ::2] for x in super().states(wavs)]


class SilentNaN(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x / wavs[0].abs().max().sign() for x in super().states(wavs)]


class Overflowing(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [torch.where(wavs[0].abs().max() >= 1, torch.inf, x) for x in super().states(wavs)]


class Half(Faultless):
    def states(self, wavs: list[Tensor]) -> list[Tensor]:
        return [x.half() for x in super().states(wavs)]


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


FAULTS: dict[type[Faultless], set[str]] = {
    Dropout: {"evaluation", "batch invariance"},
    Leaking: {"batch invariance"},
    Mixing: {"batch invariance"},
    Ragged: {"shapes", "layers", "frames"},
    Sparse: {"frames", "stride"},
    SilentNaN: {"silence"},
    Overflowing: {"loud"},
    Half: {"float32"},
    Wordless: {"short"},
    Short: {"long"},
}


def broken(upstream: Upstream) -> set[str]:
    return {finding.rule for finding in check(upstream) if not finding.passed}


@pytest.mark.parametrize("address", ["fbank", "fbank_nonorm", "hubert_nano@random", "s3prl:mfcc"])
def test_ours_keep_the_contract(address: str) -> None:
    assert broken(registry.load(address)) == set()


def test_the_smallest_upstream_keeps_it() -> None:
    assert broken(freeze(Faultless())) == set()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_breaks_its_rule(fault: type[Faultless]) -> None:
    assert broken(freeze(fault())) == FAULTS[fault]


def test_gradients_are_noticed() -> None:
    findings = check(Faultless().eval())
    assert [str(finding) for finding in findings if not finding.passed] == [
        "FAIL  gradients         asked for by 2 weights, 2 outputs (limit: none)"
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
    assert len(rules) == len(set(rules)) == 13


def test_it_reads_line_by_line() -> None:
    findings = [
        Finding("stride", True, "1 % off", "10 %"),
        Finding("batch invariance", False, "0.5", "1e-04", "see the card"),
    ]
    assert render(findings).splitlines() == [
        "pass  stride            1 % off (limit: 10 %)",
        "FAIL  batch invariance  0.5 (limit: 1e-04); see the card",
        "1 of 2 rules hold: breaks the contract: batch invariance",
    ]


@pytest.mark.slow
def test_hubert_keeps_it_and_its_published_sibling_does_not() -> None:
    findings = check(registry.load("hubert@random"))
    assert all(finding.passed for finding in findings)
    assert "hubert_padded, as published: " in str(findings)
    assert "fails" in next(finding.note for finding in findings if finding.rule == "batch invariance")
    assert leakage(registry.load("hubert_padded@random")) > 1e-2
