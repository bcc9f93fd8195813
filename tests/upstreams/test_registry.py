"""Addresses: every form, and every error."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.registry import Address, parse

FORMS = {
    "fbank": Address("fbank", "fbank"),
    "hubert@weights.pt": Address("hubert@weights.pt", "hubert", checkpoint="weights.pt"),
    "hubert@random": Address("hubert@random", "hubert", seed=0),
    "hubert@random:7": Address("hubert@random:7", "hubert", seed=7),
    "hubert@C:/my weights.pt": Address("hubert@C:/my weights.pt", "hubert", checkpoint="C:/my weights.pt"),
    "s3prl:mfcc": Address("s3prl:mfcc", "mfcc", scheme="s3prl"),
    "s3prl:hubert@a.pt": Address("s3prl:hubert@a.pt", "hubert", scheme="s3prl", checkpoint="a.pt"),
    "hf:org/name": Address("hf:org/name", "org/name", scheme="hf"),
    "hf:org/name@v2": Address("hf:org/name@v2", "org/name", scheme="hf", checkpoint="v2"),
    "hf:./a:b": Address("hf:./a:b", "./a:b", scheme="hf"),
    "torchaudio:HUBERT_BASE@w.pth": Address(
        "torchaudio:HUBERT_BASE@w.pth", "HUBERT_BASE", scheme="torchaudio", checkpoint="w.pth"
    ),
    "my/enc.py:Enc": Address("my/enc.py:Enc", "Enc", scheme="my/enc.py"),
    "C:/enc.py:Enc@w.pt": Address("C:/enc.py:Enc@w.pt", "Enc", scheme="C:/enc.py", checkpoint="w.pt"),
}

SMALL = [card for card in registry.cards() if card.parameters < 10_000_000]
LARGE = [card for card in registry.cards() if card.parameters >= 10_000_000]


@pytest.mark.parametrize("text", FORMS)
def test_every_form_is_parsed(text: str) -> None:
    assert parse(text) == FORMS[text]


@pytest.mark.parametrize("text", ["", "@random", "s3prl:", "s3prl:@x"])
def test_an_empty_name_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names no upstream"):
        parse(text)


def test_a_seed_must_be_a_number() -> None:
    with pytest.raises(UserError, match="the seed 'seven' is not a number"):
        parse("hubert@random:seven")


def test_a_file_needs_a_class() -> None:
    with pytest.raises(UserError, match=r"names a file but no class in it\. Write my/enc\.py:Class"):
        registry.load("my/enc.py")


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"no upstream is called 'hubert_nanno'\. Did you mean 'hubert_nano'\?"):
        registry.load("hubert_nanno@random")


def test_an_unknown_scheme_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"begin with 's3pl:'\. Did you mean 's3prl'\?"):
        registry.load("s3pl:fbank")


def test_loaded_upstreams_are_frozen() -> None:
    upstream = registry.load("hubert_nano@random")
    assert not upstream.training
    assert not any(p.requires_grad for p in upstream.parameters())


def _matches_its_card(name: str) -> None:
    card = registry.card(name)
    upstream = registry.load(name if card.parameters == 0 else f"{name}@random")
    states = upstream([torch.zeros(16_000)])["hidden_states"]
    assert upstream.card == card
    assert len(states) == card.layers
    assert states[0].shape == (1, upstream.frames(16_000), card.width)
    assert upstream.count_parameters() == card.parameters
    assert upstream.get_downsample_rates("hidden_states") == card.stride


@pytest.mark.parametrize("name", [card.name for card in SMALL])
def test_every_card_is_correct(name: str) -> None:
    _matches_its_card(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [card.name for card in LARGE])
def test_every_large_card_is_correct(name: str) -> None:
    _matches_its_card(name)


def test_every_file_beside_the_interface_is_a_family() -> None:
    files = {path.stem for path in Path(registry.__file__).parent.glob("*.py")} - {"__init__", "base", "registry"}
    assert set(registry._families()) == files
    for family in files:
        module = importlib.import_module(f"upstreams.{family}")
        assert hasattr(module, "CARDS") or hasattr(module, "open_address"), f"{family}.py defines no upstream"


def test_names_follow_their_file() -> None:
    assert {"fbank", "fbank_nonorm", "hubert", "hubert_nano"} <= set(registry.names())
    assert all(registry.card(name).name == name for name in registry.names())


def test_other_packages_add_names(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("their_encoder", "torch.nn:Identity", "superb_eval.upstreams")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(torch.nn, "Identity", _Theirs)
    assert "their_encoder" in registry.names()
    assert "torch.nn:Identity" in registry.card("their_encoder").summary
    assert registry.load("their_encoder@random:3").card.stride == 160


def test_an_installed_package_adds_its_name(tmp_path: Path) -> None:
    """A wheel's own files on the path, as an installer leaves them; a new process finds it."""
    from superb_eval.cli import new_upstream

    (tmp_path / "their_package").mkdir()
    (encoder, _), _ = new_upstream.write("encoder", tmp_path)
    encoder.rename(tmp_path / "their_package/encoder.py")
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    entry = "[superb_eval.upstreams]\ntheir_encoder = their_package.encoder:Encoder\n"
    (info / "entry_points.txt").write_text(entry)
    program = (
        "from upstreams import registry; u = registry.load('their_encoder@random:3');"
        "print('their_encoder' in registry.names(), u.card.width, registry.card('their_encoder').summary)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    run = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(run, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == "True 64 from another package: their_package.encoder:Encoder"


def test_the_card_of_an_address_is_shown(tmp_path: Path) -> None:
    from superb_eval.cli import new_upstream

    assert registry.card(new_upstream.write("my_encoder", tmp_path)[1]).layers == 3


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("their_encoder", "no_such_package:Encoder", "superb_eval.upstreams")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match=r"their_encoder: no_such_package:Encoder can't be imported: ModuleNotFound"):
        registry.load("their_encoder")


class _Theirs(torch.nn.Module):
    downsample_rate = 160

    def forward(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(wavs).unfold(1, 400, 160)
