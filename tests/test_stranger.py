"""A stranger's afternoon, from the documents alone: the installed wheel, own checkpoints, own recordings, a new home.

Every command is one that the documents show, in the order in which somebody would come to it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from transformers import HubertConfig, HubertModel

from tests.conftest import TONES
from tests.docs import commands, documents
from tests.docs.documents import ROOT
from tests.export.test_hub import StandIn
from tests.test_packaging import build, copy_checkout, install
from tests.upstreams import fairseq
from tests.upstreams.configs import TINY

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")

ENCODER = '''
"""strange_conv: a convolution that nobody trained."""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from upstreams.base import Card, Upstream

CARDS = (Card("strange_conv", "a convolution that nobody trained", stride=320, layers=1, width=48),)


def build(card, checkpoint, seed):
    torch.manual_seed(seed or 0)
    return StrangeConv(card)


class StrangeConv(Upstream):
    def __init__(self, card):
        super().__init__(card)
        self.conv = nn.Conv1d(1, 48, 400, 320)

    def forward(self, wavs):
        self.refuse_short(wavs)
        frames = [self.conv(wav[None]).abs().log1p().T for wav in wavs]
        return {"hidden_states": [pad_sequence(frames, batch_first=True)]}

    def frames(self, samples):
        return max(0, (samples - 400) // 320 + 1)
'''
"""A file in `upstreams/`, the second of the three ways of docs/add-upstream.md."""

UPSTREAMS = {
    "own_hubert.pt": "checkpoint:own_hubert.pt",
    "own-transformers": "hf:own-transformers",
    "strange_conv": "strange_conv",
    "distilhubert@my-student/model": "distilhubert@my-student/model",
    "hubert_mini": "hubert_mini",
    "fbank_nonorm": "fbank_nonorm",
}
"""As they are typed, and as rows of a table are called."""

SHORT = "-o train.steps=120 -o train.eval_every=20"
SUITE = f"suite -u {','.join(UPSTREAMS)} --tasks ks --data my-keywords {SHORT}"


@dataclass(frozen=True)
class Typed:
    """A command without `superb-eval`, the document that shows one like it, and what it has to print."""

    page: str
    words: str
    prints: tuple[str, ...] = field(default=())


CORPUS = Typed(
    "docs/corpora.md",
    r"corpus new ks recordings --out my-keywords --speaker '^(\w+)_nohash' --shares 60,20,20",
    (r"train +36 +\S+ +6 +3", r"test +12 +\S+ +2 +3", "superb-eval corpus check ks --data my-keywords"),
)
CHECKED = Typed("docs/corpora.md", "corpus check ks --data my-keywords", ("test  12 utterances",))
SHOWN = Typed("README.md", "upstream show own_hubert.pt", ("fairseq", r"checkpoint:own_hubert\.pt"))
NEW = Typed("README.md", "upstream new my_encoder", (r"upstream check my_encoder.py:MyEncoder",))
CONTRACT = Typed("docs/add-upstream.md", "upstream check my_encoder.py:MyEncoder --no-cost", ("18 of 18 rules hold",))
LISTED = Typed("docs/quickstart.md", "upstream list", ("strange_conv", "distilhubert_mini"))
IN_UPSTREAMS = Typed(
    "docs/add-upstream.md", "upstream check strange_conv --no-cost", ("18 of 18 rules hold: keeps the contract",)
)
QUICK = Typed(
    "docs/add-upstream.md",
    "quick strange_conv --tasks ks --out first",
    ("A first picture", "fbank_nonorm", "distilhubert_mini", "strange_conv"),
)
QUICK_TABLE = Typed("docs/compare.md", "table first --against distilhubert_mini --format json")
COMPARE = Typed("docs/compare.md", SUITE, (rf"{len(UPSTREAMS)} run\(s\) finished", "0 failed"))
ALONE = Typed("docs/run.md", f"run ks -u fbank_nonorm --data my-keywords {SHORT} --out alone", ("ACC",))
LATEX = Typed("docs/compare.md", "table results/ --against hubert_mini --out table.tex")
JSON = Typed("docs/compare.md", "table results/ --against ./own_hubert.pt --format json")
PUBLISHED = Typed("README.md", "table results/ --published all", ("HuBERT Base", "not comparable", "hubert_mini"))
REPORT = Typed("README.md", "report results/ --out report.html")
HUB = Typed("docs/compare.md", "export results/ --model-card own_hubert.pt --hub me/mine", ("/me/mine/commit/",))
DISTIL = Typed(
    "docs/train.md",
    "distill distilhubert_toy --teacher own_hubert.pt --data audio=recordings --out my-student -o student.hidden=32 "
    "--loggers none",
    ("student: distilhubert@my-student/model",),
)
SCRIPT = (
    *(CORPUS, CHECKED, SHOWN, NEW, CONTRACT, LISTED, IN_UPSTREAMS, QUICK, QUICK_TABLE, DISTIL, COMPARE),
    *(ALONE, LATEX, JSON, PUBLISHED, REPORT, HUB),
)


@pytest.mark.parametrize("typed", SCRIPT, ids=lambda typed: " ".join(typed.words.split()[:2]))
def test_the_documents_show_such_a_command(typed: Typed) -> None:
    command, _ = commands.parse(("superb-eval", *shlex.split(typed.words)))
    shown = [
        commands.parse(line.words)[0] for line in documents.lines(ROOT / typed.page) if "superb-eval" in line.words
    ]
    assert command in shown, typed.page
    text = "\n".join(map(documents.text_of, documents.paths(*documents.WALKED)))
    for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", typed.words):
        assert re.search(rf"(?<![\w-]){option}\b", text), f"no document shows {option}"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that the wheel of this checkout is installed into, with one more file in its `upstreams/`."""
    source = copy_checkout(tmp_path / "source")
    build("build_wheel", source, tmp_path / "dist")
    place = install(next((tmp_path / "dist").glob("*.whl")), tmp_path / "site")
    shutil.rmtree(source)
    (place / "upstreams/strange_conv.py").write_text(ENCODER)
    return place


