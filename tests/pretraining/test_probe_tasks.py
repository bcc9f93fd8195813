from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from superb_eval.errors import UserError
from superb_eval.pretraining import probe_tasks
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.probe_settings import ProbeSettings
from superb_eval.pretraining.recipe import PretrainRecipe
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime.progress import NoProgress

Toy = Callable[..., PretrainRecipe]


def probe_lines(out: Path) -> dict[int, dict[str, float]]:
    with (out / "log.csv").open(encoding="utf8") as file:
        rows = [row for row in csv.DictReader(file) if row["probe"]]
    return {int(row["step"]): {k: float(v) for k, v in row.items() if v} for row in rows}


def test_probes_are_logged_and_choose_what_is_exported(toy: Toy, speech: Path, tones: Path, tmp_path: Path) -> None:
    settings = toy("probe={every: 2, tasks: [ks], data: tones, overrides: [train.steps=20, train.eval_every=10]}")
    folder = pretrain(settings, [f"audio={speech}", f"tones={tones}"], tmp_path, "cpu", 1, NoProgress())
    lines = probe_lines(tmp_path)
    assert list(lines) == [2, 4, 6]
    best = json.loads((tmp_path / probe_tasks.BEST).read_text())
    assert best["probe"] == best["ks_dev"]
    assert max(figures["probe"] for figures in lines.values()) == pytest.approx(best["probe"], rel=1e-5)
    config = RunConfig(f"hubert@{folder}", "ks", tones, "nano", ("train.steps=20", "train.eval_every=10"), out=tmp_path)
    record, _ = evaluate(config)
    assert record.training[0].rates[0].best_dev == pytest.approx(best["ks_dev"])


def scripted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, figures: dict[str, list[float]], **changes: object
) -> list[int]:
    """Evaluate updates 1, 2, ... with these figures; return those that were exported as the best."""
    exported: list[int] = []
    now = 0

    def export(folder: Path) -> None:
        if folder == tmp_path / "model":
            exported.append(now)

    settings = ProbeSettings.model_validate({"every": 1, "tasks": list(figures), **changes})
    probes = probe_tasks.Probes(settings, tmp_path, None, "cpu", export, tmp_path / "model")
    monkeypatch.setattr(probe_tasks.Probes, "_dev_metric", lambda self, task, folder: figures[task][now - 1])
    for now in range(1, len(next(iter(figures.values()))) + 1):
        probes.evaluate(now)
    return exported


def test_error_rates_are_negated_in_the_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = {"ks": [50.0, 60.0, 61.0, 61.0], "pr": [90.0, 85.0, 88.0, 86.0]}
    assert scripted(monkeypatch, tmp_path, figures) == [1, 2]
    (tmp_path / probe_tasks.BEST).unlink()
    assert scripted(monkeypatch, tmp_path, figures, chooses=False) == []


def test_the_probe_changes_nothing_of_the_training(toy: Toy, speech: Path, tones: Path, tmp_path: Path) -> None:
    overrides = "tasks: [ks], data: tones, chooses: false, overrides: [train.steps=5, train.eval_every=5]"
    data = [f"audio={speech}"]
    plain = pretrain(toy("network.dropout=0.2"), data, tmp_path / "plain", "cpu", 1, NoProgress())
    with_probe = toy("network.dropout=0.2", f"probe={{every: 3, {overrides}}}")
    folder = pretrain(with_probe, [*data, f"tones={tones}"], tmp_path / "probed", "cpu", 1, NoProgress())
    one, other = load_file(plain / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_invalid_probe_settings_are_reported_before_training(toy: Toy, speech: Path, tmp_path: Path) -> None:
    settings = toy("probe={every: 2, tasks: [qbe]}")
    with pytest.raises(UserError, match="qbe trains no head"):
        pretrain(settings, [f"audio={speech}"], tmp_path, "cpu", 1, NoProgress())
    settings = toy("probe={every: 2, data: mine}")
    with pytest.raises(UserError, match="Give its path: --data mine=PATH"):
        pretrain(settings, [f"audio={speech}"], tmp_path, "cpu", 1, NoProgress())
    assert not list(tmp_path.iterdir())
