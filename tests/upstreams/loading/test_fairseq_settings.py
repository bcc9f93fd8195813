"""Settings of fairseq's files: read from every container, bounded, and never ignored where they change a network."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pytest

from superb_eval.errors import UserError
from tests.upstreams import fairseq
from upstreams import registry
from upstreams.loading.fairseq_settings import conv_layers, find_settings, plain, to_config
from upstreams.loading.inert_values import InertObject

HUBERT = [(512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2", HUBERT),
        ("[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]", HUBERT),
        ("([(1, 2, 3)] + [(4, 5, 6)]) * 2", [(1, 2, 3), (4, 5, 6)] * 2),
        ([[512, 10, 5], [512, 3, 2]], [(512, 10, 5), (512, 3, 2)]),
    ],
)
def test_convolutions(text: object, expected: list[tuple[int, int, int]]) -> None:
    assert conv_layers(text, "x.pt") == expected


@pytest.mark.parametrize(
    "text",
    [
        "[(512,10,5)] * 10**9",
        "[(512,10,5)] * 1000000000",
        "([(512,10,5)] * 60) * 60 * 60 * 60 * 60",
        "[(512,10,5)] * -1",
        "[(512,10,5)] * 0",
        "[(512,10,5)] + " * 60 + "[(512,10,5)]" + " + [(512,10,5)]" * 60,
        "(" * 9_000,
        "-" * 9_000 + "1",
        "[(0, 10, 5)]",
        "[(512, 0, 5)]",
        "[(512, 10, 0)]",
        "[(512, 10, -5)]",
        "[(512, 10, 2000)]",
        "[(10**9, 10, 5)]",
        "[(999999999, 10, 5)]",
        "[(512.5, 10, 5)]",
        "[(True, 10, 5)]",
        "[]",
        "",
        "None",
        "{1: 2}",
        "9" * 5_000,
        "__import__('os')",
    ],
)
def test_convolutions_are_bounded(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(UserError, match=r"x.pt: its convolutions are '.*Expected"):
        conv_layers(text, "x.pt")
    assert time.perf_counter() - began < 5


UNSUPPORTED: dict[str, Any] = {
    "activation_fn": "relu",
    "layer_type": "conformer",
    "attn_type": "espnet",
    "pos_enc_type": "rope",
    "pos_conv_depth": 5,
    "crop_seq_to_multiple": 4,
    "quantize_input": True,
    "extractor_mode": "other",
    "encoder_layers": 10**9,
    "encoder_embed_dim": 10**9,
    "encoder_ffn_embed_dim": -1,
    "encoder_attention_heads": 0,
    "conv_pos": "many",
    "conv_bias": "${model.bias}",
    "layer_norm_first": "no",
}
EXPLOSIVE: Any = ["end"]
for _level in range(40):
    EXPLOSIVE = [EXPLOSIVE, EXPLOSIVE]  # as text, a million million times as long


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_changes_a_network_is_refused_by_name_and_value(name: str) -> None:
    with pytest.raises(UserError) as caught:
        to_config(fairseq.settings(**{name: UNSUPPORTED[name]}), "x.pt")
    assert str(caught.value).startswith(f"x.pt: its {name} is '{UNSUPPORTED[name]}'")


@pytest.mark.parametrize("name", [*UNSUPPORTED, "conv_feature_layers"])
@pytest.mark.parametrize("value", [EXPLOSIVE, {"a": EXPLOSIVE}, 10**5_000, "\x1b[2J" * 1_000], ids=range(4))
def test_no_value_fills_the_memory_or_the_terminal(name: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        to_config(fairseq.settings(**{name: value}), "x.pt")
    assert str(caught.value).startswith("x.pt: its ")
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_heads_and_groups_divide_the_width() -> None:
    for changed in ({"encoder_attention_heads": 3}, {"conv_pos_groups": 5}):
        with pytest.raises(UserError, match="encoder_embed_dim of 32 isn't a multiple"):
            to_config(fairseq.settings(**changed), "x.pt")


def test_wavlm_without_its_positions_is_refused(tmp_path: Path) -> None:
    """transformers' WavLM has gated relative positions always."""
    both = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 8, "max_distance": 20}
    model = fairseq.wavlm(fairseq.settings(**both))
    for name in ("relative_position_embedding", "gru_rel_pos"):
        stored = {"cfg": fairseq.settings(**{**both, name: False})}
        path = fairseq.save(tmp_path / "x.pt", model, stored)
        with pytest.raises(UserError, match=f"x.pt: its {name} is off"):
            registry.load(f"checkpoint:{path}")


def test_absent_settings_are_fairseqs_defaults() -> None:
    config = to_config({"encoder_layers": None}, "x.pt")
    assert (config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]) == (12, 768, 12)
    assert config["conv_kernel"] == (10, 3, 3, 3, 3, 2, 2)
    assert (config["feat_extract_norm"], config["do_stable_layer_norm"], config["conv_bias"]) == ("group", False, False)


def test_plain_values_of_every_container() -> None:
    node = InertObject("omegaconf.nodes.AnyNode", state={"_val": 3, "_metadata": InertObject("x.Metadata")})
    choice = InertObject("fairseq.dataclass.constants.Choices", arguments=("layer_norm",))
    chosen = InertObject("omegaconf.nodes.EnumNode", state={"_val": choice})
    inner = InertObject("omegaconf.listconfig.ListConfig", state={"_content": [node, node]})
    config = InertObject("omegaconf.dictconfig.DictConfig", state={"_content": {"a": node, "b": inner, "c": chosen}})
    assert plain(config) == {"a": 3, "b": [3, 3], "c": "layer_norm"}
    assert plain(argparse.Namespace(a=config)) == {"a": {"a": 3, "b": [3, 3], "c": "layer_norm"}}
    assert plain(InertObject("argparse.Namespace", state={"a": (1, None)})) == {"a": [1, None]}
    assert plain(InertObject("theirs.Thing")) is None


def test_what_holds_itself_ends() -> None:
    config = InertObject("omegaconf.dictconfig.DictConfig", state={})
    config.state["_content"] = config
    assert plain(config) is None
    cyclic: dict[str, Any] = {"model": {}}
    cyclic["self"] = cyclic["model"]["w2v_args"] = cyclic
    assert plain(cyclic)["self"]["self"]["model"]["w2v_args"]["self"]
    with pytest.raises(UserError, match="nested"):
        find_settings({"cfg": cyclic}, "x.pt")


def test_shared_values_are_entered_once() -> None:
    """Thirty levels that each hold the next one twice would be a billion."""
    value: Any = {"end": 1}
    for _ in range(30):
        value = {"a": value, "b": value}
    assert plain(value)["a"]["b"]["a"]
