"""Toy audio and toy settings, so that a training takes a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from superb_eval.pretraining.recipe import PretrainRecipe, load
from superb_eval.runtime.progress import NoProgress

TINY = (
    "data.batch_seconds=4",
    "network.conv=[4, 4, 4, 4, 4, 8, 8]",
    "network.hidden=8",
    "network.feed_forward=16",
    "network.layers=1",
    "front=null",
    "optim.steps=6",
    "optim.log_every=1",
)


def write_speech(folder: Path, count: int = 24, seconds: tuple[float, float] = (0.5, 2.5)) -> Path:
    """Write tones in noise whose pitch changes every tenth of a second, so that frames fall into clusters."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        samples = int(16_000 * rng.uniform(*seconds))
        time = np.arange(samples) / 16_000
        pitch = rng.choice([200.0, 700.0, 2200.0], size=samples // 1600 + 1).repeat(1600)[:samples]
        wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.03 * rng.standard_normal(samples)
        soundfile.write(folder / f"{number:02d}.flac", wave, 16_000)
    return folder


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 clips, 0.5 to 2.5 s; read it, don't change it."""
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a HuBERT of 3 layers x 32, so that an update takes a tenth of a second."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "conv_dim": (16,) * 7}
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    HubertModel(HubertConfig(**sizes, num_hidden_layers=3, num_conv_pos_embeddings=16)).save_pretrained(folder)
    return folder


@pytest.fixture
def toy() -> Callable[..., PretrainRecipe]:
    """The toy recipe in smaller sizes, without its warm start, as a function of overrides."""
    return lambda *overrides: load("hubert_toy", "pretrain", PretrainRecipe, (*TINY, *overrides))


class RecordedProgress(NoProgress):
    """Records the logged lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def recorded() -> RecordedProgress:
    return RecordedProgress()
