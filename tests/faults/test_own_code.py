"""A user's encoder that ends its process, hangs, or raises: one sentence that names the file and the line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from superb_eval.errors import UserError
from tests.campaigns import own_encoders
from upstreams import registry

ENDS = {
    "os._exit": r"encoder.py: its code ended the process \(exit code 0\) at .*/encoder.py, line 11, in forward",
    "segmentation fault": r"its code crashed the process \(Segmentation fault\) at .*/encoder.py, line 11, in forward",
    "endless": r"takes longer than 0:00:0\d hours at .*/encoder.py, line 11, in forward.*raise --timeout",
}


def write(folder: Path, name: str) -> Path:
    path = folder / "encoder.py"
    path.write_text(own_encoders.ENCODERS[name], encoding="utf8")
    return path


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="one process")
def test_code_that_ends_its_process_is_named(name: str, tmp_path: Path) -> None:
    words = ("upstream", "check", f"{write(tmp_path, name)}:Enc", "--no-cost", "--timeout", "9")
    ended = subprocess.run([sys.executable, "-m", "superb_eval", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()[-1:]
    assert re.search(ENDS[name], line), line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sys.exit", r"encoder.py:Enc: a forward pass on .* failed: SystemExit: 0 \(encoder.py, line 11\)"),
        ("leaves when imported", r"encoder.py: can't be imported: SystemExit: bye \(encoder.py, line 6\)"),
        ("raises without words", r"can't be imported: Bad: Bad \(encoder.py, line 8\)"),
        ("a long error", "failed: RuntimeError: x{200} "),
        ("recursion", "failed: RecursionError"),
        ("complex", "its hidden_states are complex. Expected dense tensors"),
        ("meta", r"its hidden_states are without values \(on the meta device\)"),
    ],
)
def test_code_that_raises_is_named(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        registry.load(f"{write(tmp_path, name)}:Enc")([torch.zeros(16_000)])
    assert "\n" not in str(caught.value)


def test_the_working_folder_is_restored(tmp_path: Path) -> None:
    before = os.getcwd()
    registry.load(f"{write(tmp_path, 'other folder')}:Enc")([torch.zeros(16_000)])
    assert os.getcwd() == before
