"""Features that are quantised into targets: MFCC, log-mel, or a layer of an upstream."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from superb_eval.data.audio import SAMPLE_RATE, Clip, Waveform
from superb_eval.errors import UserError
from superb_eval.features.extract import Extraction, extract
from superb_eval.pretraining.target_settings import CodebookSettings
from superb_eval.runtime.threads import available_cores, limit_threads
from upstreams import registry

Frames = NDArray[np.float32]
"""[frames, dim], at 50 frames per second: frame k covers samples 320 k to 320 k + 400, as HuBERT's."""


@dataclass(frozen=True)
class TargetExtractor:
    """What computes the features of clips, given with their waveforms [samples].

    `fingerprint` is that of the upstream; None: of MFCC and log-mel, which have no weights.
    """

    compute: Callable[[Sequence[Clip], Sequence[Waveform]], list[Frames]]
    fingerprint: str | None = None


CEPSTRA = 13

MELS = 80
"""Bands of `log-mel`, as BEST-RQ's (Chiu et al., arXiv 2202.01855, section 4)."""


def extractor(settings: CodebookSettings, device: str) -> TargetExtractor:
    """Return the extractor of the features that the settings name.

    Raises:
        UserError: the upstream has no such layer, or another stride than HuBERT's 320 samples.
    """
    if compute := {"mfcc": mfcc, "log-mel": log_mel}.get(settings.features):
        importlib.import_module("torchaudio.compliance.kaldi")  # threads that import it at once see half of torchaudio
        return TargetExtractor(lambda clips, waves: _in_threads(compute, waves, settings.centre))
    return _layer_extractor(settings, device)


def _in_threads(compute: Callable[[Waveform, str], Frames], waves: Sequence[Waveform], centre: str) -> list[Frames]:
    workers = min(8, available_cores())
    with limit_threads(1), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(lambda wave: compute(wave, centre), waves))


def mfcc(wave: Waveform, centre: str = "none") -> Frames:
    """Return 13 MFCC, their deltas and delta-deltas [frames, 39] of a waveform [samples], every second frame of 10 ms.

    Kaldi's, without energy, as HuBERT's `dump_mfcc_feature.py` computes them; fairseq, too, takes every second label.
    `centre` removes the mean over the clip of C0 (`c0`), or of all 13 (`all`); the means of deltas are near 0.
    """
    from torchaudio.compliance import kaldi
    from torchaudio.functional import compute_deltas

    static = kaldi.mfcc(torch.from_numpy(wave)[None], sample_frequency=SAMPLE_RATE, use_energy=False, dither=0.0)
    centred = {"none": 0, "c0": 1, "all": CEPSTRA}[centre]
    static[:, :centred] -= static[:, :centred].mean(0)
    deltas = compute_deltas(static.T)
    frames: Frames = torch.cat([static.T, deltas, compute_deltas(deltas)]).T[::2].numpy()
    return frames


def log_mel(wave: Waveform, centre: str = "none") -> Frames:
    """Return 80 log-mel bands [frames, 80] of a waveform [samples], every second frame of 10 ms.

    Kaldi's, without dither; `centre` removes each band's mean over the clip (`all`) or keeps it (`none`).
    """
    from torchaudio.compliance import kaldi

    mel = kaldi.fbank(torch.from_numpy(wave)[None], num_mel_bins=MELS, sample_frequency=SAMPLE_RATE, dither=0.0)[::2]
    frames: Frames = (mel - mel.mean(0) if centre == "all" else mel).numpy()
    return frames


def mfcc_weights(weights: tuple[float, float, float, float]) -> Frames:
    """Return the weights [39] of C0, the other cepstra, deltas and delta-deltas."""
    return np.repeat(np.array(weights, np.float32), (1, CEPSTRA - 1, CEPSTRA, CEPSTRA))


def _layer_extractor(settings: CodebookSettings, device: str) -> TargetExtractor:
    upstream = registry.load(settings.features).to(device)
    layer, layers = settings.layer, upstream.card.layers
    if layer is None or layer >= layers:
        raise UserError(
            f"{settings.section}.layer is {layer}: {settings.features} has hidden states 0 to {layers - 1}. "
            "Choose one of them."
        )
    if upstream.card.stride != 320:
        raise UserError(
            f"{settings.section}.features={settings.features}: its stride is {upstream.card.stride} samples; "
            "targets need HuBERT's 320."
        )
    extraction = Extraction("frames", layers=(layer,))

    def compute(clips: Sequence[Clip], waves: Sequence[Waveform]) -> list[Frames]:
        features = dict(extract(upstream, clips, extraction, device, waves))
        return [features[i].squeeze(1).numpy() for i in range(len(clips))]

    return TargetExtractor(compute, upstream.fingerprint())
