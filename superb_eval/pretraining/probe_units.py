"""A probe by discovered units: what clusters of the encoder's layers know of phones, without labels of a task.

It trains no head; most of its time is the clustering of each layer.
"""

from __future__ import annotations

from pathlib import Path

from superb_eval.corpora import aligned_speech
from superb_eval.data import audio
from superb_eval.data.audio import SAMPLE_RATE
from superb_eval.data.manifest import Manifest
from superb_eval.features import upstream_cache
from superb_eval.features.store import Store
from superb_eval.pretraining.probe_settings import UnitProbeSettings
from superb_eval.pretraining.shapes import HOP, frame_count
from superb_eval.probing import phone_clusters
from superb_eval.runtime.progress import NoProgress

OPTION = "probe.units.clusters"

SEED = 0
"""Of k-means and of the effective rank's frames, as `superb-eval layers --units` has by default."""

PNMI = "units_pnmi"


def check_corpus(settings: UnitProbeSettings, data: Path | None) -> None:
    """Read the corpus of the probe before a training starts.

    Frames are counted as HuBERT's convolutions output them, without any network.

    Raises:
        UserError: see `aligned_speech.read`; an alignment or a file can't be read, or too few frames lie in phones.
    """
    corpus = aligned_speech.read(data, settings.size, NoProgress())
    train, test = (_frames_in_phones(corpus.splits[split]) for split in ("train", "test"))
    phone_clusters.check_frames(corpus, train, test, settings.clusters, OPTION)


def _frames_in_phones(split: Manifest) -> int:
    frames = [frame_count(round(audio.seconds(utterance.clip) * SAMPLE_RATE)) for utterance in split]
    return int((aligned_speech.phones(split, frames, HOP, {}) >= 0).sum())


def measure(settings: UnitProbeSettings, data: Path | None, address: str, device: str, store: Path) -> dict[str, float]:
    """Return the best PNMI of the chosen layers (0 to 1), that layer, and the effective rank of the last layer.

    Args:
        settings: of the probe.
        data: folder with `aligned/train` and `aligned/test`; None: the embedded speech.
        address: of the upstream.
        device: it runs on.
        store: folder of the features.

    Raises:
        UserError: too few frames lie in phones, or the upstream can't process the corpus.
    """
    progress = NoProgress()
    corpus = aligned_speech.read(data, settings.size, progress)
    upstream = upstream_cache.load(address, device, store)
    frames = phone_clusters.extract(corpus, upstream, device, Store(store), progress)
    phone_clusters.check_frames(corpus, len(frames.train.phones), len(frames.test.phones), settings.clusters, OPTION)
    chosen = sorted(set(settings.layers)) or range(frames.layers)
    known = {layer: frames.cluster(layer, settings.clusters, SEED)[0].pnmi for layer in chosen}
    best = max(known, key=lambda layer: known[layer])
    return {PNMI: known[best], "units_layer": float(best), "units_rank": frames.rank(frames.layers - 1, SEED)}
