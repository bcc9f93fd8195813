"""What is printed: nothing from outside acts on a terminal, and every terminal can show it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from superb_eval.runtime import screen

HOSTILE = "yes\x1b]0;owned\x07\x1b[2J\u202eon\x9b1m\ud800\U000e0041\r"


def test_what_acts_on_a_terminal_is_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(f"a\tb\n{HOSTILE}")
    assert (
        capsys.readouterr().out
        == "a\tb\nyes\\u001b]0;owned\\u0007\\u001b[2J\\u202eon\\u009b1m\\ud800\\udb40\\udc41\\u000d\n"
    )
    assert screen.visible("a\nb") == "a\\u000ab"
    assert screen.visible("naïve 語 🎧") == "naïve 語 🎧"


def test_json_remains_json(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(json.dumps({"answer": HOSTILE}, ensure_ascii=False))
    assert json.loads(capsys.readouterr().out) == {"answer": HOSTILE}


def test_rich_prints_no_escapes_but_its_own() -> None:
    from rich.table import Table

    file = io.StringIO()
    table = Table(HOSTILE)
    table.add_row(f"[bold]{HOSTILE}[/bold]")
    screen.console(file=file, force_terminal=True, width=200).print(table, HOSTILE)
    assert "\x1b[1m" in file.getvalue()
    assert not any(part in file.getvalue() for part in ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\x9b", "\ud800"))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_encoding_shows_signs_and_letters(encoding: str) -> None:
    source = (
        "from superb_eval.runtime import screen; screen.prepare(); screen.show('a → b ± 1 ↓ é 語');"
        "screen.show('→', error=True); screen.console().print('↑ [bold]语'); print('≥ 語')"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    shown = done.stdout.decode(encoding)
    assert "\\u8bed" in shown or encoding == "utf-8"
    assert {"ascii": "a -> b +- 1 v \\u00e9 \\u8a9e", "utf-8": "a → b ± 1 ↓ é 語"}.get(
        encoding, "a -> b ± 1 v é"
    ) in shown


def _command(*arguments: str, stdout: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with Path(stdout).open("w") as file:
        return subprocess.run(
            [sys.executable, "-m", "superb_eval", *arguments],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_the_output_is_one_sentence(unbuffered: str) -> None:
    done = _command("task", "list", stdout="/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr.startswith("superb-eval: standard output: the disk is full.") and done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -u -m superb_eval --help | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_arguments_that_are_no_text_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "superb_eval", "table", b"results\xff"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr == (
        "superb-eval: results\\udcff: is no UTF-8. Rename the file or folder, or write the text as UTF-8.\n"
    )
