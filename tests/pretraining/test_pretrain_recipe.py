from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from superb_eval import recipe as recipes
from superb_eval.cli.app import app
from superb_eval.errors import UserError
from superb_eval.pretraining import network
from superb_eval.pretraining.recipe import PretrainRecipe, load
from superb_eval.pretraining.sources import parse_paths
from upstreams import registry
from upstreams.hubert import CONFIGS

SHIPPED = recipes.shipped(["pretrain"])


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_valid_and_contain_no_local_path(name: str) -> None:
    text = (recipes.folder().parent / name).read_text()
    load(name, "pretrain", PretrainRecipe)
    assert "/home" not in text and "/work" not in text and "/tmp" not in text


def test_the_base_recipe_is_the_published_one() -> None:
    first, second = (load(f"hubert_base_ls960{it}", "pretrain", PretrainRecipe) for it in ("", "_it2"))
    assert first.front is None and first.predict.unmasked == (0.0, 0.0) and first.targets.weights is None
    assert (first.targets.clusters, first.optim.steps) == (100, 250_000)
    assert (second.targets.clusters, second.targets.layer, second.optim.steps) == (500, 6, 400_000)
    model = network.create(first.network, 0)
    assert sum(p.numel() for p in model.parameters()) == 94_371_712
    assert second.network == first.network and second.data == first.data


def test_the_mini_recipe_trains_the_network_that_carries_its_name() -> None:
    settings = load("hubert_mini", "pretrain", PretrainRecipe)
    model = network.create(settings.network, 0)
    assert sum(p.numel() for p in model.parameters()) == registry.card("hubert_mini").parameters
    for key, value in CONFIGS["hubert_mini"].items():
        ours = getattr(model.config, key)
        assert tuple(ours) == tuple(value) if isinstance(value, tuple) else ours == value


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optim.stepps=3", "unknown key 'optim.stepps'. Did you mean 'steps'"),
        ("data.sources=[{foldr: x}]", r"unknown key 'data.sources.0.foldr'. Did you mean 'folder'"),
        ("data.sources=[{folder: x, corpus: y}]", "a source is exactly one of corpus, librispeech, folder"),
        ("data.sources=[{corpus: x, parts: [ks]}]", "parts: only a librispeech has some"),
        ("data.sources=[]", "'data.sources' is"),
        ("mask.probability=2", "'mask.probability' is 2"),
        ("network.conv=[1, 2]", "'network.conv' is"),
        ("targets.clusters=[100, 1]", r"'targets\.clusters\.1' is 1: input should be greater than or equal to 2"),
        (
            "targets.further={clusters: 1}",
            r"'targets\.further\.clusters' is 1: input should be greater than or equal to 2",
        ),
        ("targets.further={further: {}}", r"'targets\.further\.further'"),
        ("targets.clusters=1", r"'targets\.clusters' is 1: input should be greater than or equal to 2"),
        ("targets.clusters=[]", r"'targets\.clusters' is"),
        ("front={optim: {steps: 3}, batch_seconds: 1}", "front.batch_seconds=1 can't hold a crop"),
        ("targets.stack=4", "targets.stack=4: expected 1 with k-means; or set targets.quantiser=random"),
        ("targets={features: log-mel, centre: c0}", r"targets\.centre=c0: log-mel has no C0; expected none or all"),
        ("targets.further={stack: 4}", r"targets\.further\.stack=4: .* set targets\.further\.quantiser=random"),
    ],
)
def test_mistakes_in_a_recipe_are_explained(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("hubert_toy", "pretrain", PretrainRecipe, [override])


def test_clusters_are_one_number_or_a_list() -> None:
    one, several = (
        load("hubert_toy", "pretrain", PretrainRecipe, [f"targets.clusters={text}"]).targets
        for text in ("20", "[20, 50]")
    )
    assert one.model_dump(mode="json")["clusters"] == one.clusters == 20
    assert several.model_dump(mode="json")["clusters"] == [20, 50] and several.clusters == (20, 50)


def test_names_of_sources_are_checked(tmp_path: Path) -> None:
    settings = load("hubert_mini", "pretrain", PretrainRecipe)
    options = [f"real={tmp_path}", f"synthetic={tmp_path}"]
    assert parse_paths(options, settings.data) == {"real": tmp_path, "synthetic": tmp_path}
    with pytest.raises(UserError, match="has no source 'synthetc'. Did you mean 'synthetic'"):
        parse_paths([f"synthetc={tmp_path}"], settings.data)
    with pytest.raises(UserError, match="expected NAME=PATH"):
        parse_paths([str(tmp_path)], settings.data)


def test_unknown_recipes_are_explained_on_the_command_line() -> None:
    result = CliRunner().invoke(app, ["pretrain", "hubert_mni", "--out", "x"])
    assert isinstance(result.exception, UserError) and "Did you mean 'hubert_mini'" in str(result.exception)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("network.layers=10000000", r"'network\.layers' is 10000000: at most 200 is allowed"),
        ("network.heads=7", r"hidden=\d+ is no multiple of heads=7"),
        ("optim.betas=[2, 3]", r"'optim\.betas\.0' is 2: input should be less than 1"),
        ("optim.steps=1e9", r"'optim\.steps' is 1000000000\.0: at most 100000000 is allowed"),
        ("data.crop_seconds=1e-9", r"'data\.crop_seconds' is 1e-09: input should be greater than or equal to 0\.05"),
        ("seed=4294967296", r"'seed' is 4294967296: at most .* numpy and scikit-learn take seeds of 32 bits"),
        ("predict.unmasked=[.inf, 0]", r"'predict\.unmasked\.0' is inf: input should be a finite number"),
    ],
)
def test_values_beyond_every_training_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("hubert_toy", "pretrain", PretrainRecipe, [override])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "network.more={num_conv_pos_embedding_groups: 7}",
            "a HuBERT can't be loaded from 'the recipe's section network'",
        ),
        ("network.feed_forward=65536", "its network takes .* GB or more"),
    ],
)
def test_a_network_that_can_not_be_built_is_one_sentence(
    override: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERB_EVAL_MAX_GB", "0.01")
    settings = load("hubert_toy", "pretrain", PretrainRecipe, [override])
    with pytest.raises(UserError, match=sentence):
        network.create(settings.network, 0)
