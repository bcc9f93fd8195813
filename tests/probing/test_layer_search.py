"""A task without training: every layer is searched on dev, the best one tested, and recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from downstreams.qbe import QueryByExample
from superb_eval import recipe
from superb_eval.errors import UserError
from superb_eval.probing.folds import WORK
from superb_eval.results.record import LABELS
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate

NANO = "hubert_nano@random"


@pytest.fixture
def config(melodies: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(NANO, "qbe", melodies, overrides=("head.also=[cosine]",), out=tmp_path / "results")


def test_queries_are_found_and_the_record_describes_the_search(config: RunConfig) -> None:
    record, folder = evaluate(replace(config, upstream="fbank_nonorm"))
    strict, historical = record.metrics
    assert (strict.key, strict.unit, strict.protocol, historical.protocol) == ("mtwv", "x100", "strict", "historical")
    assert strict.value > 50 > 2 * (record.chance or 100)
    assert strict.low <= strict.value <= strict.high and historical.value >= strict.value
    assert strict.units == 4, "queries are resampled"
    assert (record.features.kind, record.features.extracted) == ("frames", 24)
    (training,) = record.training
    assert (training.lr, training.rates, training.parameters) == (None, [], 0)
    assert record.recipe["train"] is None and record.departures and record.skipped == []
    assert sorted(p.name for p in folder.glob("*.csv")) == ["predictions-historical.csv", "predictions.csv"]
    assert not (folder / WORK).exists() and not (folder / LABELS).exists()


def test_dev_chooses_the_layer(config: RunConfig) -> None:
    record, _ = evaluate(config)
    tuned = record.training[0].tuned
    dev = tuned["dev_by_layer"]["cosine_exp"]
    assert list(map(int, dev)) == list(range(record.upstream.layers)) and len(dev) > 1
    assert dev[str(tuned["layer"])] == max(dev.values())
    weights = record.training[0].layer_weights
    assert weights[tuned["layer"]] == 1 and sum(weights) == 1
    alone, _ = evaluate(replace(config, overrides=(f"features.layer={tuned['layer']}",)))
    assert alone.features.extracted == 0
    assert alone.metrics[0] == record.metrics[0]


def test_an_interrupted_search_resumes(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    search = QueryByExample.search
    searched: list[str] = []

    def interrupted(task: QueryByExample, *args: Any) -> Any:
        if len(searched) == 3:
            raise KeyboardInterrupt
        searched.append(args[2])
        return search(task, *args)

    with monkeypatch.context() as patch:
        patch.setattr(QueryByExample, "search", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    calls: list[str] = []
    monkeypatch.setattr(QueryByExample, "search", lambda *args: (calls.append(args[3]), search(*args))[1])
    resumed, _ = evaluate(config)
    assert len(calls) == 2 * resumed.upstream.layers - 3 + 2, "the rest of dev, and two ways on test"
    monkeypatch.undo()
    uninterrupted, _ = evaluate(replace(config, fresh=True))
    assert resumed.metrics == uninterrupted.metrics and resumed.training == uninterrupted.training


def test_missing_layers_are_named(config: RunConfig) -> None:
    with pytest.raises(UserError, match=r"features\.layer: hubert_nano@random has no layer 9 of \d"):
        evaluate(replace(config, overrides=("features.layer=9",)))
    record, _ = evaluate(replace(config, overrides=("features.layer=last",)))
    assert record.training[0].tuned["layer"] == record.upstream.layers - 1


def test_short_queries_are_recorded_as_skipped(config: RunConfig) -> None:
    record, _ = evaluate(replace(config, upstream="fbank", overrides=("head.shortest=1000",)))
    assert len(record.skipped) == 8 and "fewer than 1000" in record.skipped[0]
    assert record.metrics[0].value == 0


def test_train_settings_are_refused_for_a_search_and_required_for_a_head(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="qbe trains nothing"):
        recipe.load(recipe.find("qbe", "mini"), ["train.steps=3", "train.eval_every=3"])
    path = tmp_path / "ks.yaml"
    path.write_text("task: ks\nprofile: nano\n")
    with pytest.raises(UserError, match="'train' is missing: ks trains a head"):
        recipe.load(path)


def test_the_official_recipe_is_the_protocol() -> None:
    """protocol: s3prl downstream/quesst14_dtw/config.yaml."""
    official = recipe.load(recipe.find("qbe", "superb"))
    assert official.corpus.gain_db == -3 and official.corpus.all_languages
    assert official.head["distance"] == "cosine_exp" and official.head["shortest"] == 5
    assert (official.head["p_target"], official.head["c_fa"], official.head["c_miss"]) == (0.0008, 1, 100)
    assert official.head["missing_score"] == -10 and official.features.layer is None
