"""A record to vary."""

from __future__ import annotations

import pytest

from superb_eval.results.record import (
    CorpusRecord,
    FeaturesRecord,
    MetricRecord,
    RunRecord,
    TrainingRecord,
    UpstreamRecord,
)


@pytest.fixture
def a_record() -> RunRecord:
    return RunRecord(
        schema_version=1,
        task="ks",
        profile="mini",
        seed=0,
        metrics=[
            MetricRecord(
                key="acc",
                heading="ACC",
                unit="%",
                higher_is_better=True,
                value=43.99,
                low=38.8,
                high=49.18,
                level=0.95,
                method="bootstrap",
                units=366,
                protocol="strict",
            )
        ],
        chance=23.5,
        upstream=UpstreamRecord(
            address="fbank",
            name="fbank",
            fingerprint="f",
            parameters=0,
            layers=1,
            width=240,
            stride=160,
            licence="none",
            training_data="none",
            notes=[],
        ),
        corpus=CorpusRecord(name="pack", synthetic=False, digest="d", utterances={"test": 366}, hours=0.5),
        features=FeaturesRecord(kind="pooled", extracted=1, stored=0, made_on="cpu"),
        training=[TrainingRecord(fold=1, lr=1e-3, rates=[], layer_weights=[1.0], tuned={}, parameters=1)],
        recipe={},
        recipe_digest="r",
        departures=[],
        predictions={"predictions.csv": "p"},
        command="superb-eval run ks -u fbank",
        versions={},
        hardware={},
        started="2026-01-01T00:00:00+00:00",
        seconds={},
        skipped=[],
    )
