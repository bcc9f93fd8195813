"""On a laptop: a toy teacher is trained on synthetic speech, and a student is distilled from it and evaluated."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from transformers import HubertConfig, HubertModel

import superb_eval
from superb_eval.corpora import embedded
from superb_eval.pretraining.distill import distill
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.recipe import DistillationRecipe, PretrainRecipe, load
from superb_eval.runtime.progress import NoProgress
from upstreams import registry


def curve(out: Path, part: str) -> list[float]:
    with (out / "log.csv").open(encoding="utf8") as file:
        return [float(line[part]) for line in csv.DictReader(file)]


SIZES = (
    "network.hidden=64",
    "network.feed_forward=128",
    "network.conv=[32,32,32,32,32,64,64]",
)


def randomise(student: Path, folder: Path) -> Path:
    """The student's network with random weights."""
    torch.manual_seed(0)
    HubertModel(HubertConfig.from_pretrained(student)).save_pretrained(folder)
    return folder


@pytest.mark.slow(seconds=80)
def test_from_speech_to_a_student_that_beats_random_weights(tmp_path: Path) -> None:
    speech = tmp_path / "speech"
    embedded.synthesise("nano", speech, 0, NoProgress(), ["unlabelled"])
    data = [f"audio={speech}"]
    more = ("data.sources=[{corpus: audio}]", "data.batch_seconds=6")
    teacher_recipe = load(
        "hubert_toy",
        "pretrain",
        PretrainRecipe,
        (*more, *SIZES, "optim.steps=120", "front.optim.steps=150"),
    )
    teacher = pretrain(teacher_recipe, data, tmp_path / "teacher", "cpu", 1, NoProgress())
    masked = curve(tmp_path / "teacher", "masked")
    assert masked[-1] < 0.9 * masked[0]
    student_recipe = load(
        "distilhubert_toy",
        "distill",
        DistillationRecipe,
        (*more, "optim.steps=120", "optim.lr=3e-3", "student.hidden=null", f"teacher.address=hubert@{teacher}"),
    )
    student = distill(student_recipe, data, tmp_path / "student", "cpu", 1, NoProgress())
    for part in ("l1_2", "cosine_2"):
        losses = curve(tmp_path / "student", part)
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), part
    large, small = registry.load(f"hubert@{teacher}"), registry.load(f"distilhubert@{student}")
    assert (large.card.layers, small.card.layers) == (3, 2)
    assert small.count_parameters() < large.count_parameters()

    def score(encoder: Path, task: str, corpus: Path, steps: int) -> float:
        record = superb_eval.evaluate(
            f"distilhubert@{encoder}",
            task=task,
            data=corpus,
            profile="nano",
            out=tmp_path / "results",
            store=tmp_path / "features",
            overrides=[f"train.steps={steps}"],
        )
        return record.metrics[0].value

    # KS has 24 test clips in the nano corpus, too few to separate encoders, and 288 in mini.
    words, sentences = tmp_path / "words", tmp_path / "sentences"
    embedded.synthesise("mini", words, 0, NoProgress(), ["ks"])
    embedded.synthesise("nano", sentences, 0, NoProgress(), ["pr"])
    random = randomise(student, tmp_path / "random")
    assert score(student, "ks", words, 800) > score(random, "ks", words, 800) + 4
    assert score(student, "pr", sentences, 100) < score(random, "pr", sentences, 100) - 4
