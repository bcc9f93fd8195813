"""A newcomer's afternoon: from a copy of the repository, one new file, and the encoder stands in the table.

Nothing is installed, nothing else is touched; every step is the command that the README gives.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ENCODER = '''
"""strange_conv: three convolutions that nobody trained."""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from upstreams.base import Card, Upstream

CARDS = (Card("strange_conv", "three convolutions that nobody trained", stride=320, layers=3, width=48),)


def build(card, checkpoint, seed):
    torch.manual_seed(seed or 0)
    return StrangeConv(card)


class StrangeConv(Upstream):
    def __init__(self, card):
        super().__init__(card)
        self.first = nn.Conv1d(1, 48, 400, 320)
        self.others = nn.ModuleList(nn.Conv1d(48, 48, 3, padding=1) for _ in range(2))

    def forward(self, wavs):
        self.refuse_short(wavs)
        encoded = [self.encode(wav) for wav in wavs]
        return {"hidden_states": [pad_sequence(layer, batch_first=True) for layer in map(list, zip(*encoded))]}

    def encode(self, wav):
        states = [self.first(wav[None]).abs().log1p()]
        for conv in self.others:
            states.append(states[-1] + conv(states[-1]).relu())
        return [state.T for state in states]

    def frames(self, samples):
        return max(0, (samples - 400) // 320 + 1)
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, with the one new file in it."""
    folder = tmp_path_factory.mktemp("clone")
    for package in ("superb_eval", "upstreams", "downstreams", "recipes"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "upstreams/strange_conv.py").write_text(ENCODER)
    return folder


def superb_eval(copy: Path, *arguments: str) -> str:
    """Run the command line of the copy; its corpora and features stay in the copy."""
    surroundings = {"SUPERB_EVAL_CORPORA": str(copy / "corpora"), "SUPERB_EVAL_STORE": str(copy / "store")}
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200", **surroundings}
    command = [sys.executable, "-W", "ignore", "-m", "superb_eval", *arguments]
    result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_one_file_and_it_stands_in_the_table_beside_the_distilled_encoder(copy: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="extra synth")
    assert "strange_conv" in superb_eval(copy, "upstream", "list")
    checked = superb_eval(copy, "upstream", "check", "strange_conv", "--no-cost")
    assert "18 of 18 rules hold: keeps the contract" in checked
    printed = superb_eval(copy, "quick", "strange_conv", "--tasks", "ks,sid", "--out", "first")
    assert all(name in printed for name in ("fbank_nonorm", "distilhubert_mini", "strange_conv", "A first picture"))
    assert (copy / "first/report.html").read_text(encoding="utf8").count("strange_conv") > 1
    printed = superb_eval(copy, "table", "first", "--against", "distilhubert_mini", "--format", "json")
    (table,) = json.loads(printed)["tables"]
    figures = [figure for figure in table["figures"] if figure["task"]]
    names = ("fbank_nonorm", "distilhubert_mini", "strange_conv")
    assert {(f["upstream"], f["task"]) for f in figures} == {(name, task) for name in names for task in ("ks", "sid")}
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures)
    compared = {(f["upstream"], f["task"]) for f in figures if f["difference"] is not None}
    assert {("strange_conv", "ks"), ("strange_conv", "sid")} <= compared, "its row has differences from the reference"
