"""Where an encoder loses the speaker: `python -m tests.benchmarks speakers`; other encoders' layers beside it by
`python -m tests.benchmarks.speakers ADDRESS...`.

The embedded corpus of SID; a linear classifier (logistic regression, its penalty chosen on dev) of each clip's mean
over time, for log-mel bands normalised in four ways and for layers of the released teacher. It measures what the
features hold, without a head's training; the test split has 200 clips of 40 speakers, so that 7 points are chance.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from superb_eval.corpora import embedded
from superb_eval.data import audio, read_manifest
from superb_eval.data.manifest import SPLITS, Corpus, Manifest
from superb_eval.runtime.progress import NoProgress
from upstreams import registry
from upstreams.fbank import MELS

PENALTIES = (1.0, 30.0, 1000.0)
"""Inverse strengths, of which dev chooses."""

LAYERS = (0, 2, 5, 12)

NORMALISED: dict[str, Callable[[Tensor], Tensor]] = {
    "log-mel": lambda logs: logs,
    "log-mel, less the clip's level": lambda logs: logs - torch.logsumexp(logs.flatten(), 0),
    "log-mel, each frame standardised (LayerNorm)": lambda logs: (
        (logs - logs.mean(1, keepdim=True)) / logs.std(1, keepdim=True)
    ),
    "log-mel, each band less its mean power over the clip (GroupNorm)": lambda logs: logs - torch.logsumexp(logs, 0),
}
"""Of bands [frames, mels]. HuBERT Base's first convolution has a GroupNorm, HuBERT Large's convolutions LayerNorms."""

Means = dict[str, NDArray[np.float32]]
"""[clips, dim] of each split."""


def run(*upstreams: str) -> str:
    corpus = read_manifest.read(embedded.ensure_folder("mini", "sid", NoProgress()), "sid", ["speaker"])
    lines = ["| features, mean over the clip | dev ACC | test ACC |", "| --- | ---: | ---: |"]
    of_layers = (layers(corpus, upstream) for upstream in ("hubert_mini", *upstreams))
    for name, means in chain(log_mels(corpus), *of_layers):
        dev, test = accuracies(corpus, means)
        lines.append(f"| {name} | {dev:.1f} | {test:.1f} |")
    return "\n".join(lines)


def log_mels(corpus: Corpus) -> Iterator[tuple[str, Means]]:
    """Yield the means of FBANK's bands, without deltas, for each way to normalise them."""
    hidden = {split: hidden_states(corpus.splits[split], "fbank_nonorm") for split in SPLITS}
    for name, normalise in NORMALISED.items():
        yield name, {split: mean([normalise(states[0][:, :MELS]) for states in hidden[split]]) for split in SPLITS}


def layers(corpus: Corpus, upstream: str) -> Iterator[tuple[str, Means]]:
    """Yield the means of an upstream's layers."""
    hidden = {split: hidden_states(corpus.splits[split], upstream) for split in SPLITS}
    for layer in LAYERS:
        yield (
            f"{upstream}, layer {layer}",
            {split: mean([states[layer] for states in hidden[split]]) for split in SPLITS},
        )


@torch.inference_mode()
def hidden_states(split: Manifest, upstream: str) -> list[list[Tensor]]:
    """Return the layers [frames, dim] of each clip of a split."""
    encoder = registry.load(upstream).eval()
    waves = [audio.read(row.clip) for row in split]
    return [[layer[0] for layer in encoder([torch.as_tensor(wave)])["hidden_states"]] for wave in waves]


def mean(frames: list[Tensor]) -> NDArray[np.float32]:
    """Return the means over time [clips, dim] of clips [frames, dim]."""
    return torch.stack([clip.mean(0) for clip in frames]).numpy()


def accuracies(corpus: Corpus, means: Means) -> tuple[float, float]:
    """Return dev and test accuracy, in %, of the classifier that is best on dev."""
    speakers = {split: [row.speaker for row in corpus.splits[split]] for split in SPLITS}
    # one scale for all dimensions: standardising each would make noise of those that hardly vary
    centre, scale = means["train"].mean(0), means["train"].std(0).max()
    scaled = {split: (means[split] - centre) / scale for split in SPLITS}
    fitted = [
        LogisticRegression(C=penalty, max_iter=2000).fit(scaled["train"], speakers["train"]) for penalty in PENALTIES
    ]
    best = max(fitted, key=lambda model: model.score(scaled["dev"], speakers["dev"]))
    dev, test = (100 * best.score(scaled[split], speakers[split]) for split in ("dev", "test"))
    return dev, test


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
