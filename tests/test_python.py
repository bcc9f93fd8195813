"""Evaluation from Python: encoders as objects, several tasks and seeds, tables in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import superb_eval
from superb_eval.errors import UserError
from superb_eval.results.notebook import html
from upstreams import registry

SHORT = ["train.steps=40", "train.eval_every=20", "train.batch_size=8", "train.lr=1e-2"]


class Strided(nn.Module):
    """An encoder of random weights: a convolution over waveforms, 50 frames per second."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, width, 400, 320)

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        padded = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return {"hidden_states": [self.conv(padded[:, None]).relu().transpose(1, 2)]}


@pytest.fixture
def options(tones: Path, tmp_path: Path) -> dict[str, Any]:
    return {"data": tones, "overrides": SHORT, "out": tmp_path / "results"}


def test_a_module_is_evaluated_and_left_as_it_was(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Strided().train()
    record = superb_eval.evaluate(module, "ks", **options)
    assert record.upstream.address == "python:Strided" and record.upstream.width == 16
    assert module.training and all(p.requires_grad for p in module.parameters())
    again = superb_eval.evaluate(module, "ks", **options)
    assert again.started == record.started, "a finished run is returned as it is"
    with torch.no_grad():
        module.conv.weight.add_(1.0)
    changed = superb_eval.evaluate(module, "ks", **options)
    assert changed.upstream.fingerprint != record.upstream.fingerprint, "other weights are another upstream"


def test_builders_and_functions_are_encoders_too(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv1d(1, 8, 400, 320).requires_grad_(False)

    def spectra(wavs: list[Tensor]) -> Tensor:
        padded = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return conv(padded[:, None]).abs().transpose(1, 2)

    def build() -> nn.Module:
        return Strided(12)

    widths = {
        record.upstream.address: record.upstream.width
        for encoder in (Strided, build, spectra)
        for record in [superb_eval.evaluate(encoder, "ks", **options)]
    }
    assert widths == {"python:Strided": 16, "python:build": 12, "python:spectra": 8}


def test_several_tasks_and_seeds_are_a_list_that_a_notebook_shows(ten_tasks: Path, options: dict[str, Any]) -> None:
    options["data"] = ten_tasks
    records = superb_eval.evaluate("fbank_nonorm", ["ks", "sid"], seed=[0, 1], **options)
    assert [(record.task, record.seed) for record in records] == [("ks", 0), ("ks", 1), ("sid", 0), ("sid", 1)]
    page = records._repr_html_()
    assert page.count("<tr") == 5 and page.count("fbank_nonorm") == 4
    single = superb_eval.evaluate("fbank_nonorm", "ks", **options)
    assert single._repr_html_() == html([single]) and f"{single.metrics[0].value:.2f}" in html([single])
    hostile = single.model_copy(update={"warnings": ["<script>alert(1)</script>"]})
    assert "<script>" not in html([hostile])


def test_wrong_calls_are_one_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"a int is no upstream. Expected an address, a torch\.nn\.Module or a"):
        superb_eval.evaluate(7, "ks", **options)  # type: ignore[call-overload]
    with pytest.raises(UserError, match=r"python:Absent: is an object of the process that .*FILE\.py:Absent"):
        registry.load("python:Absent")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sede'"):
        superb_eval.evaluate("fbank", "ks", sede=1)  # type: ignore[call-overload]
