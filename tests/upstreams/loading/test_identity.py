"""An upstream's identity changes with its outputs, and never with the source text of this package."""

from __future__ import annotations

import ast
import copy
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from upstreams import fbank, hubert, registry
from upstreams.base import Card, Upstream
from upstreams.hubert import Hubert
from upstreams.loading import identity, own_files
from upstreams.loading.adapters import from_file, from_object
from upstreams.loading.network_settings import NETWORK_KEYS, network_settings

ENCODER = """
import json
from pathlib import Path
import torch
import helper

class Enc(torch.nn.Module):
    downsample_rate = 160
    def __init__(self, ckpt=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1) if ckpt is None else torch.load(ckpt, weights_only=True))
        self.shift = json.loads((Path(__file__).parent / "cfg.json").read_text())["shift"]
    def forward(self, wavs):
        from parts.deep import gain
        frames = torch.stack(wavs).unfold(1, 400, 160)
        return {"hidden_states": [frames * self.weight * helper.SCALE * gain.GAIN + self.shift]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An encoder that imports modules of its folder, one of them during forward, and reads a configuration."""
    return fill(tmp_path / "mine")


def fill(folder: Path, scale: str = "2.0") -> Path:
    (folder / "parts" / "deep").mkdir(parents=True)
    (folder / "enc.py").write_text(ENCODER)
    (folder / "helper.py").write_text(f"SCALE = {scale}\n")
    (folder / "cfg.json").write_text('{"shift": 0.5}')
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "deep" / "gain.py").write_text("GAIN = 1.0\n")  # a folder without __init__.py
    (folder / "unused.py").write_text("")
    return folder


def load(folder: Path, checkpoint: str | None = None) -> Upstream:
    return from_file(folder / "enc.py", "Enc", checkpoint)


def scale(upstream: Upstream) -> float:
    """Return the encoder's factor: it adds 0.5."""
    with torch.inference_mode():
        return float(upstream([torch.ones(1_600)])["hidden_states"][0][0, 0, 0]) - 0.5


def test_an_encoder_is_identified_by_outputs_weights_and_its_own_files(folder: Path) -> None:
    assert set(load(folder).identity()) == {
        *("outputs", "weights"),
        *("enc.py", "helper.py", "cfg.json", "parts/__init__.py", "parts/deep/gain.py"),
    }


@pytest.mark.parametrize(
    ("name", "before", "after", "changed"),
    [
        ("helper.py", "2.0", "3.0", ["its outputs on the probe waveforms", "helper.py"]),
        ("helper.py", "2.0", "2.00", ["helper.py"]),
        ("cfg.json", "0.5", "0.7", ["its outputs on the probe waveforms", "cfg.json"]),
        ("parts/deep/gain.py", "1.0", "4.0", ["its outputs on the probe waveforms", "parts/deep/gain.py"]),
    ],
)
def test_changed_files_are_read_again_and_named(
    folder: Path, name: str, before: str, after: str, changed: list[str]
) -> None:
    first = load(folder)
    path = folder / name
    path.write_text(path.read_text().replace(before, after))
    second = load(folder)
    assert identity.differences(first.identity(), second.identity()) == changed
    assert first.fingerprint() != second.fingerprint() == load(folder).fingerprint()
    assert scale(first) == 2.0, "the upstream loaded before is unchanged"


def test_weights_from_a_checkpoint_are_named(folder: Path, tmp_path: Path) -> None:
    torch.save(torch.tensor([2.0]), tmp_path / "weights.pt")
    changed = identity.differences(load(folder).identity(), load(folder, str(tmp_path / "weights.pt")).identity())
    assert changed == ["its outputs on the probe waveforms", "its weights"]


