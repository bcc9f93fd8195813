"""Modules of the user's own: every supported form of output, and every error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.base import Card, Upstream
from upstreams.contract.check import check
from upstreams.hubert import CONFIGS
from upstreams.loading.adapters import from_file, from_object

Write = Callable[..., Path]

HEAD = """
import torch
from torch import nn

def frames(wavs, size=400, stride=160):
    return torch.stack(list(wavs)).unfold(1, size, stride)

"""

FORMS = {
    "dict": ('{"hidden_states": [x, x * 2]}', 2, ""),
    "dict of a tuple": ('{"hidden_states": (x, x), "paper": x, "length": 3}', 2, ""),
    "last only": ('{"hidden_states": None, "last_hidden_state": x}', 1, "last_hidden_state alone"),
    "tensor": ("x", 1, "one tensor"),
    "list": ("[x, x, x]", 3, "a bare list"),
    "tuple": ("(x, x)", 2, "a bare list"),
}

FAULTS = {
    "no states": ('{"logits": x}', r"gives no 'hidden_states' but \['logits'\]"),
    "flat tensor": ("x[0]", "gives a tensor of shape"),
    "nothing": ("None", "gives a NoneType"),
    "other batch": ("x[:1]", r"two waveforms gave a hidden state of shape \[1,"),
    "ragged": ('{"hidden_states": [x, x[:, ::2]]}', r"differ in frames x width: 98 x 400, 49 x 400"),
    "other widths": ("[x, x[..., :7]]", r"differ in frames x width: 98 x 400, 98 x 7"),
    "failing": ("1 / 0", r"failed: ZeroDivisionError: division by zero \(enc.py, line 12\)"),
    "timeless": ("x[:, :5]", "gives 5 frames for 1 s and 5 for 5 s: no stride"),
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes `enc.py` with a class `Enc` with that body."""

    def make(returned: str, fields: str = "pass", head: str = HEAD) -> Path:
        path = tmp_path / "enc.py"
        forward = f"    def forward(self, wavs):\n        x = frames(wavs)\n        return {returned}\n"
        body = f"class Enc(nn.Module):\n    {fields}\n{forward}"
        path.write_text(head + body)
        return path

    return make


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_output_is_adapted(form: str, write: Write, tmp_path: Path) -> None:
    returned, layers, note = FORMS[form]
    upstream = registry.load(f"{write(returned)}:Enc")
    assert (upstream.card.layers, upstream.card.width, upstream.card.stride) == (layers, 400, 160)
    assert note in " ".join(upstream.card.notes)
    assert "stride was estimated from 98 frames for 1 s" in upstream.card.notes[-1]
    assert all(finding.passed for finding in check(upstream))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named(fault: str, write: Write) -> None:
    returned, message = FAULTS[fault]
    with pytest.raises(UserError, match=message):
        from_file(write(returned), "Enc")


@pytest.mark.parametrize(
    "fields", ["downsample_rate = 161", 'get_downsample_rates = lambda self, key: {"hidden_states": 161}[key]']
)
def test_a_stated_stride_is_used(fields: str, write: Write) -> None:
    upstream = from_file(write("x", fields), "Enc")
    assert upstream.get_downsample_rates("hidden_states") == upstream.card.stride == 161
    assert "estimated" not in " ".join(upstream.card.notes)


def test_other_features_are_returned(write: Write) -> None:
    upstream = from_file(write('{"hidden_states": [x], "paper": x, "length": 3, "pair": [x, x]}'), "Enc")
    output = upstream([torch.zeros(16_000)])
    assert upstream.keys() == tuple(output) == ("hidden_states", "paper", "pair")
    assert [len(value) for value in output.values()] == [1, 1, 2]


