from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans
from transformers import HubertConfig, HubertModel

from superb_eval.data import audio
from superb_eval.data.padding import PaddedWavs, valid_mask
from superb_eval.errors import UserError
from superb_eval.pretraining import codebooks, data, shapes, target_features, targets
from superb_eval.pretraining.batches import ALIGN, Batch, Batches
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.recipe import PretrainRecipe
from superb_eval.pretraining.target_settings import CodebookSettings, TargetSettings
from superb_eval.runtime.progress import NoProgress
from tests.upstreams.configs import TINY
from upstreams import registry

MFCC = TargetSettings(clusters=10, restarts=1)


@pytest.fixture(scope="module")
def loaded(speech: Path) -> Audio:
    from superb_eval.pretraining.recipe import DataSettings

    settings = DataSettings.model_validate(
        {"sources": [{"folder": "s"}], "min_seconds": 0.3, "crop_seconds": 1.0, "batch_seconds": 4.0}
    )
    return data.load_audio(settings, {"s": speech}, 0, NoProgress())


@given(samples=st.integers(800, 20_000))
def test_mfcc_have_a_frame_for_each_of_the_networks(samples: int) -> None:
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    assert target_features.mfcc(wave).shape == (shapes.frame_count(samples), 39)


def test_mfcc_are_kaldis_with_deltas_and_a_mean_removed(loaded: Audio) -> None:
    wave = audio.read(loaded.clips[0])
    static = torchaudio.compliance.kaldi.mfcc(torch.from_numpy(wave)[None], sample_frequency=16_000, use_energy=False)
    slopes = []
    for row in (static, None):
        padded = torch.nn.functional.pad((row if row is not None else slopes[0]).T, (2, 2), mode="replicate").T
        # The regression formula over two frames on each side: sum n (c[t+n] - c[t-n]) / (2 sum n^2).
        ahead = sum(n * (padded[2 + n : len(padded) - 2 + n] - padded[2 - n : len(padded) - 2 - n]) for n in (1, 2))
        slopes.append(ahead / 10)
    features = torch.cat([static, *slopes], dim=1).numpy()
    for centre, dims in {"none": 0, "c0": 1, "all": 13}.items():
        expected = features.copy()
        expected[:, :dims] -= features[:, :dims].mean(0)
        np.testing.assert_allclose(target_features.mfcc(wave, centre), expected[::2], rtol=1e-4, atol=2e-4)


def test_labels_are_scikit_learns_clusters(loaded: Audio, tmp_path: Path) -> None:
    labels = targets.create(MFCC, loaded, tmp_path, 3, "cpu", NoProgress())
    order = np.random.default_rng([3, 2]).permutation(len(loaded.clips))
    features = [target_features.mfcc(loaded.cached[i] / np.float32(32768)) for i in range(len(loaded.clips))]  # type: ignore[index]
    kmeans = MiniBatchKMeans(
        10, batch_size=10_000, n_init=1, tol=0, max_no_improvement=100, reassignment_ratio=0, random_state=3
    ).fit(np.concatenate([features[i] for i in order]))
    expected = np.concatenate([kmeans.predict(frames) for frames in features])
    assert (labels.values == expected).mean() > 0.999  # ties may be broken either way
    assert labels.clusters == 10 and labels.values.dtype == np.uint16
    assert np.diff(labels.starts).tolist() == [shapes.frame_count(int(n)) for n in loaded.samples]


def test_weights_act_on_standardised_dimensions(loaded: Audio, tmp_path: Path) -> None:
    weighted = MFCC.model_copy(update={"weights": (0.0, 1.0, 0.0, 0.0)})
    labels = targets.create(weighted, loaded, tmp_path, 0, "cpu", NoProgress())
    with np.load(tmp_path / "codebook.npz") as codebook:
        assert codebook["scale"][[0, *range(13, 39)]].tolist() == [0.0] * 27
        sample = np.concatenate([target_features.mfcc(audio.read(clip)) for clip in loaded.clips])
        np.testing.assert_allclose(codebook["scale"][1:13] * sample[:, 1:13].std(0), 1.0, rtol=1e-3)
    assert len(set(labels.values.tolist())) == 10