def test_cached_byte_code_is_never_used(folder: Path) -> None:
    command = [sys.executable, "-c", "import helper"]
    subprocess.run(command, cwd=folder, check=True)  # leaves byte code, whose time is in whole seconds
    stat = (folder / "helper.py").stat()
    (folder / "helper.py").write_text("SCALE = 3.0\n")
    os.utime(folder / "helper.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert scale(load(folder)) == 3.0


def test_two_folders_each_have_their_own_helper(folder: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", "5.0")
    first, second = load(folder), load(other)
    again = load(folder)
    assert [scale(upstream) for upstream in (first, second, again, second, first)] == [2.0, 5.0, 2.0, 5.0, 2.0]
    assert first.fingerprint() == again.fingerprint() != second.fingerprint()


def test_late_imports_find_the_module_of_their_own_folder(tmp_path: Path) -> None:
    text = ENCODER.replace("import helper\n", "", 1).replace(
        "from parts.deep import gain", "import helper\n        from parts.deep import gain"
    )
    folders = [fill(tmp_path / name, value) for name, value in (("a", "2.0"), ("b", "5.0"))]
    for one in folders:
        (one / "enc.py").write_text(text)
    first, second = map(load, folders)
    assert [scale(upstream) for upstream in (first, second, first)] == [2.0, 5.0, 2.0]
    assert "helper.py" in first.identity()


def test_modules_of_other_code_are_restored(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("helper")
    other.SCALE, other.__file__ = 7.0, str(tmp_path / "helper.py")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "helper", other)
    text = ENCODER.replace("import helper\n", "", 1).replace(
        "        from parts", "        import helper\n        from parts"
    )
    (folder / "enc.py").write_text(text)
    path = list(sys.path)
    assert [scale(upstream) for upstream in (load(folder), load(folder))] == [2.0, 2.0]
    assert sys.modules["helper"] is other
    assert sys.path == path
    assert "helper.py" in load(folder).identity()


def test_environments_and_hidden_folders_below_do_not_count(tmp_path: Path) -> None:
    own = own_files.OwnFiles(tmp_path)
    counted = ["enc.py", "pkg/mod.py", ".settings.json"]
    left_out = ["venv/lib/python3.11/site-packages/x.py", ".cache/hub/config.json", "__pycache__/enc.cpython-311.pyc"]
    assert [own.owns(tmp_path / name) for name in counted] == [True] * 3
    assert [own.owns(tmp_path / name) for name in left_out] == [False] * 3
    assert not own_files.OwnFiles(Path(identity.__file__).parents[1]).owns(Path(identity.__file__))
    assert not own.owns(tmp_path.parent / "elsewhere.py")


def test_files_that_an_encoder_writes_do_not_count(folder: Path) -> None:
    log = "log = Path(__file__).with_name('log.txt')\n        log.write_text(str(id(self)))\n        log.read_text()\n"
    text = ENCODER.replace("self.shift =", f"{log}        self.shift =")
    (folder / "enc.py").write_text(text)
    assert "log.txt" not in load(folder).identity()


def test_a_new_process_finds_the_same_and_the_change(folder: Path) -> None:
    code = f"from upstreams import registry; print(registry.load({str(folder / 'enc.py') + ':Enc'!r}).identity())"

    def elsewhere() -> object:
        command = [sys.executable, "-c", code]
        return ast.literal_eval(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert elsewhere() == load(folder).identity()
    (folder / "helper.py").write_text("SCALE = 3.0\n")
    assert elsewhere() == load(folder).identity()


def test_a_loaded_encoder_can_be_copied_and_pickled(folder: Path) -> None:
    upstream = load(folder)
    assert scale(copy.deepcopy(upstream)) == 2.0
    assert pickle.loads(pickle.dumps(own_files.UserModules({"helper": sys}))).modules == {}


def test_probes_leave_device_mode_threads_and_random_state_alone(nano: Upstream) -> None:
    nano.train()
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    assert identity.hash_outputs(nano) == identity.hash_outputs(nano)
    assert nano.training
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


class Renamed(Hubert):
    """Reworded, renamed and moved to another file."""

    family = "hubert"


class FilterBanks(fbank.Fbank):
    family = "fbank"


def test_a_renamed_class_and_a_reworded_card_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("fbank", "hubert_nano@random")
    before = [registry.load(name).fingerprint() for name in names]
    monkeypatch.setattr(fbank, "Fbank", FilterBanks)
    monkeypatch.setattr(hubert, "Hubert", Renamed)
    loaded = [registry.load(name) for name in names]
    assert [type(upstream) for upstream in loaded] == [FilterBanks, Renamed]
    for upstream in loaded:
        upstream.card = replace(upstream.card, summary="another text", notes=("and more",), licence="another")
    assert [upstream.fingerprint() for upstream in loaded] == before


def test_attribute_names_do_not_count(nano: Upstream) -> None:
    assert not any(name.startswith("model.") for name in nano.feature_weights())
    assert "encoder.layers.0.final_layer_norm.weight" in nano.feature_weights()


def test_the_features_version_counts(nano: Upstream) -> None:
    before = nano.identity()
    nano.card = replace(nano.card, features_version=2)
    assert identity.differences(before, nano.identity()) == ["its features version"]


def test_names_of_one_network_share_an_identity_and_the_padded_variant_differs() -> None:
    sizes = hubert.CONFIGS["hubert_nano"]
    cards = {name: Card(name, "", 320) for name in ("hubert", "hubert_base", "hubert_padded")}
    loaded = {name: Hubert(card, hubert.load_model(card, sizes, None, 0).model) for name, card in cards.items()}
    prints = {name: upstream.fingerprint() for name, upstream in loaded.items()}
    assert prints["hubert"] == prints["hubert_base"] != prints["hubert_padded"]


class Louder(Hubert):
    """A class that changes the outputs of another one and has no family of its own: it doesn't inherit the identity."""

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        return {"hidden_states": [2 * state for state in super().forward(wavs)["hidden_states"]]}


def test_a_subclass_without_a_family_is_identified_by_its_outputs(nano: Upstream) -> None:
    assert isinstance(nano, Hubert)
    louder = from_object(Louder(nano.card, nano.model), "louder")
    assert {"outputs", __name__} <= set(louder.identity())
    assert "entry" not in louder.identity()


def test_refused_lengths_are_part_of_the_outputs() -> None:
    class Picky(nn.Module):
        def forward(self, wavs: list[Tensor]) -> Tensor:
            if len(wavs[0]) > 16_000:
                raise ValueError("too long")
            return torch.stack(wavs)[..., None]

    class Identity(nn.Module):
        def forward(self, wavs: list[Tensor]) -> Tensor:
            return torch.stack(wavs)[..., None]

    assert identity.hash_outputs(Picky()) == identity.hash_outputs(Picky()) != identity.hash_outputs(Identity())


def test_settings_of_training_do_not_count_and_unknown_ones_do() -> None:
    from transformers import HubertConfig

    plain = network_settings(HubertConfig())
    assert set(plain) <= set(NETWORK_KEYS)
    training = HubertConfig(hidden_dropout=0.5, mask_time_prob=0.9, layerdrop=0.3, ctc_zero_infinity=True)
    assert network_settings(training) == plain
    assert network_settings(HubertConfig(something_new=3)) == {**plain, "something_new": 3}
