"""Discovered units: what k-means clusters of each layer know of phones, measured without labels of a task.

Clusters are fitted on the training half of phone-aligned speech and measured on the other half, whose speakers differ:
HuBERT's criteria for a layer to cluster next (Hsu et al., arXiv 2106.07447, section IV.D). The effective rank needs no
alignment at all (Garrido et al., RankMe, arXiv 2210.02885, equation 1).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from superb_eval.corpora import embedded
from superb_eval.data import audio, read_manifest
from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError
from superb_eval.features import upstream_cache
from superb_eval.features.dataset import FeatureDataset
from superb_eval.features.extract import Extraction
from superb_eval.features.load_or_extract import FeatureSource, count_stored, load_or_extract
from superb_eval.features.store import Store
from superb_eval.results.layer_record import LayerUnits, UnitMeasures
from superb_eval.runs.config import RunConfig
from superb_eval.runtime import safetensors_io
from superb_eval.runtime.progress import Progress
from upstreams.base import Upstream
from upstreams.units import CENTRES, UnitCodebook

FOLDER, COLUMN = "aligned", "alignment"
"""Of a corpus: the folder of manifests (train, test), and the column of JSON `[[phone, start_s, end_s], ...]`."""

SILENCE = re.compile(r"|_.*|sil|sp|spn|pau|h#", re.IGNORECASE)
"""Names of pauses in espeak-ng's, Kaldi's, the Montreal Forced Aligner's and TIMIT's alignments."""

RANK_FRAMES = 20_000
"""Frames that the effective rank is computed from."""

Frames = NDArray[np.float32]
Phones = NDArray[np.int64]


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


def file_name(layer: int, clusters: int) -> str:
    """Return the name of the file with the centres of a layer's clusters: `units:FILE` opens it."""
    return f"units-layer{layer}-k{clusters}.safetensors"


def measure(config: RunConfig, clusters: int, folder: Path, progress: Progress) -> UnitMeasures:
    """Measure every layer of a configuration's upstream, whose task and recipe are ignored; write centres to `folder`.

    Raises:
        UserError: the corpus has no alignment, too few frames for so many clusters, or the upstream can't process it.
    """
    corpus = _corpus(config, progress)
    names: dict[str, int] = {}
    upstream = upstream_cache.load(config.upstream, config.device, config.store)
    fingerprint = upstream.fingerprint()
    train, test = _frames(corpus, config, upstream, names, progress)
    if len(train.phones) < clusters:
        raise UserError(
            f"{corpus.name}: {len(train.phones)} frames in phones are too few for {clusters} clusters. "
            "Lower --units, or give more aligned speech."
        )
    layers = []
    with progress.step(f"{clusters} clusters", train.dataset.layers) as update:
        for number in range(train.dataset.layers):
            kmeans = fit_clusters(train.layer(number), clusters, config.seed)
            layers.append(_measured(number, test, kmeans, config.seed))
            codebook = UnitCodebook(torch.from_numpy(kmeans.cluster_centers_), config.upstream, fingerprint, number)
            safetensors_io.write(folder / file_name(number, clusters), {CENTRES: codebook.centres}, codebook.header())
            update(number + 1)
    return UnitMeasures(
        corpus=corpus.name,
        clusters=clusters,
        seed=config.seed,
        phones=len(names),
        frames=len(test.phones),
        layers=layers,
    )


def _corpus(config: RunConfig, progress: Progress) -> Corpus:
    """Return the corpus with alignments; the embedded one is synthesised first where it is missing."""
    profile = "nano" if config.profile == "nano" else "mini"
    root = config.data or embedded.default_folder(profile)
    if config.data is None and not embedded.is_made(profile, FOLDER):
        embedded.synthesise(profile, root, 0, progress, [FOLDER])
    return read_manifest.read(root, FOLDER, [COLUMN], ("train", "test"), speaker=False)


