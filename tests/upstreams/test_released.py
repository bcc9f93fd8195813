"""The encoders that come with this repository load by name and in transformers, and have the stated sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from upstreams import registry

WEIGHTS = Path(registry.__file__).with_name("weights")


@pytest.mark.parametrize(("name", "layers", "megabytes"), [("hubert_mini", 13, 40), ("distilhubert_mini", 3, 12)])
def test_released_weights_load_by_name_and_in_transformers(
    name: str, layers: int, megabytes: int, noise: Callable[..., Tensor]
) -> None:
    from transformers import AutoModel

    ours = registry.load(name)
    states = ours([noise(16_000)])["hidden_states"]
    assert (len(states), len(states)) == (layers, ours.card.layers)
    assert ours.count_parameters() == ours.card.parameters
    theirs = AutoModel.from_pretrained(WEIGHTS / name).eval()
    with torch.inference_mode():
        expected = theirs(noise(16_000)[None], output_hidden_states=True).hidden_states
    for mine, state in zip(states, expected, strict=True):
        torch.testing.assert_close(mine, state, rtol=1e-4, atol=1e-4)
    assert (WEIGHTS / name / "model.safetensors").stat().st_size < 1e6 * megabytes
    # No file contains a local path of the machine that made it.
    assert json.loads((WEIGHTS / name / "config.json").read_text(encoding="utf8"))["_name_or_path"] == ""
    assert "**Training data**" in (WEIGHTS / name / "README.md").read_text(encoding="utf8")


def test_the_student_begins_as_its_teacher_does(noise: Callable[..., Tensor]) -> None:
    teacher, student = (
        registry.load(name)([noise(16_000)])["hidden_states"] for name in ("hubert_mini", "distilhubert_mini")
    )
    far = registry.load("hubert_mini@random")([noise(16_000)])["hidden_states"]
    alike = torch.nn.functional.cosine_similarity
    assert alike(student[0], teacher[0], dim=-1).mean() > 0.5 > alike(student[0], far[0], dim=-1).mean()
