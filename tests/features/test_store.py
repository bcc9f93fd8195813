from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset, Features
from superb_eval.features.extract import Extraction
from superb_eval.features.load_or_extract import ClipCosts, FeatureSource, _assign_to_shards, load_or_extract
from superb_eval.features.store import Store
from superb_eval.runtime import allocator
from upstreams import registry

POOLED = Extraction("pooled")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "shards")


@pytest.fixture(scope="module")
def clips(tones: Path) -> list[Clip]:
    return [Clip(path) for path in sorted((tones / "audio" / "test").glob("*.flac"))]


def load(
    clips: Sequence[Clip], store: Store, name: str = "fbank_nonorm", extraction: Extraction = POOLED
) -> FeatureDataset:
    upstream = registry.load(name)
    source = FeatureSource(upstream, upstream.fingerprint(), extraction, "cpu")
    return load_or_extract(source, {audio.digest(clip): clip for clip in clips}, store, print)


def features_of(dataset: FeatureDataset, clips: Sequence[Clip]) -> Features:
    return dataset.select([audio.digest(clip) for clip in clips])


def stacked(dataset: FeatureDataset, clips: Sequence[Clip]) -> torch.Tensor:
    return torch.stack(features_of(dataset, clips).rows())


def shards(store: Store) -> list[Path]:
    return sorted(store.folder.glob("*/*.safetensors"))


def test_a_second_pass_reads_what_the_first_one_stored(clips: list[Clip], store: Store) -> None:
    first, second = load(clips, store), load(clips, store)
    assert (first.extracted, second.extracted) == (len(clips), 0)
    assert torch.equal(stacked(first, clips), stacked(second, clips))
    assert second.made_on == "cpu float32"


@pytest.mark.parametrize(
    "extraction", [Extraction("pooled", normalize=True), Extraction("frames"), Extraction("pooled", precision="bf16")]
)
def test_other_settings_are_other_features(clips: list[Clip], store: Store, extraction: Extraction) -> None:
    load(clips, store)
    assert load(clips, store, extraction=extraction).extracted == len(clips)


def test_another_upstream_or_another_gain_is_extracted(clips: list[Clip], store: Store) -> None:
    load(clips, store)
    assert load(clips, store, "fbank").extracted == len(clips)
    assert load([Clip(c.path, gain_db=-3.0) for c in clips], store).extracted == len(clips)


def test_frames_come_back_with_their_lengths(clips: list[Clip], store: Store) -> None:
    extraction = Extraction("frames", dtype="float16")
    first, second = load(clips, store, extraction=extraction), load(clips, store, extraction=extraction)
    batch = features_of(second, clips).batch([0, 3, 5])
    assert batch.hidden.shape == (3, int(batch.lengths.max()), 1, 240)
    assert torch.equal(batch.hidden, features_of(first, clips).batch([0, 3, 5]).hidden)


