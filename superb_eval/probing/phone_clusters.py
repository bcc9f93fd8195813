"""What k-means clusters of an upstream's layers know of phones: a probe that trains no head and needs no task's labels.

Clusters are fitted on the training half of phone-aligned speech and measured on the other half, whose speakers differ:
HuBERT's criteria for a layer to cluster next (Hsu et al., arXiv 2106.07447, section IV.D). The effective rank needs no
alignment at all (Garrido et al., RankMe, arXiv 2210.02885, equation 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from superb_eval.corpora import aligned_speech
from superb_eval.corpora.aligned_speech import Phones
from superb_eval.data import audio
from superb_eval.data.manifest import Corpus, Manifest
from superb_eval.errors import UserError
from superb_eval.features.dataset import FeatureDataset
from superb_eval.features.extract import Extraction
from superb_eval.features.load_or_extract import FeatureSource, count_stored, load_or_extract
from superb_eval.features.store import Store
from superb_eval.runtime.progress import Progress
from upstreams.base import Upstream

RANK_FRAMES = 20_000
"""Frames that the effective rank is computed from."""

Frames = NDArray[np.float32]


class PhoneAgreement(NamedTuple):
    """How much clusters know of phones, three ratios."""

    pnmi: float
    """Mutual information over the phones' entropy: HuBERT's phone-normalised mutual information."""
    phone_purity: float
    """Accuracy of naming each cluster's commonest phone."""
    cluster_purity: float
    """Accuracy of naming each phone's commonest cluster."""


@dataclass(frozen=True)
class AlignedFrames:
    """The features of one split [frames of all clips], layer by layer, and the phone of each frame; none is silent."""

    dataset: FeatureDataset
    digests: tuple[str, ...]
    phones: Phones
    kept: NDArray[np.bool_]

    def layer(self, number: int) -> Frames:
        """Return the frames [frames, dim] of a hidden state that lie in a phone."""
        rows = [row[:, number].float().numpy() for row in self.dataset.read(self.digests)]
        frames: Frames = np.concatenate(rows)[self.kept]
        return frames


@dataclass(frozen=True)
class PhoneFrames:
    """The frames of phone-aligned speech: `train`, on which clusters are fitted, and `test`."""

    train: AlignedFrames
    test: AlignedFrames
    phones: int
    """Different ones."""

    @property
    def layers(self) -> int:
        """Number of hidden states."""
        return self.train.dataset.layers

    def cluster(self, layer: int, clusters: int, seed: int) -> tuple[PhoneAgreement, Frames]:
        """Return what clusters of a hidden state know of the phones of `test`, and their centres [clusters, dim]."""
        kmeans = fit_clusters(self.train.layer(layer), clusters, seed)
        return agreement(self.test.phones, kmeans.predict(self.test.layer(layer))), kmeans.cluster_centers_

    def rank(self, layer: int, seed: int) -> float:
        """Return the effective rank of a hidden state on `test`."""
        return effective_rank(self.test.layer(layer), seed)


def extract(corpus: Corpus, upstream: Upstream, device: str, store: Store, progress: Progress) -> PhoneFrames:
    """Return the frames of a corpus from `aligned_speech.read`, by one pass of an upstream that is on the device.

    Raises:
        UserError: an alignment can't be read, or the upstream can't process the corpus.
    """
    dataset = extract_frames(corpus, upstream, device, store, progress)
    stride, numbers = upstream.get_downsample_rates("hidden_states"), dict[str, int]()
    train, test = (_aligned(dataset, corpus.splits[split], stride, numbers) for split in ("train", "test"))
    return PhoneFrames(train, test, len(numbers))


def extract_frames(corpus: Corpus, upstream: Upstream, device: str, store: Store, progress: Progress) -> FeatureDataset:
    """Return all frames of a corpus by one pass of an upstream that is on the device; stored ones are read.

    Raises:
        UserError: the upstream can't process the corpus.
    """
    source = FeatureSource(upstream, upstream.fingerprint(), Extraction("frames"), device)
    clip_by_digest = {audio.digest(clip): clip for clip in corpus.clips()}
    with progress.step("features", len(clip_by_digest), count_stored(source, clip_by_digest, store)) as update:
        return load_or_extract(source, clip_by_digest, store, update)


def check_frames(corpus: Corpus, train: int, test: int, clusters: int, option: str) -> None:
    """Check how many frames of train and test lie in phones; `option` sets the number of clusters.

    Raises:
        UserError: there are fewer in train than clusters, or none in test.
    """
    if train < clusters:
        raise UserError(
            f"{corpus.name}: {train} frames in phones are too few for {clusters} clusters. "
            f"Lower {option}, or give more aligned speech."
        )
    if not test:
        raise UserError(f"{corpus.name}: no frame of test lies in a phone. Check the column {aligned_speech.COLUMN}.")


def _aligned(dataset: FeatureDataset, split: Manifest, stride: int, numbers: dict[str, int]) -> AlignedFrames:
    """Return the frames of a split; `numbers` gets those of phones that it lacks."""
    digests = tuple(audio.digest(utterance.clip) for utterance in split)
    phones = aligned_speech.phones(split, [len(row) for row in dataset.read(digests)], stride, numbers)
    return AlignedFrames(dataset, digests, phones[phones >= 0], phones >= 0)


def fit_clusters(frames: Frames, clusters: int, seed: int) -> Any:
    """Return k-means fitted on frames [frames, dim], as pre-training's targets are."""
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        clusters, batch_size=10_000, n_init=3, max_iter=100, tol=0.0, reassignment_ratio=0.0, random_state=seed
    )
    return kmeans.fit(frames)


def agreement(phones: Phones, clusters: NDArray[np.integer[Any]]) -> PhoneAgreement:
    """Return how much clusters [frames] know of phones [frames]."""
    counts = np.zeros((int(phones.max()) + 1, int(clusters.max()) + 1))
    np.add.at(counts, (phones, clusters), 1.0)
    joint = counts / counts.sum()
    by_phone, by_cluster = joint.sum(1), joint.sum(0)
    present = joint > 0
    information = (joint[present] * np.log(joint[present] / np.outer(by_phone, by_cluster)[present])).sum()
    entropy = -(by_phone[by_phone > 0] * np.log(by_phone[by_phone > 0])).sum()
    pnmi = float(information / entropy) if entropy else 0.0
    return PhoneAgreement(pnmi, float(joint.max(0).sum()), float(joint.max(1).sum()))


def effective_rank(frames: Frames, seed: int = 0) -> float:
    """Return the exponential of the entropy of the singular values of frames [frames, dim]: 1 to dim."""
    if len(frames) > RANK_FRAMES:
        frames = frames[np.sort(np.random.default_rng(seed).choice(len(frames), RANK_FRAMES, replace=False))]
    values = np.linalg.svd(frames.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum() if values.any() else np.ones(1)
    return float(np.exp(-(shares * np.log(shares)).sum()))
