"""Discovered units of every layer of an upstream: recorded, and their centres written for `units:FILE` to open.

`superb_eval.probing.phone_clusters` measures them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from superb_eval.corpora import aligned_speech
from superb_eval.features import upstream_cache
from superb_eval.features.store import Store
from superb_eval.probing import phone_clusters
from superb_eval.results.layer_record import LayerUnits, UnitMeasures
from superb_eval.runs.config import RunConfig
from superb_eval.runtime import safetensors_io
from superb_eval.runtime.progress import Progress
from upstreams.units import CENTRES, UnitCodebook


def file_name(layer: int, clusters: int) -> str:
    """Return the name of the file with the centres of a layer's clusters: `units:FILE` opens it."""
    return f"units-layer{layer}-k{clusters}.safetensors"


def measure(config: RunConfig, clusters: int, folder: Path, progress: Progress) -> UnitMeasures:
    """Measure every layer of a configuration's upstream, whose task and recipe are ignored; write centres to `folder`.

    Raises:
        UserError: the corpus has no alignment, too few frames for so many clusters, or the upstream can't process it.
    """
    corpus = aligned_speech.read(config.data, "nano" if config.profile == "nano" else "mini", progress)
    upstream = upstream_cache.load(config.upstream, config.device, config.store)
    store, fingerprint = Store(config.store, config.store_gb), upstream.fingerprint()
    frames = phone_clusters.extract(corpus, upstream, config.device, store, progress)
    phone_clusters.check_frames(corpus, len(frames.train.phones), len(frames.test.phones), clusters, "--units")
    layers = []
    with progress.step(f"{clusters} clusters", frames.layers) as update:
        for number in range(frames.layers):
            known, centres = frames.cluster(number, clusters, config.seed)
            layers.append(LayerUnits(layer=number, rank=frames.rank(number, config.seed), **known._asdict()))
            codebook = UnitCodebook(torch.from_numpy(centres), config.upstream, fingerprint, number)
            safetensors_io.write(folder / file_name(number, clusters), {CENTRES: codebook.centres}, codebook.header())
            update(number + 1)
    return UnitMeasures(
        corpus=corpus.name,
        clusters=clusters,
        seed=config.seed,
        phones=frames.phones,
        frames=len(frames.test.phones),
        layers=layers,
    )
