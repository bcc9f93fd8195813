"""State dicts as training scripts save them: nested, prefixed, several in a file, in older names; never random."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from superb_eval.errors import UserError
from tests.upstreams import fairseq
from tests.upstreams.configs import TINY
from upstreams import checkpoint, registry

HEADS = "#heads=2"


def network(kind: str = "Hubert", **changed: Any) -> nn.Module:
    """Return a network of transformers with random weights; none of its vectors is zeros or ones."""
    import transformers

    torch.manual_seed(7)
    model: nn.Module = getattr(transformers, f"{kind}Model")(
        getattr(transformers, f"{kind}Config")(**{**TINY, **changed})
    )
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn(p.shape))
    return model.eval()


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def states(address: str, wav: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(registry.load(address)([wav])["hidden_states"])


def expected_states(model: Any, wav: Tensor) -> list[Tensor]:
    with torch.no_grad():
        output = model(wav[None], output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


PREFIXES = (
    *("", "module.", "_orig_mod.", "model.", "encoder.", "upstream.", "hubert.", "wav2vec2."),
    *("module._orig_mod.", "_orig_mod.module.model.", "model.module.encoder.", "upstream.model.hubert.", "a.b.c."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix(prefix: str, tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model = network()
    torch.save(prefixed(model.state_dict(), prefix), tmp_path / "x.pt")
    found = states(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}", noise(9_000))
    assert_equal(found, expected_states(model, noise(9_000)))


@pytest.mark.parametrize(
    "keys", [("state_dict",), ("model",), ("model_state_dict",), ("module",), ("weights",), ("a", "b", "model")]
)
def test_nested_state_dicts(keys: tuple[str, ...], tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model = network()
    content: Any = prefixed(model.state_dict(), "module.")
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "lr": 0.1}
    torch.save(content, tmp_path / "x.pt")
    found = states(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}", noise(9_000))
    assert_equal(found, expected_states(model, noise(9_000)))


def test_wrappers_within_the_network(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """`torch.compile` of the encoder alone, activation checkpoints of its layers."""
    model = network()
    weights = {
        name.replace("encoder.layers.0.", "encoder._orig_mod.layers.0._checkpoint_wrapped_module."): value
        for name, value in model.state_dict().items()
    }
    torch.save(weights, tmp_path / "x.pt")
    assert_equal(states(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}", noise(9_000)), expected_states(model, noise(9_000)))


@pytest.fixture
def lightning(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A checkpoint of Lightning, with a callback and hyper-parameters of a package that is not installed."""
    package: Any = types.ModuleType("their_project")
    package.Config = type("Config", (), {"__module__": "their_project"})
    sys.modules["their_project"] = package
    model = network()
    try:
        config = package.Config()
        config.width = 32
        content = {
            "epoch": 1,
            "global_step": 10,
            "pytorch-lightning_version": "2.1.0",
            "state_dict": {**prefixed(model.state_dict(), "model.encoder."), "model.head.weight": torch.ones(2)},
            "callbacks": {"ModelCheckpoint": {"best": config}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
            "lr_schedulers": [],
            "hyper_parameters": {"config": config},
        }
        torch.save(content, tmp_path / "last.ckpt")
    finally:
        del sys.modules["their_project"]
    return tmp_path / "last.ckpt", model


def test_lightning(lightning: tuple[Path, nn.Module], noise: Callable[..., Tensor]) -> None:
    path, model = lightning
    assert_equal(states(f"checkpoint:{path}{HEADS}", noise(9_000)), expected_states(model, noise(9_000)))
    found = checkpoint.describe(f"{path}{HEADS}")
    assert found.foreign == ("their_project.Config",)
    assert (found.layout, found.prefix) == ("transformers' state dict", "state_dict.model.encoder.")


def test_a_module_pickled_whole(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    """As `torch.save(model)` writes it: none of its classes is imported."""
    model: Any = fairseq.hubert(fairseq.settings())
    for layer in model.encoder.layers:
        layer.activation_fn = nn.functional.gelu  # s3prl's own can't be pickled
    for content in (model, {"model": model}):
        torch.save(content, tmp_path / "x.pt")
        found = states(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}", noise(9_000))
        assert_equal(found, fairseq.hidden_states(model, noise(9_000)))
    assert (
        "s3prl.upstream.hubert.hubert_model.HubertModel" in checkpoint.describe(f"{tmp_path / 'x.pt'}{HEADS}").foreign
    )


@pytest.fixture
def several(tmp_path: Path) -> tuple[Path, dict[str, nn.Module]]:
    """A file with a student, its teacher and averaged weights."""
    models = {"student": network(), "teacher": network(num_hidden_layers=3), "ema": network(num_hidden_layers=1)}
    weights: dict[str, Any] = {}
    for name in ("student", "teacher"):
        weights |= prefixed(models[name].state_dict(), f"{name}.hubert.")
    torch.save({"state_dict": weights, "ema": models["ema"].state_dict()}, tmp_path / "x.pt")
    return tmp_path / "x.pt", models


@pytest.mark.parametrize("family", ["checkpoint:", "hubert@"])
def test_one_of_several_networks_is_named(
    several: tuple[Path, dict[str, nn.Module]], noise: Callable[..., Tensor], family: str
) -> None:
    path, models = several
    for name, prefix in (
        ("student", "student"),
        ("teacher", "state_dict.teacher.hubert"),
        ("ema", "ema"),
        ("ema", "ema."),
    ):
        found = states(f"{family}{path}#{prefix},heads=2", noise(9_000))
        assert_equal(found, expected_states(models[name], noise(9_000)))


def test_several_networks_are_listed(several: tuple[Path, dict[str, nn.Module]]) -> None:
    path, _ = several
    listed = ", ".join(
        f"{path}#{prefix}" for prefix in ("state_dict.student.hubert", "state_dict.teacher.hubert", "ema")
    )
    with pytest.raises(UserError) as caught:
        registry.load(f"checkpoint:{path}")
    assert str(caught.value) == f"{path}: holds 3 networks. Name one: {listed}."
    with pytest.raises(UserError, match=r"'#other' names no network in it. Expected one of .*#ema"):
        registry.load(f"checkpoint:{path}#other")
    with pytest.raises(UserError, match=r"'#state_dict' names several networks in it"):
        registry.load(f"checkpoint:{path}#state_dict")


def test_a_network_under_two_names_is_one(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model = network()
    torch.save({**prefixed(model.state_dict(), "a."), **prefixed(model.state_dict(), "b.")}, tmp_path / "x.pt")
    assert_equal(states(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}", noise(9_000)), expected_states(model, noise(9_000)))


def old_weight_norm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        weights = {name.replace(new, old): value for name, value in weights.items()}
    return weights


def folded_weight_norm(weights: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    folded = {name: value for name, value in weights.items() if "parametrizations" not in name}
    return {**folded, "encoder.pos_conv_embed.conv.weight": model.encoder.pos_conv_embed.conv.weight.detach()}


@pytest.mark.parametrize("form", ["old", "folded", "new"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weight_normalisation(form: str, suffix: str, tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model = network()
    with torch.no_grad():
        model.encoder.pos_conv_embed.conv.parametrizations.weight.original0.mul_(3.0)  # type: ignore[union-attr]
    weights = dict(model.state_dict())
    weights = {"old": old_weight_norm(weights), "folded": folded_weight_norm(weights, model), "new": weights}[form]
    path = tmp_path / f"x{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    assert_equal(states(f"checkpoint:{path}{HEADS}", noise(9_000)), expected_states(model, noise(9_000)))


def test_an_absent_mask_embedding_is_of_no_account(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model = network()
    weights = {name: value for name, value in model.state_dict().items() if name != "masked_spec_embed"}
    torch.save(weights, tmp_path / "x.pt")
    assert_equal(states(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}", noise(9_000)), expected_states(model, noise(9_000)))


@pytest.mark.parametrize(
    ("dropped", "part"),
    [
        ("encoder.layers.1.attention.", "layer 2's attention"),
        ("encoder.layers.0.feed_forward.output_dense.", "layer 1's feed-forward part"),
        ("feature_extractor.conv_layers.3.", "convolution 4"),
        ("feature_projection.projection.", "the projection"),
        ("encoder.layer_norm.", "the encoder's norm"),
        ("encoder.pos_conv_embed.conv.bias", "the positional convolution"),
    ],
)
@pytest.mark.parametrize("family", ["checkpoint:", "hubert_nano@"])
def test_missing_weights_are_named_and_never_random(dropped: str, part: str, family: str, tmp_path: Path) -> None:
    model: Any = registry.load("hubert_nano@random")
    weights = {k: value for k, value in model.model.state_dict().items() if not k.startswith(dropped)}
    torch.save(prefixed(weights, "model."), tmp_path / "x.pt")
    with pytest.raises(UserError) as caught:
        registry.load(f"{family}{tmp_path / 'x.pt'}")
    message = str(caught.value)
    assert "missing" in message or "7 convolutions" in message or "has no" in message
    assert part in message or "7 convolutions" in message


def test_weights_that_have_no_place_are_refused(tmp_path: Path) -> None:
    """An adapter within a layer would change its output."""
    weights = {**network().state_dict(), "encoder.layers.0.adapter.weight": torch.ones(3)}
    torch.save(weights, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"1 unexpected \(.*encoder.layers.0.adapter.weight"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}")


def test_a_shard_names_the_folder(tmp_path: Path) -> None:
    weights = {
        name: value for name, value in network().state_dict().items() if "layers.1" not in name or "conv" in name
    }
    del weights["encoder.layer_norm.bias"]
    save_file(weights, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(UserError, match="It is one of several shards: give the folder"):
        registry.load(f"checkpoint:{tmp_path / 'model-00001-of-00002.safetensors'}{HEADS}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc.weight": torch.ones(1)}, r"holds 1 tensors, such as \['fc.weight'\], but no weights of HuBERT"),
        ({"epoch": 1}, "holds no tensors"),
        ({}, "holds no tensors"),
    ],
)
def test_files_of_other_networks_are_named(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=f"x.pt: {message}"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}")


def test_heads_are_never_guessed_where_no_published_network_has_the_width(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"number of attention heads isn't known at a width of 32. .*x.pt#heads=N"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}")
    for wrong in ("heads=0", "heads=x", "heads=-1"):
        with pytest.raises(UserError, match="Expected a number of heads"):
            registry.load(f"checkpoint:{tmp_path / 'x.pt'}#{wrong}")
    with pytest.raises(UserError, match="hidden_size of 32 isn't a multiple of num_attention_heads, 3"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}#heads=3")
    assert registry.load(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}").model.config.num_attention_heads == 2  # type: ignore[union-attr]


def test_a_guess_is_noted_on_the_card(tmp_path: Path) -> None:
    small = {"hidden_size": 768, "num_hidden_layers": 1, "intermediate_size": 8, "num_conv_pos_embeddings": 2}
    torch.save(network(**small, num_attention_heads=12).state_dict(), tmp_path / "x.pt")
    upstream: Any = registry.load(f"checkpoint:{tmp_path / 'x.pt'}")
    assert upstream.model.config.num_attention_heads == 12
    assert upstream.card.notes == (
        "the file has no settings: taken to be as in the published networks (12 attention heads, post-norm, waveforms "
        "as they are)",
    )


def test_wavlm_states_its_heads(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model = network("WavLM")
    torch.save(model.state_dict(), tmp_path / "x.pt")
    assert_equal(states(f"checkpoint:{tmp_path / 'x.pt'}", noise(9_000)), expected_states(model, noise(9_000)))


def test_other_strides_are_never_guessed(tmp_path: Path) -> None:
    torch.save(network(conv_kernel=(10, 3, 3, 3, 3, 2, 4)).state_dict(), tmp_path / "x.pt")
    with pytest.raises(UserError, match="strides are unknown. Give a folder with config.json"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}")


def test_the_weights_of_a_folder_are_opened_with_its_config(tmp_path: Path, noise: Callable[..., Tensor]) -> None:
    model: Any = network(num_attention_heads=4)
    model.save_pretrained(tmp_path)
    found = states(f"checkpoint:{tmp_path / 'model.safetensors'}", noise(9_000))
    assert_equal(found, expected_states(model, noise(9_000)))


def test_a_student_is_opened_as_one(tmp_path: Path) -> None:
    """So that `features.key=paper` exists."""
    torch.save(network(feat_proj_layer_norm=False).state_dict(), tmp_path / "x.pt")
    upstream = registry.load(f"checkpoint:{tmp_path / 'x.pt'}{HEADS}")
    assert upstream.keys() == ("hidden_states", "paper")
    assert checkpoint.describe(f"{tmp_path / 'x.pt'}{HEADS}").architecture == "DistilHuBERT"


def test_absent_files_name_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        registry.load(f"checkpoint:{tmp_path / 'x.pt'}")
    with pytest.raises(UserError, match="hf:"):
        registry.load(f"checkpoint:{tmp_path}")
