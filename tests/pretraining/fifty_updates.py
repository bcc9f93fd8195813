"""Fifty updates of each objective on fixed audio, whose losses are pinned in `fifty_updates.json`.

No network has dropout: its draws depend on the shape of a batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from superb_eval.data.audio import Clip
from superb_eval.pretraining import launch, network, shapes, trainer
from superb_eval.pretraining.batches import Batches
from superb_eval.pretraining.data import Audio
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.frontend_warmup import Regression
from superb_eval.pretraining.masked import MaskedPrediction
from superb_eval.pretraining.objective import Objective
from superb_eval.pretraining.recipe import (
    DataSettings,
    DistillationSettings,
    MaskSettings,
    NetworkSettings,
    OptimSettings,
    PredictSettings,
    StudentSettings,
    TeacherSettings,
)
from superb_eval.pretraining.student import build_student
from superb_eval.pretraining.targets import Labels
from superb_eval.runtime.progress import NoProgress
from upstreams.base import Card
from upstreams.hubert import Hubert

CLUSTERS = 9

NETWORK = NetworkSettings(
    hidden=16,
    layers=2,
    heads=2,
    feed_forward=32,
    conv=(4, 4, 4, 4, 4, 8, 8),
    dropout=0.0,
    layerdrop=0.1,
    more={"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
)
DATA = DataSettings.model_validate({"sources": [{"folder": "none"}], "crop_seconds": 1.5, "batch_seconds": 5})
OPTIM = OptimSettings(steps=50, lr=1e-3, log_every=1, warmup=0.1)


def audio() -> Audio:
    """Clips of 0.3 to 2 s, of noise."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4_800, 32_000, 30)
    waves = tuple(rng.integers(-3_000, 3_000, length).astype(np.int16) for length in lengths)
    return Audio(tuple(Clip(Path(f"{i}.wav")) for i in range(len(waves))), lengths, waves)


def masked_prediction() -> Objective:
    samples = audio().samples
    starts = np.array([0, *np.cumsum([shapes.frame_count(int(n)) for n in samples])])
    values = np.random.default_rng(1).integers(0, CLUSTERS, starts[-1]).astype(np.uint16)
    with network.seeded(2):
        return MaskedPrediction(
            network.create(NETWORK, 0),
            Labels(values, starts, CLUSTERS),
            MaskSettings(length=6),
            PredictSettings(width=8, unmasked=(1.0, 0.5)),
            steps=OPTIM.steps,
        )


def distillation() -> Objective:
    teacher = Hubert(
        Card("teacher", "", 320, layers=3, width=16), network.create(NETWORK, 3).eval().requires_grad_(False)
    )
    student = StudentSettings(layers=1, hidden=16, heads=2, feed_forward=32, dropout=0.0)
    settings = DistillationSettings(layers=(1, 2), l2=0.5)
    with network.seeded(4):
        return Distillation(build_student(student, teacher, 2), teacher, settings, TeacherSettings())


def regression() -> Objective:
    with network.seeded(5):
        return Regression(network.create(NETWORK, 6), mels=20)


OBJECTIVES = {"masked prediction": masked_prediction, "distillation": distillation, "warm start": regression}


def losses(name: str, folder: Path, batches: Batches) -> list[float]:
    """Return the loss of each update of a training in `folder`, on one thread, which is faster for such sizes."""
    fabric, threads = launch.launch_fabric("cpu", 1, "float32"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        state = trainer.fit(OBJECTIVES[name](), batches, OPTIM, folder, fabric=fabric, seed=0, progress=NoProgress())
    finally:
        torch.set_num_threads(threads)
    return [line["loss"] for line in state.curve]
