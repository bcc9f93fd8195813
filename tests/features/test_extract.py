from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
import torch

from downstreams.nets.heads import UtteranceLevel
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.features.dataset import Features
from superb_eval.features.extract import Extraction, extract
from superb_eval.features.featurizer import Featurizer
from superb_eval.features.load_or_extract import FeatureSource, load_or_extract
from superb_eval.features.padded_batches import BatchShapes
from superb_eval.features.store import Store
from superb_eval.probing.probe import Probe
from upstreams.base import Card, Upstream


def features(upstream: Upstream, clips: list[Clip], extraction: Extraction) -> list[torch.Tensor]:
    rows = dict(extract(upstream, clips, extraction, "cpu"))
    return [rows[i] for i in range(len(clips))]


def test_batches_hold_every_clip_once_within_their_bound(upstream: Upstream) -> None:
    seconds = np.random.default_rng(0).uniform(0.5, 20, size=200).tolist()
    batches = BatchShapes.of(upstream, "cpu", 60).plan(seconds)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    assert all(len(batch) == 1 or len(batch) * max(seconds[i] for i in batch) <= 60 for batch in batches)
    assert len(batches) < 60


def test_an_upstream_that_counts_no_frames_gets_equal_lengths_only(upstream: Upstream) -> None:
    class Uncounted(type(upstream)):  # type: ignore[misc]
        def frames(self, samples: int) -> None:
            return None

    uncounted = Uncounted(upstream.card, upstream.model)
    seconds = [1.0, 2.0, 1.0, 2.0, 3.0]
    for batch in BatchShapes.of(uncounted, "cpu", 60).plan(seconds):
        assert len({seconds[i] for i in batch}) == 1


def test_features_do_not_depend_on_the_batch(upstream: Upstream, clips: list[Clip]) -> None:
    together = features(upstream, clips, Extraction("frames", batch_seconds=100))
    alone = features(upstream, clips, Extraction("frames", batch_seconds=0.001))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_upstream_without_frame_counts_is_never_padded(upstream: Upstream, tmp_path: Path) -> None:
    """Two files of one length by their headers may differ by a sample once resampled."""

    class Strict(type(upstream)):  # type: ignore[misc]
        def frames(self, samples: int) -> None:
            return None

        def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
            assert len({len(wav) for wav in wavs}) == 1
            return super().forward(wavs)

    rng = np.random.default_rng(0)
    clips = []
    for k, (samples, rate) in enumerate([(16_000, 16_000), (16_000, 16_000), (15_000, 16_000)]):
        clips.append(Clip(tmp_path / f"{k}.wav"))
        soundfile.write(clips[-1].path, 0.1 * rng.standard_normal(samples), rate)
    assert len(features(Strict(upstream.card, upstream.model), clips, Extraction("pooled"))) == 3


def test_pooled_features_give_the_frame_paths_logits(upstream: Upstream, clips: list[Clip]) -> None:
    """Weighted sum, projector and mean over time are linear, so their order does not matter (design: pooled tasks)."""
    torch.manual_seed(0)
    probe = Probe(Featurizer(3), UtteranceLevel(192, 256, 12))
    torch.nn.init.normal_(probe.featurizer.weights)
    everyone = list(range(len(clips)))
    pooled = Features.from_tensors(features(upstream, clips, Extraction("pooled"))).batch(everyone)
    frames = Features.from_tensors(features(upstream, clips, Extraction("frames"))).batch(everyone)
    assert pooled.lengths.tolist() == [1] * len(everyone)
    expected = probe(frames.hidden, frames.lengths)
    torch.testing.assert_close(probe(pooled.hidden, pooled.lengths), expected, rtol=1e-5, atol=1e-5)