def test_a_module_that_takes_one_tensor_is_adapted(tmp_path: Path) -> None:
    (tmp_path / "enc.py").write_text(
        HEAD + "class Enc(nn.Module):\n    def forward(self, x):\n        return x.unfold(1, 400, 160)\n"
    )
    upstream = from_file(tmp_path / "enc.py", "Enc")
    assert "takes one tensor [batch, samples]" in " ".join(upstream.card.notes)
    assert upstream([torch.zeros(16_000)] * 3)["hidden_states"][0].shape == (3, 98, 400)


def test_transformers_models_are_adapted() -> None:
    from transformers import HubertConfig, HubertModel

    def build() -> nn.Module:
        return HubertModel(HubertConfig(**CONFIGS["hubert_nano"], output_hidden_states=True))

    upstream = from_object(build, "theirs")
    assert (upstream.card.layers, upstream.card.width, upstream.card.stride) == (3, 192, 320)
    assert upstream.card.parameters == 1_327_744


def test_the_checkpoint_goes_to_ckpt(write: Write) -> None:
    path = write(
        "x * self.factor",
        "def __init__(self, ckpt='1'):\n        super().__init__()\n        self.factor = float(ckpt)",
    )
    plain, scaled = (from_file(path, "Enc", checkpoint)([torch.ones(16_000)]) for checkpoint in (None, "3"))
    assert torch.equal(scaled["hidden_states"][0], 3 * plain["hidden_states"][0])


def test_a_class_without_ckpt_refuses_a_checkpoint(write: Write) -> None:
    with pytest.raises(
        UserError, match=r"building it with ckpt='weights.pt' failed: .* unexpected keyword argument 'ckpt'"
    ):
        from_file(write("x"), "Enc", "weights.pt")


def test_random_weights_are_seeded(write: Write) -> None:
    path = write(
        "x * self.w", "def __init__(self):\n        super().__init__()\n        self.w = nn.Parameter(torch.randn(1))"
    )
    addresses = (f"{path}:Enc", f"{path}:Enc@random", f"{path}:Enc@random:1")
    first, same, other = (registry.load(address).fingerprint() for address in addresses)
    assert first == same != other


def test_files_beside_it_can_be_imported(write: Write, tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text(HEAD)
    assert from_file(write("x", head="from beside_it import *\n"), "Enc").card.width == 400


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "Enc", "no such file"),
        ("import nothing_of_the_kind", "Enc", r"can't be imported: ModuleNotFoundError.*\(enc.py, line 1\)"),
        ("class Enk:\n    pass", "Enc", r"defines no 'Enc'. Did you mean 'Enk'\? Classes: Enk\."),
        ("", "Enc", "Classes: none"),
        ("class Enc:\n    pass", "Enc", "the class isn't a torch.nn.Module"),
        ("Enc = 3", "Enc", "is a int. Expected a torch.nn.Module class"),
        ("def enc():\n    return 3", "enc", "built a int"),
        (
            HEAD + "class Enc(nn.Module):\n    def __init__(self, size):\n        pass",
            "Enc",
            "building it without arguments failed: TypeError: .* 'size'",
        ),
        (
            "import torch\nclass Enc(torch.nn.Module):\n    def __init__(self):\n        raise KeyError('x')",
            "Enc",
            r"building it without arguments failed: KeyError: 'x' \(enc.py, line 4\)",
        ),
    ],
)
def test_every_error_is_named(text: str | None, name: str, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "enc.py").write_text(text)
    with pytest.raises(UserError, match=message):
        registry.load(f"{tmp_path / 'enc.py'}:{name}")


class Own(Upstream):
    """An upstream of the user's own, which needs no adapting."""

    def __init__(self) -> None:
        super().__init__(Card("own", "as it is", 160, layers=1, width=400))

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        return {"hidden_states": [torch.stack(wavs).unfold(1, 400, 160)]}


def test_an_upstream_is_used_as_it_is() -> None:
    own = Own()
    assert from_object(own, "own") is own
    assert isinstance(from_object(Own, "own"), Own)
    with pytest.raises(UserError, match="is built already"):
        from_object(own, "own", "weights.pt")
