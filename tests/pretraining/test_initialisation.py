"""Pre-training that goes on from an encoder's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from superb_eval.errors import UserError
from superb_eval.pretraining import network
from superb_eval.pretraining.export import export
from superb_eval.pretraining.initialisation import initialise
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.recipe import PretrainRecipe
from superb_eval.runtime.progress import NoProgress
from tests.rounding import assert_near_weights
from upstreams import registry

Toy = Callable[..., PretrainRecipe]


@pytest.fixture
def first(toy: Toy, tmp_path: Path) -> Path:
    """The encoder of a first training, with weights of another seed than the toy recipe's."""
    export(network.create(toy().network, seed=1), tmp_path / "first")
    return tmp_path / "first"


def test_a_network_has_all_weights_of_the_encoder(toy: Toy, first: Path) -> None:
    model = network.create(toy().network, seed=0)
    initialise(model, f"hubert@{first}")
    stored = load_file(first / "model.safetensors")
    assert all(torch.equal(weight, stored[name]) for name, weight in model.state_dict().items())
    wav = torch.sin(torch.arange(16_000) / 9)
    ours = model.eval()(wav[None]).last_hidden_state
    theirs = registry.load(f"hubert@{first}")([wav])["hidden_states"][-1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * float(theirs.abs().max()))


def test_a_second_iteration_begins_with_the_first_ones_weights_and_predicts_its_units(
    toy: Toy, first: Path, speech: Path, tmp_path: Path
) -> None:
    settings = toy(
        f"network.initialise=hubert@{first}",
        f"targets={{features: hubert@{first}, layer: 1, clusters: 4, restarts: 1, batch_size: 500}}",
        "optim.steps=1",
        "optim.lr=1e-30",
    )
    model = pretrain(settings, [f"audio={speech}"], tmp_path / "second", "cpu", 1, NoProgress())
    assert_near_weights(load_file(model / "model.safetensors"), load_file(first / "model.safetensors"))
    assert len(list((tmp_path / "second" / "targets").glob("labels-*.npy"))) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.layers=2", "has num_hidden_layers=1, the recipe's network 2"),
        ("network.heads=4", "has num_attention_heads=2, the recipe's network 4"),
        (
            "network.more={hidden_act: relu, num_conv_pos_embeddings: 16, num_conv_pos_embedding_groups: 4}",
            "has hidden_act=gelu, the recipe's network relu",
        ),
    ],
)
def test_another_network_is_refused_by_its_setting(toy: Toy, first: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        initialise(network.create(toy(override).network, seed=0), f"hubert@{first}")


def test_an_encoder_without_a_mask_vector_leaves_the_networks_own(toy: Toy, tmp_path: Path) -> None:
    more = "num_conv_pos_embeddings: 16, num_conv_pos_embedding_groups: 4"
    unmasked = toy(f"network.more={{{more}, apply_spec_augment: false, mask_time_prob: 0.0}}").network
    export(network.create(unmasked, seed=1), tmp_path / "student")
    model, own = (network.create(toy(f"network.more={{{more}}}").network, seed=0) for _ in range(2))
    initialise(model, f"hubert@{tmp_path / 'student'}")
    assert torch.equal(model.masked_spec_embed, own.masked_spec_embed)
    assert not torch.equal(model.feature_projection.projection.weight, own.feature_projection.projection.weight)


def test_an_upstream_that_is_no_hubert_is_refused(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"fbank is not one of this package's HuBERT-like upstreams"):
        initialise(network.create(toy().network, seed=0), "fbank")


def test_the_recipes_faults_are_found_before_audio_is_read(toy: Toy, tmp_path: Path) -> None:
    settings = toy(f"network.initialise=hubert@{tmp_path}/none")
    with pytest.raises(UserError, match="none"):
        pretrain(settings, [f"audio={tmp_path}/no-audio"], tmp_path / "out", "cpu", 1, NoProgress())