def write_own_files(folder: Path) -> None:
    """Write a checkpoint in fairseq's layout, one of transformers, and recordings in class folders."""
    settings = fairseq.settings()
    fairseq.save(folder / "own_hubert.pt", fairseq.hubert(settings), fairseq.as_dictionary(settings))
    torch.manual_seed(0)
    HubertModel(HubertConfig(**TINY)).save_pretrained(folder / "own-transformers")
    rng = np.random.default_rng(0)
    for label, pitch in TONES.items():
        (folder / "recordings" / label).mkdir(parents=True)
        for speaker in range(10):
            for number in range(2):
                time_s = np.arange(int(22_050 * rng.uniform(0.5, 0.8))) / 22_050
                tone = 0.2 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.25) * time_s)
                path = folder / "recordings" / label / f"speaker{speaker}_nohash_{number}.wav"
                soundfile.write(path, tone + 0.1 * rng.standard_normal(len(tone)), 22_050)


PROGRAM = """
import sys
from superb_eval.cli.app import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""As pip writes it; `-m` would put the current folder on the path, and Python 3.10 has no -P against that."""


class Stranger:
    """Types commands in a folder of their own, with an empty home and what is installed in `site`."""

    def __init__(self, folder: Path, site: Path, hub: StandIn) -> None:
        self.folder = folder
        ours = ("SUPERB_EVAL_", "XDG_", "HF_", "PYTHON")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment |= {"HOME": str(folder / "home"), "PYTHONPATH": str(site), "COLUMNS": "200"}
        self.environment |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_token", "NO_PROXY": "127.0.0.1"}
        (folder / "home").mkdir(parents=True)
        self.program = folder / "home/superb-eval"
        self.program.write_text(PROGRAM, encoding="utf8")

    def start(self, typed: Typed) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        command = [sys.executable, "-W", "ignore", str(self.program), *shlex.split(typed.words)]
        output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, start_new_session=True, **output)

    def type(self, typed: Typed) -> str:
        """Run a command to its end; return what it printed."""
        process = self.start(typed)
        printed, errors = process.communicate()
        assert process.returncode == 0, f"{typed.words}:\n{printed}\n{errors[-3000:]}"
        for expected in typed.prints:
            assert re.search(expected, printed), f"{typed.words}: no {expected} in\n{printed}"
        return printed

    def kill_in_training(self, typed: Typed) -> None:
        """Start a command and send SIGKILL to all of its processes once its training has written a checkpoint."""
        process = self.start(typed)
        while process.poll() is None and not self.trainings():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def trainings(self) -> list[Path]:
        """The checkpoints of a run that is not finished."""
        return list(self.folder.glob("alone/*/ks/*/training/**/last.pt"))

    def predictions(self, out: str, upstream: str) -> bytes:
        """The predictions of an upstream's one run."""
        (path,) = (self.folder / out).glob(f"*{upstream}*/ks/*/predictions.csv")
        return path.read_bytes()


