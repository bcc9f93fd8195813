"""The user's name: as the system has it, or one for torch where it has none."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys

import pytest

from superb_eval.runtime import user_name

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")

WITHOUT_A_NAME = """
import pwd

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = unknown
import superb_eval
import torch

torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
"""


def test_a_name_that_the_system_has_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    before = dict(os.environ)
    assert not user_name.ensure()
    assert dict(os.environ) == before


@pytest.mark.skipif(os.name != "posix", reason="users have numbers on POSIX systems")
def test_torch_works_where_the_user_has_no_name() -> None:
    """As under `docker run --user`: torch itself asks the system, which has no entry."""
    environment = {name: value for name, value in os.environ.items() if name not in (*NAMES, "TORCHINDUCTOR_CACHE_DIR")}
    command = [sys.executable, "-c", WITHOUT_A_NAME]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