def test_a_crop_uses_its_segment_of_the_labels(loaded: Audio, tmp_path: Path) -> None:
    labels = targets.create(MFCC, loaded, tmp_path, 0, "cpu", NoProgress())
    longest = int(loaded.samples.argmax())
    batch = Batch(torch.zeros(1, 8000), (8000,), (longest,), (3200,), (0,), 1)
    rows = labels.for_batch(batch, torch.arange(30)[None] < 24)
    assert rows.shape == (1, 30) and shapes.frame_count(8000) == 24
    clip_labels = labels.values[labels.starts[longest] :]
    assert rows[0].tolist() == clip_labels[10:34].tolist() + [0] * 6


def test_codes_of_other_features_stand_beside_the_first(loaded: Audio, tmp_path: Path) -> None:
    further = CodebookSettings(features="log-mel", quantiser="random", clusters=(20, 30))
    both = targets.create(
        MFCC.model_copy(update={"further": further}), loaded, tmp_path / "both", 3, "cpu", NoProgress()
    )
    first = targets.create(MFCC, loaded, tmp_path / "first", 3, "cpu", NoProgress())
    second = targets.create(TargetSettings(**further.model_dump()), loaded, tmp_path / "second", 3, "cpu", NoProgress())
    assert both.sizes == (10, 20, 30) and both.values.dtype == np.uint16
    assert np.array_equal(both.values[:, 0], first.values) and np.array_equal(both.values[:, 1:], second.values)
    # Labels made without further ones serve a training with them.
    extended = targets.create(
        MFCC.model_copy(update={"further": further}), loaded, tmp_path / "first", 3, "cpu", NoProgress()
    )
    assert np.array_equal(extended.values, both.values)
    other = MFCC.model_copy(update={"further": further.model_copy(update={"centre": "all"})})
    with pytest.raises(UserError, match="further: holds labels of other audio, settings or weights"):
        targets.create(other, loaded, tmp_path / "both", 3, "cpu", NoProgress())


def test_labels_are_reused_and_those_of_other_audio_refused(
    loaded: Audio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "SHARD", 10)
    first = targets.create(MFCC, loaded, tmp_path, 0, "cpu", NoProgress())
    shards = sorted(tmp_path.glob("labels-*.npy"))
    assert len(shards) == 3
    shards[1].unlink()
    monkeypatch.setattr(codebooks, "_fit_kmeans", lambda *_: pytest.fail("the codebook exists"))
    again = targets.create(MFCC, loaded, tmp_path, 0, "cpu", NoProgress())
    assert again.values.tolist() == first.values.tolist()
    with pytest.raises(UserError, match="holds labels of other audio, settings or weights"):
        targets.create(MFCC, loaded, tmp_path, 1, "cpu", NoProgress())


@pytest.mark.parametrize("section", ["targets", "targets.further"])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"clusters": 60_000},
            r"\d+ frames are too few for 60000 clusters. Lower SECTION\.clusters, or raise",
        ),
        ({"features": "hubert_nano@random"}, r"SECTION\.layer is None: hubert_nano@random has hidden states 0 to 2"),
        ({"features": "hubert_nano@random", "layer": 3}, r"SECTION\.layer is 3: hubert_nano@random has"),
        ({"features": "fbank", "layer": 0}, r"SECTION\.features=fbank: its stride is 160 samples; targets need"),
    ],
)
def test_faults_are_named_by_their_section(
    loaded: Audio, tmp_path: Path, section: str, settings: dict[str, Any], sentence: str
) -> None:
    further = MFCC.model_copy(update={"further": CodebookSettings(**settings)})
    chosen = TargetSettings(**settings) if section == "targets" else further
    with pytest.raises(UserError, match=sentence.replace("SECTION", re.escape(section))):
        targets.create(chosen, loaded, tmp_path, 0, "cpu", NoProgress())


