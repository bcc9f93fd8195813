"""On a laptop: a toy teacher is trained on synthetic speech, a student is distilled from it, and opens."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from superb_eval.console import Silent
from superb_eval.corpora import embedded
from superb_eval.pretraining.distil import distil
from superb_eval.pretraining.distil_recipe import DistilRecipe
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.recipe import PretrainRecipe, load
from upstreams import registry


def curve(out: Path, part: str) -> list[float]:
    with (out / "log.csv").open(encoding="utf8") as file:
        return [float(line[part]) for line in csv.DictReader(file)]


@pytest.mark.slow
def test_from_speech_to_student(tmp_path: Path) -> None:
    speech = tmp_path / "speech"
    embedded.synthesise("nano", speech, 0, Silent(), ["unlabelled"])
    found = [f"audio={speech}"]
    more = ("data.sources=[{corpus: audio}]", "data.batch_seconds=16")
    teaching = load("hubert_toy", "pretrain", PretrainRecipe, (*more, "optim.steps=150", "front.optim.steps=60"))
    teacher = pretrain(teaching, found, tmp_path / "teacher", "cpu", 1, Silent())
    masked = curve(tmp_path / "teacher", "masked")
    assert masked[-1] < 0.9 * masked[0]
    learning = load(
        "distilhubert_toy",
        "distill",
        DistilRecipe,
        (*more, "optim.steps=150", "optim.lr=3e-3", "student.hidden=null", f"teacher.address=hubert@{teacher}"),
    )
    student = distil(learning, found, tmp_path / "student", "cpu", 1, Silent())
    for part in ("l1_2", "cosine_2"):
        losses = curve(tmp_path / "student", part)
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), part
    whole, small = registry.load(f"hubert@{teacher}"), registry.load(f"distilhubert@{student}")
    assert (whole.card.layers, small.card.layers) == (3, 2)
    assert small.count_parameters() < whole.count_parameters()