@pytest.fixture
def hub() -> Iterator[StandIn]:
    server = StandIn()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow(seconds=150)
def test_a_strangers_afternoon(tmp_path: Path, installed: Path, hub: StandIn) -> None:
    """One test: each command begins where the one before it ended."""
    pytest.importorskip("espeakng_loader", reason="extra synth, for `quick`")
    stranger = Stranger(tmp_path / "away", installed, hub)
    write_own_files(stranger.folder)
    for typed in (CORPUS, CHECKED, SHOWN, NEW, CONTRACT, LISTED, IN_UPSTREAMS, QUICK):
        stranger.type(typed)
    assert (stranger.folder / "first/report.html").read_text(encoding="utf8").count("strange_conv") > 1
    check_quick(json.loads(stranger.type(QUICK_TABLE)))
    for typed in (DISTIL, COMPARE):
        stranger.type(typed)

    stranger.kill_in_training(ALONE)
    assert stranger.trainings(), "it was killed in the middle"
    stranger.type(ALONE)
    assert stranger.predictions("results", "fbank") == stranger.predictions("alone", "fbank")

    stranger.type(LATEX)
    check_latex((stranger.folder / "table.tex").read_text(encoding="utf8"))
    check_figures(json.loads(stranger.type(JSON)))
    stranger.type(PUBLISHED)
    stranger.type(REPORT)
    assert (stranger.folder / "report.html").read_text(encoding="utf8").count("strange_conv") > 1

    stranger.type(HUB)
    check_pushed(hub, tmp_path)
    assert (stranger.folder / "home/.cache/superb-eval/features").is_dir(), "its caches lie in its own home"
    assert not list(stranger.folder.glob("**/*.tmp"))


def check_latex(text: str) -> None:
    """A table with a row for each upstream, every brace and environment of which is closed."""
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    begun, ended = (sorted(re.findall(rf"\\{word}\{{(\w+)\}}", text)) for word in ("begin", "end"))
    assert begun == ended and "table" in begun
    for name in UPSTREAMS.values():
        assert f"\n{name.replace('_', chr(92) + '_')} & " in text


def check_figures(printed: dict[str, Any]) -> None:
    """Each upstream has a figure in its interval, and all but the reference a difference from it."""
    (table,) = printed["tables"]
    figures = {figure["upstream"]: figure for figure in table["figures"] if figure["task"] == "ks"}
    assert figures.keys() == set(UPSTREAMS.values())
    for name, figure in figures.items():
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 100
        assert (figure["difference"] is None) == (name == UPSTREAMS["own_hubert.pt"])
    assert figures["fbank_nonorm"]["value"] > 90, "tones are no task"


def check_quick(printed: dict[str, Any]) -> None:
    """One file, and it has a row beside the distilled encoder, with differences from it."""
    (table,) = printed["tables"]
    figures = [figure for figure in table["figures"] if figure["task"]]
    names = ("fbank_nonorm", "distilhubert_mini", "strange_conv")
    assert {(f["upstream"], f["task"]) for f in figures} == {(name, "ks") for name in names}
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures)
    compared = {f["upstream"] for f in figures if f["difference"] is not None}
    assert "strange_conv" in compared, "its row has differences from the reference"


def check_pushed(hub: StandIn, machine: Path) -> None:
    """A private repository got a card and a record, which name no folder of this machine."""
    (created,), (paths,) = hub.created, hub.commits
    assert created["visibility"] == "private" and paths[0] == "README.md"
    assert [Path(path).name for path in paths[1:]] == ["result.json"]
    card = hub.files["README.md"].decode()
    (index,) = yaml.safe_load(card.split("---")[1])["model-index"]
    assert (index["name"], len(index["results"])) == ("checkpoint:own_hubert.pt", 1)
    assert all(str(machine) not in content.decode() for content in hub.files.values())