@pytest.mark.parametrize("quantiser", ["kmeans", "random"])
def test_several_codebooks_have_the_same_frames(quantiser: str, loaded: Audio, tmp_path: Path) -> None:
    def create(clusters: int | tuple[int, ...], folder: str) -> targets.Labels:
        settings = MFCC.model_copy(update={"clusters": clusters, "quantiser": quantiser})
        return targets.create(settings, loaded, tmp_path / folder, 3, "cpu", NoProgress())

    one, several = create(10, "one"), create((10, 10, 4), "several")
    assert several.values.shape == (len(one.values), 3) and several.sizes == (10, 10, 4)
    assert several.values[:, 0].tolist() == one.values.tolist() != several.values[:, 1].tolist()
    assert [len(set(column.tolist())) for column in several.values.T] == [10, 10, 4]
    longest = int(loaded.samples.argmax())
    rows = several.for_batch(Batch(torch.zeros(1, 8000), (8000,), (longest,), (3200,), (0,), 1), torch.ones(1, 24) > 0)
    first = several.starts[longest] + 10
    assert rows[0].tolist() == several.values[first : first + 24].tolist()
    # A codebook that a killed run left out is fitted again to the same one.
    for name in ("codebook-3.npz", "labels-0000000.npy"):
        (tmp_path / "several" / name).unlink()
    assert np.array_equal(create((10, 10, 4), "several").values, several.values)


