"""What each task computes on fixed audio is pinned for its version and the engine's: whoever changes it raises one.

`PIN_FIGURES=1 pytest tests/test_pinned_figures.py` adds the figures of a new version, and changes none that is there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from downstreams import registry
from downstreams.base import Prediction, TrainedTask
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.results import code_versions
from superb_eval.runs import evaluate
from superb_eval.runs.config import RunConfig
from superb_eval.version import ENGINE_VERSION
from tests.ten_tasks import SMALL

PINNED = Path(__file__).with_suffix(".json")

FEW = (
    *("train.steps=24", "train.eval_every=8", "train.batch_size=4", "train.lr=1e-2", "train.schedule=constant"),
    "train.order_seed=3",
)

FIXED = {
    "asv": ("train.crop_seconds=1", "train.clip=1000", "head.margin=0.4"),
    "sf": ("head.dropout=0.2", "head.frame_samples=480"),
}
"""What the recipes of profile mini choose for their corpus: figures here don't change with it."""

MASKS = ("head.specaug={dim_width: 4, time_width: 8}",)
"""Narrow ones, of 16 dimensions; 24 updates, since over more of them the rounding of another processor grows."""

ENCODER = '''
import torch
from torch import nn

TIME, PITCH = torch.arange(320) / 16_000, torch.arange(1, 17) * 200.0
WAVES = torch.stack([torch.sin(6.2831853 * p * TIME) for p in PITCH], 1)

class Tones(nn.Module):
    """Two hidden states [batch, frames, 16]: how strong some pitches are in each frame of 20 ms."""

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        frames = torch.stack([wav.unfold(0, 320, 320) for wav in wavs])
        strength = (frames @ WAVES).abs()
        return {"hidden_states": [strength, torch.log(strength + 0.1)]}
'''
"""No upstream of ours, so that these figures are those of the tasks and the engine alone."""


def test_every_task_is_pinned_here() -> None:
    assert set(SMALL) == set(registry.names())
    assert set(json.loads(PINNED.read_text())) == {code_versions.versions(task) for task in SMALL} | {
        f"audio {ENGINE_VERSION}"
    }


