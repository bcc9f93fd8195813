"""Writes a new upstream that works as it is: a file with its card, and a test. Its author then replaces the middle.

In a checkout the file goes to `upstreams/` and is found by its name; anywhere else it is opened as FILE.py:Class. It
is the same file, so that it can move from the one place to the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from superb_eval.errors import UserError
from superb_eval.runtime import atomic_files
from upstreams import registry

ENCODER = Template('''\
"""$name: say in a sentence what it is, and where it was published.

`superb-eval upstream check` says whether it keeps the contract (`upstreams/base.py`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from upstreams.base import Card, Upstream
from upstreams.loading.load_weights import load_weights

WINDOW, STRIDE, WIDTH = 400, 320, 64
"""25 ms windows every 20 ms, in samples at 16 kHz, and the width of every hidden state."""

CARD = Card(
    name="$name",
    summary="three convolutions with random weights: replace them",
    stride=STRIDE,  # samples from one frame to the next
    layers=3,  # entries of hidden_states
    width=WIDTH,
    parameters=66_752,
    licence="unknown",
    source="unknown",  # a paper, a repository, a hub id
    training_data="none",
)
CARDS = (CARD,)
"""What this file offers by name, once it lies in upstreams/. Several names begin with the name of the file."""


def build(card: Card, checkpoint: str | None, seed: int | None) -> Upstream:
    """Open $name: `$name`, `$name@FILE`, or `$name@random:7`."""
    del card  # it tells several names of one file apart
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        return $kind(checkpoint)


class $kind(Upstream):
    """Hidden states [batch, frames, 64]: the windows' convolution, then the output of each layer."""

    def __init__(self, ckpt: str | None = None) -> None:
        super().__init__(CARD)
        self.windows = nn.Conv1d(1, WIDTH, WINDOW, STRIDE)
        self.layers = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 5, padding=2) for _ in range(2))
        if ckpt is not None:
            self.load_state_dict(load_weights(Path(ckpt)))  # never runs code from the file

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """Return {"hidden_states": [Tensor[batch, frames, dim], ...]} of unpadded 16 kHz waveforms [samples]."""
        self.refuse_short(wavs)
        # One waveform at a time: nothing of it can depend on the others. A padded batch is faster, and has to be masked
        # wherever padding could be heard (convolutions, attention, normalisation over time).
        heard = [self._hear(wav) for wav in wavs]
        layers = map(list, zip(*heard, strict=True))  # each a list of [frames, dim]
        return {"hidden_states": [pad_sequence(layer, batch_first=True) for layer in layers]}

    def frames(self, samples: int) -> int:
        """Return how many frames that many samples give: then different lengths may share a batch."""
        return max(0, (samples - WINDOW) // STRIDE + 1)

    def _hear(self, wav: Tensor) -> list[Tensor]:
        """Return each hidden state [frames, dim] of one waveform [samples]."""
        states = [self.windows(wav[None])]  # [dim, frames]
        for layer in self.layers:
            states.append(states[-1] + nn.functional.gelu(layer(states[-1])))
        return [state.T for state in states]
''')

TEST = Template('''\
"""$name keeps the contract, and its weights can be saved and opened again."""

from __future__ import annotations

from pathlib import Path

import torch

from upstreams import registry
from upstreams.contract.check import check, render

$address_line


def test_it_keeps_the_contract() -> None:
    findings = check(registry.load(ADDRESS))
    assert all(finding.passed for finding in findings), render(findings)


def test_saved_weights_come_back(tmp_path: Path) -> None:
    drawn = registry.load(f"{ADDRESS}@random:7")
    torch.save(drawn.state_dict(), tmp_path / "weights.pt")
    again = registry.load(f"{ADDRESS}@{tmp_path / 'weights.pt'}")
    wav = torch.ones(16_000)
    for one, other in zip(drawn([wav])["hidden_states"], again([wav])["hidden_states"], strict=True):
        assert torch.equal(one, other)
    assert drawn.fingerprint() == again.fingerprint() != registry.load(ADDRESS).fingerprint()
''')


@dataclass(frozen=True)
class Made:
    """What was written, and the address that opens it."""

    files: tuple[Path, Path]
    address: str


def write(name: str, out: Path | None = None) -> Made:
    """Write the file and test of a new upstream.

    Args:
        name: in lower case, with underscores, such as `my_encoder`.
        out: folder for both; None: `upstreams/` and `tests/upstreams/` where the current folder is a checkout of this
            repository, else the current folder.

    Raises:
        UserError: the name is none, or is taken; a file is there already; or it can't be written.
    """
    _check_name(name)
    kind = "".join(word.capitalize() for word in name.split("_"))
    root = Path.cwd()
    checkout = out is None and (root / "upstreams/registry.py").is_file() and (root / "tests/upstreams").is_dir()
    folders = (Path("upstreams"), Path("tests/upstreams")) if checkout else (out or Path(),) * 2
    encoder, test = folders[0] / f"{name}.py", folders[1] / f"test_{name}.py"
    address = name if checkout else f"{encoder}:{kind}"
    beside = "ADDRESS = f\"{Path(__file__).with_name('" + encoder.name + "')}:" + kind + '"'
    fields = {
        "name": name,
        "kind": kind,
        "address": address,
        "address_line": f'ADDRESS = "{name}"' if checkout else beside,
    }
    for path in (encoder, test):
        if path.exists():
            raise UserError(f"{path}: is there already. Choose another name, or remove it.")
    atomic_files.write_text(encoder, ENCODER.substitute(fields))
    atomic_files.write_text(test, TEST.substitute(fields))
    return Made((encoder, test), address)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name):
        raise UserError(f"'{name}' can't name an upstream. Expected lower case and underscores, such as my_encoder.")
    if (
        name in registry.OTHERS
        or name in registry.names()
        or name in {"hf", "s3prl", "torchaudio", "contract", "loading"}
    ):
        raise UserError(f"'{name}' is taken; see `superb-eval upstream list`. Choose another name.")