@pytest.mark.parametrize(("features", "stack"), [("mfcc", 1), ("log-mel", 4), ("hubert_nano@random", 3)])
def test_random_codes_are_bestrqs(features: str, stack: int, loaded: Audio, tmp_path: Path) -> None:
    """Written from the paper's equation, frame by frame in float64."""
    settings = TargetSettings(features=features, layer=1, quantiser="random", clusters=30, stack=stack)
    labels = targets.create(settings, loaded, tmp_path, 7, "cpu", NoProgress())
    extractor = target_features.extractor(settings, "cpu")
    frames = extractor.compute(loaded.clips, [audio.read(clip) for clip in loaded.clips])
    sample = np.concatenate(frames).astype(np.float64)
    with np.load(tmp_path / "codebook.npz") as codebook:
        vectors, projection = (codebook[name].astype(np.float64) for name in ("centres", "projection"))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert projection.shape == (stack * sample.shape[1], 16) and vectors.shape == (30, 16)
    bound = np.sqrt(6 / sum(projection.shape))
    assert 0.9 * bound < np.abs(projection).max() < bound * (1 + 1e-6)
    assert projection.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
    same = []
    for clip in (0, 5):
        standard = (frames[clip] - sample.mean(0)) / sample.std(0)
        for position in range(shapes.frame_count(int(loaded.samples[clip]))):
            around = np.arange(position - (stack - 1) // 2, position + stack // 2 + 1).clip(0, len(standard) - 1)
            projected = standard[around].reshape(-1) @ projection
            distances = np.linalg.norm(vectors - projected / np.linalg.norm(projected), axis=1)
            same.append(distances.argmin() == labels.values[labels.starts[clip] + position])
    assert np.mean(same) > 0.99  # ties may be broken either way


def test_no_thread_is_the_first_to_import_torchaudio() -> None:
    """Threads that import it at once find it incomplete: it is there before they start."""
    code = (
        "import sys; from superb_eval.pretraining import target_features, target_settings as s\n"
        "assert 'torchaudio' not in sys.modules\n"
        "target_features.extractor(s.TargetSettings(), 'cpu'); assert 'torchaudio.compliance.kaldi' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_log_mel_are_kaldis_every_second_frame(loaded: Audio) -> None:
    wave = audio.read(loaded.clips[0])
    bands = torchaudio.compliance.kaldi.fbank(torch.from_numpy(wave)[None], num_mel_bins=80, sample_frequency=16_000)
    np.testing.assert_allclose(target_features.log_mel(wave), bands.numpy()[::2], rtol=1e-5)
    assert len(target_features.log_mel(wave)) == shapes.frame_count(len(wave))
    centred = target_features.log_mel(wave, "all")
    np.testing.assert_allclose(centred.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.diff(centred, axis=0), np.diff(bands.numpy()[::2], axis=0), atol=1e-4)


def test_labels_of_before_the_random_quantiser_are_reused() -> None:
    assert not {"quantiser", "stack"} & MFCC.as_recorded().keys()
    changed = TargetSettings(quantiser="random", stack=2).as_recorded()
    assert (changed["quantiser"], changed["stack"], MFCC.as_recorded()["clusters"]) == ("random", 2, 10)


def test_the_second_iteration_clusters_a_layer(loaded: Audio, tmp_path: Path) -> None:
    settings = TargetSettings(features="hubert_nano@random", layer=1, clusters=5, restarts=1)
    labels = targets.create(settings, loaded, tmp_path, 0, "cpu", NoProgress())
    upstream = registry.load("hubert_nano@random")
    with np.load(tmp_path / "codebook.npz") as codebook:
        centres = torch.from_numpy(codebook["centres"])
    for clip in (0, 5):
        state = upstream([torch.from_numpy(audio.read(loaded.clips[clip]))])["hidden_states"][1][0]
        nearest = torch.cdist(state.double(), centres.double()).argmin(1)
        ours = labels.values[labels.starts[clip] : labels.starts[clip + 1]].astype(int)
        assert (torch.from_numpy(ours) == nearest).float().mean() > 0.99


def test_labels_of_an_encoder_whose_weights_were_replaced_are_refused(loaded: Audio, tmp_path: Path) -> None:
    def save(seed: int) -> None:
        torch.manual_seed(seed)
        HubertModel(HubertConfig(**TINY)).save_pretrained(tmp_path / "encoder")

    def create() -> targets.Labels:
        settings = TargetSettings(features=f"hf:{tmp_path / 'encoder'}", layer=1, clusters=5, restarts=1)
        return targets.create(settings, loaded, tmp_path / "targets", 0, "cpu", NoProgress())

    save(0)
    first = create()
    assert np.array_equal(create().values, first.values)
    save(1)
    with pytest.raises(UserError, match="holds labels of other audio, settings or weights of the upstream"):
        create()


def test_a_clip_with_infinite_features_is_named(loaded: Audio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not clustered: the centres would be no numbers."""
    upstream = registry.load("hubert_nano@random")
    next(upstream.model.feature_projection.parameters()).data.fill_(torch.inf)
    monkeypatch.setattr(registry, "load", lambda _: upstream)
    settings = TargetSettings(features="hubert_nano@random", layer=1, clusters=5, restarts=1)
    with pytest.raises(UserError, match=rf"{loaded.clips[0].path.parent}.*NaN or infinite features"):
        targets.create(settings, loaded, tmp_path, 0, "cpu", NoProgress())


@pytest.mark.filterwarnings("ignore:memory ran out on a batch")
def test_batches_are_halved_where_memory_runs_out(
    loaded: Audio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TargetSettings(features="hubert_nano@random", layer=1, clusters=5, restarts=1)
    whole = targets.create(settings, loaded, tmp_path / "whole", 0, "cpu", NoProgress())
    upstream, halved = registry.load("hubert_nano@random"), []
    forward = upstream.forward_padded

    def within_memory(wavs: PaddedWavs) -> dict[str, list[torch.Tensor]]:
        if len(wavs.lengths) > 3:
            halved.append(len(wavs.lengths))
            raise MemoryError
        return forward(wavs)

    monkeypatch.setattr(upstream, "forward_padded", within_memory)
    monkeypatch.setattr(registry, "load", lambda _: upstream)
    parts = targets.create(settings, loaded, tmp_path / "parts", 0, "cpu", NoProgress())
    assert halved and (parts.values == whole.values).mean() > 0.99, "rounding may move a frame between two clusters"


def test_labels_and_batches_agree_on_frames(loaded: Audio, toy: Callable[..., PretrainRecipe], tmp_path: Path) -> None:
    labels = targets.create(MFCC, loaded, tmp_path, 0, "cpu", NoProgress())
    batches = Batches(loaded, toy().data.model_copy(update={"crop_seconds": 0.7}), 0)
    for number in range(4):
        batch = batches.load(number, 1)
        counts = [shapes.frame_count(samples) for samples in batch.lengths]
        rows = labels.for_batch(batch, valid_mask(torch.tensor(counts), max(counts) + 1))
        for row, count, clip, offset in zip(rows, counts, batch.clips, batch.offsets, strict=True):
            first = labels.starts[clip] + offset // ALIGN
            assert row.tolist() == labels.values[first : first + count].tolist() + [0] * (max(counts) + 1 - count)
