"""A training of each task's head on random features, small enough for many updates in a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from downstreams import registry
from downstreams.base import Setup, TrainedTask
from downstreams.batching.sampling import BatchSource
from superb_eval.data.audio import SAMPLE_RATE, Clip
from superb_eval.data.manifest import Manifest, Utterance
from superb_eval.features.dataset import Features
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.probe import Probe, Split
from superb_eval.probing.probe_state import ProbeState
from superb_eval.probing.training import Training
from superb_eval.recipe import TrainSettings

LAYERS, DIM, STRIDE = 3, 12, 320

MASKED: dict[str, Any] = {
    "projector_dim": 8,
    "hidden_dim": 6,
    "specaug": {"dim_width": 4, "time_width": 8},
    "frame_samples": 640,
}
HEADS: dict[str, dict[str, Any]] = {
    "pr": {"projector_dim": 8},
    "asr": MASKED,
    "sf": MASKED,
    "ks": {"projector_dim": 8},
    "sid": {"projector_dim": 8},
    "ic": {"projector_dim": 8},
    "er": {"projector_dim": 8},
    "asv": {"hidden": 8, "wide": 10, "margin": 0.2},
    "sd": {"hidden": 8},
    "gender": {"projector_dim": 8},
}
"""The head's settings, for each task that trains one."""

WORDS = ("YES", "NO", "UP", "DOWN", "GO")


@dataclass
class Rotation(BatchSource):
    """Draws all utterances in turn."""

    size: int
    batch_size: int

    def batch(self, number: int) -> list[int]:
        return [k % self.size for k in range(number * self.batch_size, (number + 1) * self.batch_size)]


def small_training(
    name: str,
    frames: Sequence[int],
    batch_size: int,
    folder: Path,
    *,
    device: str = "cpu",
    precision: str = "float32",
    rates: Sequence[float] = (1e-2, 1e-3),
) -> Training:
    """Return a training of a task on utterances of so many frames, drawn in their order."""
    task, split = small_split(name, frames)
    states = []
    for k, lr in enumerate(rates):
        torch.manual_seed(k)
        states.append(ProbeState(lr, Probe(Featurizer(LAYERS), task.head(DIM)).to(device), folder / f"lr{k}"))
    settings = TrainSettings.model_validate(
        {"steps": 1000, "eval_every": 500, "accumulate": 2, "clip": 0.5, "precision": precision}
    )
    training = Training(states, task, {"train": split, "dev": split}, settings, seed=5, folder=folder)
    training.__dict__["sampler"] = Rotation(len(frames), batch_size)
    return training


def small_split(name: str, frames: Sequence[int]) -> tuple[TrainedTask, Split]:
    """Return a task, and a split of utterances of so many frames with random features, means where it pools."""
    kind = registry.get(name)
    assert issubclass(kind, TrainedTask)
    utterances = tuple(_utterance(k, count) for k, count in enumerate(frames))
    head = kind.Head.model_validate(HEADS[name])
    task = kind(Setup(_labels(name), head, STRIDE))
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(count, LAYERS, DIM, generator=generator) for count in frames]
    features = Features.from_tensors([row.mean(dim=0) for row in rows] if kind.pooled else rows)
    return task, Split(Manifest("train", utterances, Path("train.csv")), features)


def _labels(name: str) -> Any:
    letters = {"characters": ["<pad>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]}
    characters = ["<pad>", "<eos>", "<unk>", *" ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    return {
        "pr": ["<pad>", "<eos>", "<unk>", "AA", "B", "D", "IY", "K"],
        "asr": letters,
        "sf": {"characters": characters, "slots": ["word"]},
        "ks": [word.lower() for word in WORDS],
        "sid": [f"speaker{k}" for k in range(4)],
        "asv": [f"speaker{k}" for k in range(4)],
        "ic": {"action": ["a0", "a1"], "object": ["o0", "o1", "o2"], "location": ["none"]},
        "er": ["neu", "hap", "ang"],
        "sd": 2,
        "gender": ["female", "male"],
    }[name]


def _utterance(k: int, frames: int) -> Utterance:
    word, phones = WORDS[k % 5], ("AA B", "K IY D", "B", "D AA K IY")[k % 4]
    seconds = frames * STRIDE / SAMPLE_RATE
    turns = [[0.0, 0.6 * seconds, "a"], [(0.2 + 0.1 * (k % 4)) * seconds, seconds, "b"]]
    labels = {
        "phones": phones,
        "text": word,
        "text_canonical": f"SAY {word}",
        "iob_canonical": "O B-word",
        "keyword": word.lower(),
        "speaker": f"speaker{k % 4}",
        "emotion": ("neu", "hap", "ang")[k % 3],
        "gender": ("female", "male")[k % 2],
        "action": f"a{k % 2}",
        "object": f"o{k % 3}",
        "location": "none",
        "recording": f"r{k}",
        "turns": json.dumps(turns),
    }
    # Labels of SD may outnumber frames, or be fewer.
    clip = Clip(Path(f"{k}.wav"), 0.0, (frames + k % 3 - 1) * STRIDE / SAMPLE_RATE)
    return Utterance(f"u{k}", clip, f"speaker{k % 4}", labels)
