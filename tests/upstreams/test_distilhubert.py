"""DistilHuBERT: the published sizes, the paper's feature, identical frames in any batch, and clear errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.base import Upstream
from upstreams.contract.check import check
from upstreams.distilhubert import DistilHubert, Heads


@pytest.fixture
def mini() -> Upstream:
    return registry.load("distilhubert_mini@random")


def test_the_published_number_of_weights() -> None:
    upstream = registry.load("distilhubert@random")
    assert isinstance(upstream, DistilHubert)
    counts = {name: p.numel() for name, p in upstream.model.named_parameters()}
    assert sum(counts.values()) == upstream.card.parameters == 23_491_968
    assert sum(counts.values()) - counts["masked_spec_embed"] == 23_491_200
    assert sum(p.numel() for p in Heads(768, 3, 768).parameters()) == 3_543_552
    assert sum(p.numel() for p in Heads(768, 2, 768).parameters()) == 2_362_368


def test_the_papers_feature_is_the_last_layer_alone(mini: Upstream, noise: Callable[..., Tensor]) -> None:
    assert mini.keys() == ("hidden_states", "paper")
    output = mini([noise(8_000)])
    assert len(output["hidden_states"]) == 3
    assert len(output["paper"]) == 1
    assert torch.equal(output["paper"][0], output["hidden_states"][-1])


def test_the_contract_is_kept(mini: Upstream) -> None:
    broken = [str(finding) for finding in check(mini) if not finding.passed]
    assert not broken


def with_heads(mini: Upstream, folder: Path, width: int = 256) -> Path:
    assert isinstance(mini, DistilHubert)
    mini.model.save_pretrained(folder)
    torch.manual_seed(0)
    save_file(Heads(256, 2, width).state_dict(), folder / "heads.safetensors")
    return folder


def test_heads_are_loaded_where_they_are_requested(
    mini: Upstream, tmp_path: Path, noise: Callable[..., Tensor]
) -> None:
    folder = with_heads(mini, tmp_path)
    plain, heads = (
        registry.load(f"{name}@{folder}")([noise(8_000)]) for name in ("distilhubert", "distilhubert_heads")
    )
    assert (len(plain["hidden_states"]), len(heads["hidden_states"])) == (3, 5)
    assert torch.equal(heads["hidden_states"][2], plain["paper"][0])
    assert not [str(f) for f in check(registry.load(f"distilhubert_heads@{folder}")) if not f.passed]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "distilhubert_heads",
            "comes without weights: write distilhubert_heads@random or distilhubert_heads@CHECKPOINT",
        ),
        ("distilhubert_heads@{wide}", "its heads map 256 to 100 dimensions, but its layers have 256"),
        ("distilhubert_heads@{bare}", r"has no heads \(heads.safetensors\): they were removed at export"),
        ("distilhubert@{empty}", "empty: has no config.json. Give a folder in transformers' layout"),
        ("distilhubert@nowhere", "HuBERT's weights can't be loaded from 'nowhere'"),
    ],
)
def test_bad_addresses_name_the_next_step(mini: Upstream, tmp_path: Path, address: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with_heads(mini, tmp_path / "wide", width=100)
    (with_heads(mini, tmp_path / "bare") / "heads.safetensors").unlink()
    places = {name: tmp_path / name for name in ("wide", "bare", "empty")}
    with pytest.raises(UserError, match=message):
        registry.load(address.format(**places))


def test_shipped_weights_are_loaded_by_name(
    mini: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr("upstreams.loading.load_weights.__file__", str(tmp_path / "loading" / "load_weights.py"))
    with pytest.raises(UserError, match=r"distilhubert_mini comes without weights: write distilhubert_mini@random or"):
        registry.load("distilhubert_mini")
    trained = registry.load("distilhubert_mini@random:5")
    assert isinstance(trained, DistilHubert)
    trained.model.save_pretrained(tmp_path / "weights" / "distilhubert_mini")
    shipped = registry.load("distilhubert_mini")
    assert torch.equal(shipped([noise(8_000)])["paper"][0], trained([noise(8_000)])["paper"][0])
