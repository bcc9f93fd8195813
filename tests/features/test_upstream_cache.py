"""Cached facts of upstreams equal those of the loaded upstream, and never outlive a change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from superb_eval.errors import UserError
from superb_eval.features import upstream_cache
from superb_eval.features.upstream_cache import CachedUpstream
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from upstreams import registry
from upstreams.hubert import Hubert

ADDRESS = "hubert_nano@random"


@pytest.fixture
def student(tmp_path: Path) -> str:
    """The address of a folder of weights."""
    return f"hubert_nano@{saved(tmp_path / 'weights', 0)}"


def saved(folder: Path, seed: int) -> Path:
    upstream = registry.load(f"hubert_nano@random:{seed}")
    assert isinstance(upstream, Hubert)
    upstream.model.save_pretrained(folder)
    return folder


def load_twice(address: str, folder: Path) -> CachedUpstream:
    assert not isinstance(upstream_cache.load(address, "cpu", folder), CachedUpstream)
    second = upstream_cache.load(address, "cpu", folder)
    assert isinstance(second, CachedUpstream)
    return second


@pytest.mark.parametrize("address", [ADDRESS, "hubert_mini", "distilhubert_mini", "distilhubert_heads@random"])
def test_cached_facts_equal_those_of_the_upstream(address: str, tmp_path: Path) -> None:
    ours, theirs = load_twice(address, tmp_path), registry.load(address)
    assert (ours.card, ours.keys(), ours.reentrant) == (theirs.card, theirs.keys(), theirs.reentrant)
    assert ours.fingerprint() == theirs.fingerprint() and ours.count_parameters() == theirs.count_parameters()
    assert all(ours.get_downsample_rates(key) == theirs.get_downsample_rates(key) for key in theirs.keys())  # noqa: SIM118
    assert not ours._loaded and not ours.training
    wavs = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (9_000, 6_000)]
    with torch.inference_mode():
        hidden, expected = ours(wavs)["hidden_states"], theirs(wavs)["hidden_states"]
    assert all(torch.equal(a, b) for a, b in zip(hidden, expected, strict=True))
    assert [ours.frames(n) for n in (399, 400, 16_000)] == [theirs.frames(n) for n in (399, 400, 16_000)]


def test_a_run_whose_features_are_stored_loads_no_upstream(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("train.steps=20", "train.eval_every=20", "train.lr=1e-2")
    config = RunConfig(ADDRESS, "ks", tones, overrides=short, out=tmp_path / "first")
    first, _ = evaluate(config)
    monkeypatch.setattr(registry, "load", lambda _: pytest.fail("it was loaded"))
    second, _ = evaluate(replace(config, out=tmp_path / "second"))
    assert (first.features.extracted, second.features.extracted) == (72, 0)
    assert (second.upstream, second.metrics) == (first.upstream, first.metrics)


def test_other_weights_under_the_same_name_are_loaded(student: str, tmp_path: Path) -> None:
    before = load_twice(student, tmp_path).fingerprint()
    saved(tmp_path / "weights", 1)
    assert load_twice(student, tmp_path).fingerprint() != before


def change_code(facts: dict[str, dict[str, str]]) -> None:
    facts["code"] = dict.fromkeys(facts["code"], "0")


def lose_code(facts: dict[str, dict[str, str]]) -> None:
    facts["code"] = {"no/such/file.py": "0"}


def other_version(facts: dict[str, dict[str, str]]) -> None:
    facts["more"] = {}


@pytest.mark.parametrize("change", [change_code, lose_code, other_version])
def test_outdated_facts_are_read_again(change: Callable[[dict[str, dict[str, str]]], None], tmp_path: Path) -> None:
    load_twice(ADDRESS, tmp_path)
    (path,) = tmp_path.glob("upstreams/*.json")
    original = path.read_text()
    facts = json.loads(original)
    change(facts)
    path.write_text(json.dumps(facts))
    assert isinstance(load_twice(ADDRESS, tmp_path), CachedUpstream)
    assert path.read_text() == original


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    load_twice(ADDRESS, tmp_path)
    (path,) = tmp_path.glob("upstreams/*.json")
    path.write_text(path.read_text()[:50])
    assert isinstance(load_twice(ADDRESS, tmp_path), CachedUpstream)


def test_another_version_of_a_library_is_another_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_twice(ADDRESS, tmp_path)
    monkeypatch.setattr(upstream_cache, "_version", lambda name: f"{name} of tomorrow")
    assert isinstance(load_twice(ADDRESS, tmp_path), CachedUpstream)


def test_weights_that_change_before_they_are_loaded_are_refused(student: str, tmp_path: Path) -> None:
    upstream = load_twice(student, tmp_path)
    saved(tmp_path / "weights", 1)
    with pytest.raises(UserError, match="its weights changed while this ran"):
        upstream([torch.zeros(16_000)])


@pytest.mark.parametrize("address", ["fbank", "FILE.py:Mine"])
def test_upstreams_without_known_files_are_loaded_each_time(address: str, tmp_path: Path) -> None:
    (tmp_path / "FILE.py").write_text(
        "import torch\nclass Mine(torch.nn.Module):\n"
        "    def forward(self, wavs):\n"
        "        return {'hidden_states': [torch.stack([w.unfold(0, 320, 320) for w in wavs])]}\n"
        "    def get_downsample_rates(self, key):\n        return 320\n"
    )
    for _ in range(2):
        upstream = upstream_cache.load(address.replace("FILE", str(tmp_path / "FILE")), "cpu", tmp_path)
        assert not isinstance(upstream, CachedUpstream)
    assert not (tmp_path / "upstreams").exists()