def _frames(
    corpus: Corpus, config: RunConfig, upstream: Upstream, names: dict[str, int], progress: Progress
) -> tuple[AlignedFrames, AlignedFrames]:
    """Return the frames of train and test, by one pass of the upstream; `names` gets the phones' numbers."""
    source = FeatureSource(upstream, upstream.fingerprint(), Extraction("frames"), config.device)
    clip_by_digest = {audio.digest(clip): clip for clip in corpus.clips()}
    store = Store(config.store, config.store_gb)
    with progress.step("features", len(clip_by_digest), count_stored(source, clip_by_digest, store)) as update:
        dataset = load_or_extract(source, clip_by_digest, store, update)
    stride = upstream.get_downsample_rates("hidden_states")
    train, test = (_aligned(dataset, corpus.splits[split], stride, names) for split in ("train", "test"))
    return train, test


def _aligned(dataset: FeatureDataset, split: Manifest, stride: int, names: dict[str, int]) -> AlignedFrames:
    """Return the frames of a split; `names` gets the numbers of phones that it lacks."""
    digests = tuple(audio.digest(utterance.clip) for utterance in split)
    counts = [len(row) for row in dataset.read(digests)]
    phones = np.concatenate(
        [_frame_phones(split, u, count, stride, names) for u, count in zip(split, counts, strict=True)]
    )
    return AlignedFrames(dataset, digests, phones[phones >= 0], phones >= 0)


def _frame_phones(split: Manifest, utterance: Utterance, frames: int, stride: int, names: dict[str, int]) -> Phones:
    """Return the number of the phone at the centre of each frame [frames]; -1: of none."""
    centres = (np.arange(frames) + 0.5) * stride / SAMPLE_RATE
    found = np.full(frames, -1)
    for phone, start, end in _alignment(split, utterance):
        if not SILENCE.fullmatch(phone):
            found[(start <= centres) & (centres < end)] = names.setdefault(phone, len(names))
    return found


def _alignment(split: Manifest, utterance: Utterance) -> list[tuple[str, float, float]]:
    try:
        return [(str(phone), float(start), float(end)) for phone, start, end in json.loads(utterance.labels[COLUMN])]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{split.source}: {split.row_name(utterance)}: {COLUMN} is {utterance.labels[COLUMN][:60]!r}. "
            'Expected JSON such as [["AH", 0.12, 0.18], ...]: phone, start and end in seconds.'
        ) from error


def _measured(number: int, test: AlignedFrames, kmeans: Any, seed: int) -> LayerUnits:
    measured = test.layer(number)
    pnmi, phone_purity, cluster_purity = agreement(test.phones, kmeans.predict(measured))
    rank = effective_rank(measured, seed)
    return LayerUnits(layer=number, pnmi=pnmi, phone_purity=phone_purity, cluster_purity=cluster_purity, rank=rank)


def fit_clusters(frames: Frames, clusters: int, seed: int) -> Any:
    """Return k-means fitted on frames [frames, dim], as pre-training's targets are."""
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        clusters, batch_size=10_000, n_init=3, max_iter=100, tol=0.0, reassignment_ratio=0.0, random_state=seed
    )
    return kmeans.fit(frames)


def agreement(phones: Phones, clusters: NDArray[np.integer[Any]]) -> tuple[float, float, float]:
    """Return how much clusters [frames] know of phones [frames], three ratios.

    Returns:
        The mutual information over the phones' entropy (HuBERT's phone-normalised mutual information), the accuracy
        of naming each cluster's commonest phone, and that of naming each phone's commonest cluster.
    """
    counts = np.zeros((int(phones.max()) + 1, int(clusters.max()) + 1))
    np.add.at(counts, (phones, clusters), 1.0)
    joint = counts / counts.sum()
    by_phone, by_cluster = joint.sum(1), joint.sum(0)
    present = joint > 0
    information = (joint[present] * np.log(joint[present] / np.outer(by_phone, by_cluster)[present])).sum()
    entropy = -(by_phone[by_phone > 0] * np.log(by_phone[by_phone > 0])).sum()
    return float(information / entropy) if entropy else 0.0, float(joint.max(0).sum()), float(joint.max(1).sum())


def effective_rank(frames: Frames, seed: int = 0) -> float:
    """Return the exponential of the entropy of the singular values of frames [frames, dim]: 1 to dim."""
    if len(frames) > RANK_FRAMES:
        frames = frames[np.sort(np.random.default_rng(seed).choice(len(frames), RANK_FRAMES, replace=False))]
    values = np.linalg.svd(frames.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum() if values.any() else np.ones(1)
    return float(np.exp(-(shares * np.log(shares)).sum()))