def test_a_clip_may_be_asked_for_more_than_once(clips: list[Clip], store: Store) -> None:
    features = features_of(load(clips, store), [*clips, clips[0]])
    assert torch.equal(features.rows()[0], features.rows()[-1])


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_shard_is_reported_and_extracted_again(clips: list[Clip], store: Store, damage: str) -> None:
    expected = stacked(load(clips, store), clips)
    path = shards(store)[0]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    path.write_bytes({"truncate": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=path.name):
        again = load(clips, store)
    assert again.extracted > 0
    assert torch.equal(stacked(again, clips), expected)


def test_the_least_recently_used_shards_are_deleted(clips: list[Clip], tmp_path: Path) -> None:
    first = Store(tmp_path, budget_gb=1.0)
    load(clips, first, "fbank")
    old = shards(first)
    for path in old:
        os.utime(path, (1, 1))
    size = sum(path.stat().st_size for path in old)
    load(clips, Store(tmp_path, budget_gb=1.5 * size / 1e9))
    assert not any(path.exists() for path in old)
    assert shards(first)


def test_a_run_larger_than_the_budget_is_refused(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"budget of 1e-06 GB.*--store-gb"):
        load(clips, Store(tmp_path, budget_gb=1e-6))


def test_one_clip_more_changes_one_shard() -> None:
    digests = sorted(audio_digest(k) for k in range(1000))
    before, after = _assign_to_shards(digests), _assign_to_shards(sorted([*digests, audio_digest(1000)]))
    assert sum(shard not in before for shard in after) == 1
    assert sorted(d for shard in before for d in shard) == digests
    assert max(map(len, before)) < 256


def audio_digest(k: int) -> str:
    import hashlib

    return hashlib.sha256(str(k).encode()).hexdigest()


def test_an_unreadable_budget_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERB_EVAL_STORE_GB", "plenty")
    with pytest.raises(UserError, match="SUPERB_EVAL_STORE_GB is 'plenty'"):
        Store()


@pytest.mark.parametrize("extraction", [POOLED, Extraction("frames")], ids=["pooled", "frames"])
def test_norms_are_the_mean_norm_of_each_layers_vectors(
    clips: list[Clip], store: Store, extraction: Extraction
) -> None:
    dataset = load(clips, store, "hubert_nano@random", extraction)
    rows = [
        row.reshape(-1, *row.shape[-2:]) for row in features_of(dataset, clips).rows()
    ]  # [1 or frames, layers, dim]
    lengths = torch.stack([row.pow(2).sum(dim=-1).sqrt().mean(dim=0) for row in rows]).mean(dim=0)
    assert dataset.norms() == pytest.approx(lengths.tolist()) and len(dataset.norms()) > 1


FRAMES = Extraction("frames")


def live(clips: Sequence[Clip], store: Store, passes: float | None = 100.0) -> FeatureDataset:
    upstream = registry.load("hubert_nano@random")
    source = FeatureSource(upstream, upstream.fingerprint(), FRAMES, "cpu")
    return load_or_extract(source, {audio.digest(clip): clip for clip in clips}, store, lambda done: None, passes)


def test_frames_without_room_are_computed_live(clips: list[Clip], store: Store, tmp_path: Path) -> None:
    stored, none = live(clips, store), live(clips, Store(tmp_path / "small", budget_gb=1e-6))
    assert not stored.unstored and len(none.unstored) == len(none) == len(clips) and not none.places
    assert not list((tmp_path / "small").glob("*/*.safetensors"))
    a, b = features_of(stored, clips).batch([0, 5, 2]), features_of(none, clips).batch([0, 5, 2])
    torch.testing.assert_close(a.hidden, b.hidden, rtol=1e-4, atol=1e-5)
    assert torch.equal(a.lengths, b.lengths)
    assert (none.layers, none.dim) == (stored.layers, stored.dim)


def test_features_of_a_search_have_to_be_stored(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--store-gb"):
        live(clips, Store(tmp_path, budget_gb=1e-6), passes=None)


def test_part_of_a_corpus_is_stored_where_part_of_it_has_room(
    clips: list[Clip], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superb_eval.features.load_or_extract.SHARD_UTTERANCES", 4)
    whole = live(clips, store)
    sizes = sorted(path.stat().st_size for path in shards(store))
    some = live(clips, Store(tmp_path / "half", budget_gb=sum(sizes) * 0.6 / 1e9))
    assert some.places and some.unstored and len(some) == len(clips)
    for a, b in zip(features_of(whole, clips).rows(), features_of(some, clips).rows(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_features_that_are_read_once_are_not_worth_storing() -> None:
    slow_upstream, fast_upstream = ClipCosts(1e6, compute=1.0, write=0.01), ClipCosts(1e6, compute=0.01, write=1.0)
    assert slow_upstream.worth_storing(passes=10) and not slow_upstream.worth_storing(passes=1)
    assert not fast_upstream.worth_storing(passes=1000)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs Linux's memory maps")
def test_written_shards_are_mapped(store: Store) -> None:
    path = store.address("mapped").with_name("0.safetensors")
    written = torch.ones(100_000)
    shard = store.write(path, {"values": written}, {})
    assert _behind(shard.tensors["values"]) == str(path) and _behind(written) != str(path)
    assert torch.equal(shard.tensors["values"], written)


_WRITES = """
import sys
from pathlib import Path
import torch
from superb_eval.features.store import Store
from tests import memory

store = Store(Path(sys.argv[1]))
path = store.address("mapped")
before = memory.anonymous()
stored = [store.write(path.with_name(f"{k}.safetensors"), {"values": torch.ones(1_000_000)}, {}) for k in range(20)]
assert memory.anonymous() - before < 10e6, "80 MB were written"
assert all(bool((shard.tensors["values"] == 1).all()) for shard in stored)
"""


@pytest.mark.skipif(not allocator.trim() or not Path("/proc/self/status").is_file(), reason="glibc on Linux")
def test_written_shards_do_not_fill_memory(tmp_path: Path) -> None:
    """In a process of its own: earlier allocations of this one would blur the measurement."""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", _WRITES, str(tmp_path)], check=True, cwd=root)


def _behind(tensor: torch.Tensor) -> str:
    """Return the file that a tensor's memory is a mapping of, or something else where it is no mapping (proc(5))."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split()
        first, last = (int(text, 16) for text in span.split("-"))
        if first <= tensor.data_ptr() < last:
            return name
    return ""


@pytest.mark.parametrize("protected", ["shards", "shards/00", "shards/00/0.lock"])
def test_a_store_that_may_not_be_written_names_the_option(
    store: Store, protected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = store.folder / "00" / "0.lock"
    if protected != "shards":
        lock.parent.mkdir(parents=True)
        lock.touch()
    else:
        store.folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / protected)
    with pytest.raises(
        UserError, match=r"shards: lacks features of this run, and you may not write .* --store, or let"
    ):
        store.lock(lock.with_suffix(".safetensors"))
    monkeypatch.undo()
    with store.lock(lock.with_suffix(".safetensors")):
        assert lock.is_file()
