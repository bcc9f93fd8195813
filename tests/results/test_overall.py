"""The overall scores, against published ones."""

from __future__ import annotations

import pytest

from superb_eval.errors import UserError
from superb_eval.results import intervals, overall, published


def figures(name: str) -> dict[tuple[str, str], float]:
    row = published.find(name)
    assert row is not None
    return row.figures


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
    most = {place: value for place, value in figures("hubert_base").items() if place != ("sd", "der")}
    assert overall.superb_s(most) is None
    assert overall.mean_of_metrics(most) is None
    assert overall.missing(most) == ["sd"]


def test_the_published_folds_do_not_separate_the_two_models_on_er() -> None:
    """paper_facts section 3: 1.9, about -1.9 to +5.6, t = 1.40 with 4 degrees of freedom."""
    place = ("er", "acc")
    hubert, distil = (published.choose([name])[0] for name in ("hubert_base", "distilhubert"))
    assert [sum(row.folds[place]) / 5 for row in (hubert, distil)] == pytest.approx([64.92, 63.02], abs=0.01)
    found = intervals.paired_folds(hubert.folds[place], distil.folds[place])
    assert (round(found.value, 1), round(found.low, 1), round(found.high, 1)) == (1.9, -1.9, 5.6)
    assert not found.distinguishable


def test_every_published_row_has_a_key_of_its_own_and_a_source() -> None:
    assert len({row.key for row in published.rows()}) == len(published.rows()) == 48
    assert all(row.source for row in published.rows())
    assert published.key_of("WavLM Base+") == "wavlm_base_plus"
    with pytest.raises(UserError, match="Did you mean 'hubert_base'"):
        published.choose(["hubert_bass"])