def test_normalised_pooling_normalises_each_frame_first(upstream: Upstream, clips: list[Clip]) -> None:
    frames = features(upstream, clips[:1], Extraction("frames"))[0]
    expected = torch.nn.functional.layer_norm(frames, frames.shape[-1:]).mean(dim=0)
    pooled = features(upstream, clips[:1], Extraction("pooled", normalize=True))[0]
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_bf16_is_near_but_not_equal(upstream: Upstream, clips: list[Clip]) -> None:
    exact = torch.stack(features(upstream, clips[:4], Extraction("pooled")))
    rough = torch.stack(features(upstream, clips[:4], Extraction("pooled", precision="bf16")))
    difference = (exact - rough).norm() / exact.norm()
    assert 0 < difference < 0.05


def test_errors_name_the_file_or_the_key(upstream: Upstream, clips: list[Clip]) -> None:
    with pytest.raises(UserError, match="no feature 'paper'. It has: hidden_states"):
        list(extract(upstream, clips[:1], Extraction("pooled", key="paper"), "cpu"))
    with torch.no_grad():
        weight = upstream.model.encoder.layers[0].final_layer_norm.weight  # type: ignore[union-attr]
        original = weight.clone()
        weight.fill_(float("nan"))
    try:
        with pytest.raises(UserError, match=r"\.flac: the upstream gives NaN"):
            list(extract(upstream, clips[:1], Extraction("pooled"), "cpu"))
    finally:
        with torch.no_grad():
            weight.copy_(original)
    assert audio.seconds(clips[0]) > 0.05


class Large(Upstream):
    """Gives features that 16 bits can't hold."""

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        return {"hidden_states": [torch.full((len(wavs), 5, 2), 1e5)]}


def test_features_too_large_for_16_bits_are_refused(clips: list[Clip]) -> None:
    upstream = Large(Card("large", "", 320))
    (whole,) = features(upstream, clips[:1], Extraction("frames"))
    assert float(whole.max()) == 1e5
    with pytest.raises(UserError, match=f"{clips[0].path.name}: the upstream's features for it are too large for 16"):
        features(upstream, clips[:1], Extraction("frames", dtype="float16"))


class Varying(Upstream):
    """An upstream whose number of hidden states, or width, depends on the clip."""

    def __init__(self, narrow: bool) -> None:
        super().__init__(Card("varying", "", 320))
        self.narrow = narrow

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        few = len(wavs[0]) < 14_000
        frames = torch.ones(len(wavs), 5, 4 if few and self.narrow else 8)
        return {"hidden_states": [frames] * (1 if few and not self.narrow else 2)}


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_features_of_other_sizes_than_those_of_other_clips_are_refused(
    kind: Literal["pooled", "frames"], narrow: bool, tmp_path: Path
) -> None:
    clips = []
    for number, samples in enumerate((8_000, 16_000)):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.ones(samples), 16_000)
        clips.append(Clip(tmp_path / f"{number}.wav"))
    with pytest.raises(UserError, match=r"\.wav: varying gives .* for it, and .* for others\. Make them the same"):
        features(Varying(narrow), clips, Extraction(kind))


def test_stored_features_of_two_sizes_are_refused(tmp_path: Path) -> None:
    by_digest = {}
    for number in range(200):  # two shards
        soundfile.write(tmp_path / f"{number}.wav", np.full(8_000, 0.001 * (number + 1)), 16_000)
        by_digest[audio.digest(Clip(tmp_path / f"{number}.wav"))] = Clip(tmp_path / f"{number}.wav")

    class Narrowing(Varying):
        passes = 0

        def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
            Narrowing.passes += len(wavs)
            return {"hidden_states": [torch.ones(len(wavs), 5, 8 if Narrowing.passes < 110 else 4)]}

    source = FeatureSource(Narrowing(True), "f", Extraction("pooled", batch_seconds=0.5), "cpu")
    with pytest.raises(UserError, match="for it, and 1 of 8 for others"):
        load_or_extract(source, by_digest, Store(tmp_path / "store"), lambda done: None)