@pytest.mark.parametrize("task", SMALL)
def test_the_figures_of_a_task(task: str, ten_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tones.py").write_text(ENCODER)
    kind, calls = registry.get(task), []
    if issubclass(kind, TrainedTask):
        monkeypatch.setattr(kind, "decode", noting(kind.decode, calls))
    steps = () if task == "qbe" else (*FEW, *FIXED.get(task, ()), *(MASKS if task in ("asr", "sf") else ()))
    overrides = (*steps, *SMALL[task])
    order = RunConfig(f"{tmp_path}/tones.py:Tones", task, ten_tasks, "mini", overrides, out=tmp_path / "results")
    record, _ = evaluate.evaluate(order)
    found = {
        "curves": [[[*point.values()] for point in rate.curve] for part in record.training for rate in part.rates],
        "layer_weights": [part.layer_weights for part in record.training],
        "tuned": [part.tuned for part in record.training],
        # Intervals are made anew from predictions; records name their method.
        "scores": {f"{m.protocol} {m.key}": [m.value, m.units] for m in record.metrics},
        "chance": record.chance,
        **({"outputs": summary(calls[-1][1]), **answers(*calls[-1])} if calls else {}),
    }
    check(
        code_versions.versions(task),
        found,
        f"`version` in downstreams/{task}.py, or ENGINE_VERSION where others change too",
    )


def test_the_figures_of_audio(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.wav", np.random.RandomState(0)
    loud = (np.arange(44_100) > 22_050)[:, None]
    soundfile.write(path, loud * 0.2 * np.tanh(rng.standard_normal((44_100, 2))), 44_100, subtype="PCM_16")
    whole, cut = Clip(path), Clip(path, start=0.25, end=0.75, gain_db=-6.0)
    trimmed = Clip(path, trim_silence=True)
    found = {
        "header": [audio.header(cut).rate, audio.header(cut).channels, audio.header(cut).samples],
        "read": [summary(torch.from_numpy(audio.read(clip))) for clip in (whole, cut, trimmed)],
        "seconds": [audio.seconds_after_trimming(clip) for clip in (whole, cut, trimmed)],
        "digests": [audio.digest(clip) for clip in (whole, cut, trimmed)],
    }
    check(f"audio {ENGINE_VERSION}", found, "ENGINE_VERSION in superb_eval/version.py")


def test_a_change_without_a_new_version_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIN_FIGURES", raising=False)
    key = f"audio {ENGINE_VERSION}"
    pinned = json.loads(PINNED.read_text())[key]
    check(key, pinned, "it")
    with pytest.raises(AssertionError, match=r"seconds changed from .* raise it, then run PIN_FIGURES=1"):
        check(key, {**pinned, "seconds": [1.0, 0.5, 0.51]}, "it")
    with pytest.raises(AssertionError, match="no figures are pinned for audio 0"):
        check("audio 0", pinned, "it")


def noting(decode: Any, calls: list[tuple[Any, ...]]) -> Any:
    def decode_and_note(task: TrainedTask, output: torch.Tensor, lengths: torch.Tensor) -> Any:
        calls.append((task, output, lengths))
        return decode(task, output, lengths)

    return decode_and_note


def answers(task: TrainedTask, output: torch.Tensor, lengths: torch.Tensor) -> dict[str, Any]:
    """What a task makes of noise instead of a head's output, and how it scores that where answers are words."""
    noise = np.random.RandomState(0).standard_normal(tuple(output.shape)).astype(np.float32)
    shown = task.show(task.decode(torch.from_numpy(noise), lengths))
    rows = [Prediction(str(i), shown[i - 1], answer) for i, answer in enumerate(shown)]
    scores = [score.value for score in task.score(rows)] if task.name in ("pr", "asr", "sf") else []
    return {"decoded": shown, "scores_of_decoded": scores}


def summary(values: torch.Tensor) -> list[float]:
    """Some figures that hardly any two tensors share."""
    flat = values.detach().double().flatten()
    some = flat[:: len(flat) // 5]
    return [float(figure) for figure in (len(flat), flat.mean(), flat.std(), flat.abs().max(), *some)]


def check(key: str, found: dict[str, Any], raised: str) -> None:
    """Compare figures with the pinned ones; `raised` is what a change has to raise."""
    pinned = json.loads(PINNED.read_text()) if PINNED.is_file() else {}
    found = json.loads(json.dumps(found))
    if key not in pinned and os.environ.get("PIN_FIGURES"):
        name = key.rpartition(" ")[0].rpartition(" ")[2]
        kept = {other: value for other, value in pinned.items() if other.rpartition(" ")[0].rpartition(" ")[2] != name}
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted({**kept, key: rounded(found)}.items())]
        PINNED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    how = f"PIN_FIGURES=1 pytest tests/{Path(__file__).name}"
    assert key in pinned, f"no figures are pinned for {key}. Run {how}, and commit them."
    for part, values in pinned[key].items():
        assert same(found[part], values), (
            f"{key}: {part} changed from {values} to {found[part]}. If that is meant, raise {raised}, then run {how}; "
            "if not, the change is a fault."
        )


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def same(found: Any, pinned: Any) -> bool:
    """Whether all figures agree to a thousandth."""
    if isinstance(pinned, dict):
        return found.keys() == pinned.keys() and all(same(found[key], pinned[key]) for key in pinned)
    if isinstance(pinned, list):
        return len(found) == len(pinned) and all(map(same, found, pinned))
    if isinstance(pinned, float):
        return bool(found == pytest.approx(pinned, rel=1e-3, abs=1e-4))
    return bool(found == pinned)
