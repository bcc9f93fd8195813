"""The documents, walked through: their command lines and Python are run as they stand, in a world of a few seconds.

In that world the embedded corpus is of the smallest size, and heads are trained for few updates, since no document
states a figure of it; nothing else differs. What takes longer is run by `make quickstart`, or by the test that
`ELSEWHERE` names; what can't be run here says so.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from superb_eval import recipe
from superb_eval.cli import app
from tests.conftest import write_tones
from tests.docs import commands, documents
from tests.docs.documents import ROOT, Block, Line

PAGES = documents.paths("README.md", "docs/*.md", "downstreams/README.md", "recipes/README.md", "upstreams/README.md")
"""Each begins in the world as the ones before it left it; what they did is not done again."""

ELSEWHERE = {"quick": "tests/cli/test_quick.py", "onnx": "tests/export/test_onnx.py"}
"""Commands that take minutes, or much around them, and the tests that run them."""

FEW_UPDATES = '''
"""Every process of the world imports this at its start: trainings have 40 updates at most, with four evaluations."""

from superb_eval import recipe

load = recipe.load


def load_shortened(path, overrides=()):
    loaded = load(path, overrides)
    if loaded.train is None:
        return loaded
    steps = min(40, loaded.train.steps)
    train = loaded.train.model_copy(update={"steps": steps, "eval_every": min(10, steps)})
    return loaded.model_copy(update={"train": train})


recipe.load = load_shortened
'''
"""Put where Python looks for a module of its user's, since workers of a suite are processes of their own."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all that the documents use: `my-corpus`, `my-synthetic`, `my-checkpoint`, `DIR`, `clip.wav`."""
    from superb_eval.corpora import embedded
    from superb_eval.corpora.synthetic.generate import synthesise
    from upstreams import hubert, registry

    root = tmp_path_factory.mktemp("world")
    write_tones(root / "my-corpus", {"train": 8, "dev": 4, "test": 4}, seconds=(0.6, 0.9))
    (root / "DIR").symlink_to(root / "my-corpus" / "audio")
    tone = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(root / "clip.wav", tone, 16_000)
    encoder = registry.load("hubert_nano@random")
    assert isinstance(encoder, hubert.Hubert)
    encoder.model.save_pretrained(root / "my-checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        _shorten_trainings(root / "startup", patch)
        patch.setenv("SUPERB_EVAL_CORPORA", str(root / "corpora"))
        patch.setenv("SUPERB_EVAL_STORE", str(root / "store"))
        synthesise("nano", embedded.default_folder("mini"), tasks=("ks", "asr"), workers=1)
        shutil.copytree(embedded.default_folder("mini"), root / "my-synthetic")
        yield root


def _shorten_trainings(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Shorten trainings in this process and in those that it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FEW_UPDATES)
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    patch.setattr(recipe, "load", recipe.load)  # undone at the end
    exec(compile(FEW_UPDATES, "sitecustomize.py", "exec"), {"__name__": "sitecustomize"})


@pytest.fixture(autouse=True)
def _own_caches() -> None:
    """The world has its own; see `world`."""


def quickstarts() -> list[tuple[str, set[str]]]:
    """The commands that `make quickstart` runs, and which arguments each is given."""
    text = (ROOT / "Makefile").read_text(encoding="utf8").replace("\\\n", " ")
    found = re.findall(r"\$\(BIN\)/(superb-eval [^&\n]+)", text)
    return [_given(shlex.split(re.sub(r"\$\([^()]*(\([^()]*\)[^()]*)*\)", "fbank", line))) for line in found]


def _given(words: list[str] | tuple[str, ...]) -> tuple[str, set[str]]:
    command, arguments = commands.parse(words)
    return command, {name for name, value in arguments.items() if value not in (None, (), [], False)}


def covered(line: Line) -> bool:
    """Whether `make quickstart` or another test runs this command, with all of its options."""
    command, given = _given(line.words)
    if command in ELSEWHERE:
        return True
    all_ten = command in ("suite", "plan") and commands.parse(line.words)[1]["tasks"] == "all"
    its_folder = any(word.startswith("quickstart/") for word in line.words)
    if not (all_ten or its_folder or command == "corpus synth"):
        return False
    # `plan` takes what `suite` takes, and suite begins by printing it.
    return any(name == command.replace("plan", "suite") and given <= taken for name, taken in quickstarts())


def call(words: tuple[str, ...], place: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, sys.argv, code = sys.argv, list(words), None
    try:
        app.main()
    except SystemExit as exit_:
        code = exit_.code
    finally:
        sys.argv = arguments
    captured = capsys.readouterr()
    assert not code, f"{place}: {' '.join(words)} ended with {code}:\n{captured.err[-1500:]}"


def _filled(words: tuple[str, ...]) -> tuple[str, ...]:
    """The line with a finished run in place of RUN."""
    return tuple(str(next(Path(w).parent.glob("*/result.json")).parent) if w.endswith("/RUN") else w for w in words)


_done: set[tuple[str, ...]] = set()


def _walk(block: Block, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if block.language == "python":
        exec(compile(block.text, block.place, "exec"), {"__name__": "documents"})
        for name in re.findall(r"^class (MyEncoder)\b", block.text, re.MULTILINE):
            assert name and (world / "my_encoder.py").write_text(block.text)
    if block.language == "sh":
        for line in documents.lines_of(block):
            if line.run and line.words[0] == "superb-eval" and line.words not in _done and not covered(line):
                call(_filled(line.words), line.place, capsys)
                _done.add(line.words)


@pytest.mark.slow(seconds=130)
def test_documents_do_what_they_say(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One test: were pages spread over processes, some would begin in a world that lacks what others made."""
    for path in PAGES:
        for block in documents.blocks(path):
            _walk(block, world, capsys)


def test_what_is_run_elsewhere_is_run_there() -> None:
    for command, place in ELSEWHERE.items():
        assert f'"{command}"' in (ROOT / place).read_text(encoding="utf8"), place
    assert {"corpus synth", "suite", "table", "report", "cost"} <= {command for command, _ in quickstarts()}
