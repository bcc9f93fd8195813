"""Pre-training resumes with another number of processes: the global batch, and so the curve, stays the same."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from superb_eval.errors import UserError
from superb_eval.pretraining import checkpoints
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.recipe import PretrainRecipe, load
from superb_eval.runtime.progress import NoProgress
from tests.pretraining.conftest import TINY, write_speech
from tests.rounding import assert_near_losses

SETTINGS = (*TINY, "data.batch_seconds=8", "optim.steps=6", "optim.accumulate=2", "optim.lr=1e-2")


def curve(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def on_two(recipe: Path, speech: Path, out: Path) -> None:
    command = [sys.executable, "-m", "superb_eval", "pretrain", str(recipe), "--out", str(out), "--devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--data", f"audio={speech}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_training_of_one_process_resumes_with_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from superb_eval.pretraining import trainer

    speech = write_speech(tmp_path / "speech", 12)
    settings = load("hubert_toy", "pretrain", PretrainRecipe, SETTINGS)
    pretrain(settings, [f"audio={speech}"], tmp_path / "one", "cpu", 1, NoProgress())
    update = trainer._Trainer._update

    def with_request(self, module, optimizer, batches, requested, due):  # type: ignore[no-untyped-def]
        return update(self, module, optimizer, batches, requested or self.state.step == 1, due)

    monkeypatch.setattr(trainer._Trainer, "_update", with_request)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, [f"audio={speech}"], tmp_path / "two", "cpu", 1, NoProgress())
    assert checkpoints.saved_step(tmp_path / "two/last.pt") == 3
    shutil.copy(tmp_path / "one/recipe.yaml", tmp_path / "toy.yaml")
    on_two(tmp_path / "toy.yaml", speech, tmp_path / "two")
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert [row["step"] for row in two] == [row["step"] for row in one] and len(one) == 6
    for key in ("loss", "masked", "penalty", "hours"):
        assert [row[key] for row in two[:3]] == [row[key] for row in one[:3]], "of one process in both"
        assert_near_losses([float(row[key]) for row in two[3:]], [float(row[key]) for row in one[3:]])


def saved(path: Path, count: int) -> None:
    module = torch.nn.Linear(3, 2)
    for step in range(1, count + 1):
        torch.nn.init.constant_(module.weight, step)
        checkpoints.write(path, module, torch.optim.AdamW(module.parameters()), checkpoints.State(step), 0)


@pytest.mark.parametrize("damage", ["half", "empty", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    saved(path, 3)
    whole = path.read_bytes()
    middle = whole.index(np.float32(3).tobytes() * 6)
    flipped = bytes([*whole[:middle], whole[middle] ^ 1, *whole[middle + 1 :]])
    path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "flipped": flipped}[damage])
    module = torch.nn.Linear(3, 2)
    with pytest.warns(UserWarning, match=r"last\.pt: damaged"):
        state = checkpoints.read(path, module, torch.optim.AdamW(module.parameters()), 0)
    assert state.step == 2 and bool((module.weight == 2).all())
    (tmp_path / "last.pt.before").unlink()
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(UserError, match="no previous checkpoint can be read"),
    ):
        checkpoints.saved_step(path)


def test_a_failed_write_leaves_the_last_two_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    path = tmp_path / "last.pt"
    saved(path, 2)

    def full(content: object, path_: Path) -> None:
        path_.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match="the disk is full"):
            saved(path, 1)
    assert checkpoints.saved_step(path) == 2
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.saved_step(path) == 1
