"""A process whose memory is limited may be aborted by a library, which is reported in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS doesn't limit address space")

CODE = """
import os, sys
from superb_eval.runtime import supervision

first = os.getpid()
ending = supervision.run_apart(["table"], 2)
if ending is None:
    {end}
    supervision.finish()
    sys.exit(7)
print(ending.code, ending.message)
"""


def outcome(end: str, limit: str = "ulimit -v 4000000") -> str:
    """What the waiting process prints of one that ends so."""
    command = f"{limit}; exec {sys.executable} -c '{CODE.format(end=end)}'"
    return subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True).stdout.strip()


def test_an_abort_below_a_limit_of_memory_is_one_sentence() -> None:
    text = outcome("os.abort()")
    assert text.startswith("2 superb-eval: the process ended (Aborted), perhaps because its memory ran out: ")
    assert "4.1 GB of address space (`ulimit -v`)" in text and len(text.splitlines()) == 1
    assert outcome("pass") == "7", "what the command itself reported stays"


def test_a_command_of_ours_without_a_limit_is_one_process() -> None:
    same = "print(os.getpid() == first, flush=True)"
    assert outcome(same, limit="true") == "True"
    assert outcome(same).splitlines()[0] == "False", "below a limit it is another"
