"""On a GPU: no update waits for it, a training resumes, and a batch that does not fit is computed in halves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from superb_eval.data.audio import SAMPLE_RATE, Clip
from superb_eval.features.extract import Extraction, extract
from superb_eval.pretraining import trainer
from superb_eval.pretraining.distill import distill
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.recipe import DistillationRecipe, PretrainRecipe, load
from superb_eval.probing import training
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import devices
from superb_eval.runtime.progress import NoProgress
from tests.pretraining.conftest import TINY, write_speech
from tests.rounding import assert_near_losses
from tests.ten_tasks import SMALL
from upstreams import registry

pytestmark = pytest.mark.gpu

WARM_UP = 2
"""Updates in which libraries allocate what they need."""


@contextmanager
def refused_waiting(device: str) -> Iterator[None]:
    """Let torch raise an error where the host waits for the GPU."""
    if devices.kind(device) != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def watch_updates(owner: type, step: Callable[[Any], int], device: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Refuse waiting in the updates of a training loop; return the numbers of those that were watched, as they come."""
    update: Any = owner._update  # type: ignore[attr-defined]
    watched: list[int] = []

    def watching(self: Any, *inputs: Any) -> Any:
        if step(self) < WARM_UP:
            return update(self, *inputs)
        watched.append(step(self))
        with refused_waiting(device):
            return update(self, *inputs)

    monkeypatch.setattr(owner, "_update", watching)
    return watched


def test_no_update_of_pretraining_waits(tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = write_speech(tmp_path / "speech")
    watched = watch_updates(trainer._Trainer, lambda self: self.state.step, device, monkeypatch)
    chosen = load("hubert_toy", "pretrain", PretrainRecipe, (*TINY, "optim.precision=bf16"))
    pretrain(chosen, [f"audio={speech}"], tmp_path / "out", device, 1, NoProgress())
    assert watched == [2, 3, 4, 5]


def test_no_update_of_distillation_waits(tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = write_speech(tmp_path / "speech")
    watched = watch_updates(trainer._Trainer, lambda self: self.state.step, device, monkeypatch)
    chosen = load("distilhubert_toy", "distill", DistillationRecipe, ("teacher.precision=bf16", "optim.precision=bf16"))
    distill(chosen, [f"audio={speech}"], tmp_path / "out", device, 1, NoProgress())
    assert watched == [2, 3, 4, 5, 6, 7]


def let_ctc_wait(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow what torch's CTC loss waits for, forward and backward: the copies of the lengths that it makes itself."""
    if devices.kind(device) != "cuda":
        return
    loss = torch.nn.functional.ctc_loss

    def waiting(log_probs: torch.Tensor, *inputs: Any, **settings: Any) -> torch.Tensor:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        value = loss(log_probs, *inputs, **settings)
        torch.cuda.set_sync_debug_mode(mode)
        if value.requires_grad:
            value.register_hook(lambda _: torch.cuda.set_sync_debug_mode("default"))  # before the loss's own backward
            log_probs.register_hook(lambda _: torch.cuda.set_sync_debug_mode(mode))  # and after it
        return value

    monkeypatch.setattr(torch.nn.functional, "ctc_loss", waiting)


@pytest.mark.parametrize("task", [task for task in SMALL if task not in ("gender", "qbe")])
def test_no_update_of_a_head_waits(
    task: str, ten_tasks: Path, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch_updates(training.Training, lambda self: self.step, device, monkeypatch)
    let_ctc_wait(device, monkeypatch)
    settings = ("train.steps=6", "train.eval_every=6", "train.batch_size=4", *SMALL[task])
    evaluate(RunConfig("fbank_nonorm", task, ten_tasks, "nano", settings, out=tmp_path, device=device))
    assert set(watched) == {2, 3, 4, 5, 6}


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Simulate a signal to stop during an update."""
    update = trainer._Trainer._update

    def signalled(self: Any, module: Any, optimizer: Any, batches: Any, stop: bool, save: bool) -> Any:
        return update(self, module, optimizer, batches, stop or self.state.step + 1 == step, save)

    monkeypatch.setattr(trainer._Trainer, "_update", signalled)


def losses(out: Path) -> list[float]:
    lines = (out / "log.csv").read_text(encoding="utf8").splitlines()
    place = lines[0].split(",").index("loss")
    return [float(line.split(",")[place]) for line in lines[1:]]


def test_a_training_resumes(tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit where two unbroken ones give the same bits, which sums in any order may prevent on a GPU."""
    speech = [f"audio={write_speech(tmp_path / 'speech')}"]
    chosen = load("hubert_toy", "pretrain", PretrainRecipe, (*TINY, "network.dropout=0.2"))
    for out in ("one", "again"):
        pretrain(chosen, speech, tmp_path / out, device, 1, NoProgress())
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            pretrain(chosen, speech, tmp_path / "resumed", device, 1, NoProgress())
    pretrain(chosen, speech, tmp_path / "resumed", device, 1, NoProgress())
    one, again, resumed = (losses(tmp_path / out) for out in ("one", "again", "resumed"))
    if one == again:
        assert resumed == one
    assert_near_losses(resumed, one, rel=1e-4)


def test_a_batch_that_does_not_fit_is_computed_in_halves(tmp_path: Path, device: str) -> None:
    if devices.kind(device) != "cuda":
        pytest.skip("the CPU's memory has no bound")
    clips = [Clip(tmp_path / f"{k}.wav") for k in range(32)]
    for k, clip in enumerate(clips):
        noise = 0.1 * np.random.default_rng(k).standard_normal(10 * SAMPLE_RATE)
        soundfile.write(clip.path, noise, SAMPLE_RATE)
    upstream = registry.load("hubert_nano@random").to(device)

    def run(batch_seconds: float) -> dict[int, torch.Tensor]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return dict(extract(upstream, clips, Extraction("pooled", batch_seconds=batch_seconds), device))

    # A GPU's batches are five times as long as a CPU's, and 10 s are padded to 10.24.
    expected = run(17)
    needs_eight = torch.cuda.max_memory_reserved(device)
    run(70)
    needs_all = torch.cuda.max_memory_reserved(device)
    assert needs_all > 1.2 * needs_eight
    total = torch.cuda.get_device_properties(device).total_memory
    # Close above what 8 clips need: the convolutions take less workspace where less memory is left.
    torch.cuda.set_per_process_memory_fraction((needs_eight + (needs_all - needs_eight) / 8) / total)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            features = run(70)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("memory ran out on a batch of 32 clips" in str(warning.message) for warning in caught)
    for i, vectors in expected.items():
        torch.testing.assert_close(features[i], vectors, rtol=1e-3, atol=1e-4)
