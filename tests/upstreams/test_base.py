"""Fingerprints change with whatever changes the features, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from upstreams import registry
from upstreams.base import Card, Upstream, freeze
from upstreams.hubert import Hubert
from upstreams.loading.adapters import from_file

ENCODER = """
import torch
class Enc(torch.nn.Module):
    downsample_rate = 160
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 4, 400, 160)
    def forward(self, wavs):
        return {"hidden_states": [self.conv(torch.stack(wavs)[:, None]).transpose(1, 2) * 1.0]}
"""


def test_two_builds_of_one_upstream_share_it() -> None:
    assert len({registry.load("hubert_nano@random").fingerprint() for _ in range(2)}) == 1
    assert registry.load("fbank").fingerprint() != registry.load("fbank_nonorm").fingerprint()


def test_weights_count(nano: Upstream) -> None:
    before = nano.fingerprint()
    assert isinstance(nano, Hubert)
    nano.model.masked_spec_embed.data += 1  # serves masked prediction alone
    assert nano.fingerprint() == before
    nano.model.encoder.layer_norm.weight.data[0] += 1e-6
    assert nano.fingerprint() != before


def test_settings_without_weights_count(nano: Upstream) -> None:
    before = nano.fingerprint()
    assert isinstance(nano, Hubert)
    nano.model.config.num_attention_heads = 6
    assert nano.fingerprint() != before


def test_of_the_card_the_features_version_counts(nano: Upstream) -> None:
    before = nano.fingerprint()
    nano.card = replace(nano.card, summary="other words", licence="another")
    assert nano.fingerprint() == before
    nano.card = replace(nano.card, features_version=2)
    assert nano.fingerprint() != before


def test_a_wrapped_class_counts_by_its_source(tmp_path: Path) -> None:
    path = tmp_path / "enc.py"
    path.write_text(ENCODER)
    first, same = from_file(path, "Enc").fingerprint(), from_file(path, "Enc").fingerprint()
    path.write_text(ENCODER.replace("* 1.0", "* 2.0"))
    assert first == same != from_file(path, "Enc").fingerprint()


def test_a_class_without_a_file_counts_by_its_byte_code() -> None:
    kinds = []
    for factor in (1, 2):
        scope: dict[str, type[Upstream]] = {"Upstream": Upstream}  # type: ignore[type-abstract]
        exec(f"class Typed(Upstream):\n    def forward(self, wavs):\n        return wavs * {factor}\n", scope)
        scope["Typed"].__module__ = "typed_in"  # no such file, as in a notebook
        kinds.append(scope["Typed"](Card("typed", "", 160)).fingerprint())
    assert kinds[0] != kinds[1]


class _Addressed(Upstream):
    def __init__(self) -> None:
        super().__init__(Card("addressed", "its repr differs from object to object", 160))
        self.inner = nn.Identity()
        self.inner.extra_repr = lambda: repr(object())  # type: ignore[method-assign]

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        return {"hidden_states": [torch.stack(wavs)[..., None]]}


def test_addresses_in_memory_do_not_count() -> None:
    upstreams = [_Addressed(), _Addressed()]
    assert len({upstream.fingerprint() for upstream in upstreams}) == 1


def test_freezing_stops_gradients_and_dropout(nano: Upstream) -> None:
    nano.train().requires_grad_(True)
    assert freeze(nano) is nano
    assert not nano.training
    assert not any(p.requires_grad for p in nano.parameters())
