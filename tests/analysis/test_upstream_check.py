"""The report on an upstream, from Python, on the command line and as a pytest fixture in another package's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import superb_eval
from superb_eval.analysis import upstream_check
from superb_eval.cli.app import app
from superb_eval.errors import UserError

ENCODER = """
import torch
class Enc(torch.nn.Module):
    downsample_rate = 160
    def forward(self, wavs):
        x = torch.stack(wavs).unfold(1, 400, 160)
        return {"hidden_states": [x CHANGE]}
"""


@pytest.fixture
def encoder(tmp_path: Path) -> Callable[..., str]:
    def write(change: str = "") -> str:
        path = tmp_path / "enc.py"
        path.write_text(ENCODER.replace("CHANGE", change))
        return f"{path}:Enc"

    return write


def test_from_python(encoder: Callable[..., str]) -> None:
    report = superb_eval.check_upstream(encoder())
    assert not report.broken
    assert "18 of 18 rules hold: keeps the contract" in str(report)


def test_an_object_is_adapted_with_a_note() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, wavs: list[Tensor]) -> Tensor:
            return self.scale * torch.stack(wavs).unfold(1, 400, 160)

    report = upstream_check.check_upstream(Windows())
    assert not report.broken, report
    assert "note: its forward gives one tensor: one hidden state" in str(report)


def test_an_object_that_is_nothing_of_the_kind() -> None:
    with pytest.raises(UserError, match="Linear: a forward pass on two waveforms of 1 s failed"):
        upstream_check.check_upstream(nn.Linear(3, 3))


def test_the_command_ends_with_2_and_names_the_rules(encoder: Callable[..., str]) -> None:
    result = CliRunner().invoke(app, ["upstream", "check", "--no-cost", encoder("/ x.abs().max()")])
    assert isinstance(result.exception, UserError)
    assert str(result.exception).endswith("breaks 2 of 18 rules; see above.")
    assert "FAIL  silence" in result.stdout and "so: KS stops at _silence_" in result.stdout


def test_costs_are_compared_with_hubert(encoder: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """HuBERT Base takes seconds: a small one stands in for it."""
    monkeypatch.setattr(upstream_check, "BASELINE", "hubert_nano@random")
    monkeypatch.setattr(upstream_check, "SECONDS", 0.5)
    address = encoder()
    report = superb_eval.check_upstream(address, cost=True)
    assert [cost.name for cost in report.costs] == ["hubert_nano@random", address]
    assert "real-time factor" in str(report) and f"{address} " in str(report)


def test_other_packages_check_in_their_own_tests(encoder: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "from enc import Enc\n"
        f"def test_kept(keeps_contract): keeps_contract({encoder()!r}); keeps_contract(Enc())\n"
        "def test_broken(keeps_contract): keeps_contract(Spoilt())\n"
        "def test_excused(keeps_contract): keeps_contract(Spoilt(), but=('batch invariance',))\n"
        "class Spoilt(Enc):\n"
        "    def forward(self, wavs):\n"
        "        return {'hidden_states': [x + len(wavs) for x in super().forward(wavs)['hidden_states']]}\n"
    )
    # The entry point is only there once the package is installed: so it is left out, and `-p` stands in for it.
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "upstreams.contract.pytest_plugin",
        "--rootdir=.",
    ]
    ours = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(
        [*run, "test_theirs.py"], cwd=tmp_path, env=ours, capture_output=True, text=True, check=False
    )
    assert "1 failed, 2 passed" in result.stdout, result.stdout + result.stderr
    assert "FAIL  batch invariance" in result.stdout and "breaks the contract: batch invariance" in result.stdout


def test_the_plugin_is_declared_and_light() -> None:
    """Every pytest run of an environment imports it: that must not cost what torch does."""
    program = (
        "import upstreams.contract.pytest_plugin, sys;"
        "print([m for m in ('torch', 's3prl', 'superb_eval') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf8")
    assert '[project.entry-points.pytest11]\nsuperb_eval = "upstreams.contract.pytest_plugin"' in text
