"""The overall scores, against published ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from superb_eval.results import overall

PUBLISHED = Path(overall.__file__).parent / "published.csv"


def figures(upstream: str) -> dict[str, float]:
    with PUBLISHED.open(encoding="utf8", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["upstream"] == upstream)
    found = {key: float(value) for key, value in row.items() if "_" in key and key != "params_M" and value}
    found["qbe_mtwv"] *= 100
    return found


@pytest.mark.parametrize(
    ("upstream", "score"),
    [
        ("FBANK (leaderboard re-run)", 0),
        ("FBANK", -155),
        ("wav2vec 2.0 Base", 818),
        ("HuBERT Base", 941),
        ("HuBERT Large", 919),
        ("WavLM Base", 1019),
        ("WavLM Base+", 1106),
        ("WavLM Large", 1145),
        ("DistilHuBERT", 717),
    ],
)
def test_published_rows_give_the_published_scores(upstream: str, score: float) -> None:
    assert overall.superb_s(figures(upstream)) == pytest.approx(score, abs=1)


@pytest.mark.parametrize(
    ("upstream", "mean"), [("HuBERT Base", 80.8), ("DistilHuBERT", 75.9), ("LightHuBERT a_small", 79.1)]
)
def test_published_rows_give_the_published_means(upstream: str, mean: float) -> None:
    assert overall.mean_of_metrics(figures(upstream)) == pytest.approx(mean, abs=0.06)


def test_a_missing_task_is_never_averaged_around() -> None:
    most = {key: value for key, value in figures("HuBERT Base").items() if key != "sd_der"}
    assert overall.superb_s(most) is None
    assert overall.mean_of_metrics(most) is None
