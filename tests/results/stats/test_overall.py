"""The overall scores, against published ones."""

from __future__ import annotations

import pytest

from superb_eval.errors import UserError
from superb_eval.results import published
from superb_eval.results.stats import differences, overall


def figures(name: str) -> dict[tuple[str, str], float]:
    system = published.find(name)
    assert system is not None
    return system.values


LEADERBOARD_2022 = {
    "DistilHuBERT": 717,
    "DeCoAR 2.0": 722,
    "wav2vec": 529,
    "vq-wav2vec": 422,
    "APC": 392,
    "VQ-APC": 377,
    "NPC": 386,
    "modified CPC": 278,
    "TERA": 150,
    "PASE+": 149,
    "Mockingjay": 54,
}
"""Score as a picture of the leaderboard shows it (github.com/mechanicalsea/lighthubert, tutorials/)."""

LEADERBOARD_2023 = {
    "WavLM Large": 1145,
    "WavLM Base+": 1106,
    "WavLM Base": 1019,
    "LightHuBERT stage1": 959,
    "data2vec Large": 949,
    "HuBERT Base": 941,
    "ccc-wav2vec 2.0 Base": 940,
    "data2vec-aqc Base": 935,
    "DPWavLM": 926,
    "HuBERT Large": 919,
    "wav2vec 2.0 Large": 914,
    "LightHuBERT a_small": 901,
    "CoBERT Base": 894,
    "data2vec base": 884,
    "DPHuBERT": 866,
    "wav2vec 2.0 Base": 818,
    "FaST-VGS+": 809,
}
"""As a later picture shows it (github.com/pyf98/DPHuBERT, imgs/dphubert-superb-score.png)."""

STAR = {
    "FBANK (leaderboard re-run)": 0,
    "ARMHuBERT-S": 828,
    "STaRHuBERT": 887,
    "STaRHuBERT-L": 896,
    "ARMHuBERT-S (100 h distillation data)": 800,
    "STaRHuBERT (100 h distillation data)": 831,
    "DPHuBERT (100 h distillation data)": 819,
}
"""The generalizability score of the STaR paper (arXiv 2312.09040, table 1), which cuts decimals off."""

PUBLISHED_SCORES = {**LEADERBOARD_2022, **LEADERBOARD_2023, **STAR}


def test_published_rows_give_the_published_scores() -> None:
    found = {name: overall.superb_s(figures(name)) for name in PUBLISHED_SCORES}
    far = {name: value for name, value in found.items() if value is None or abs(value - PUBLISHED_SCORES[name]) >= 1}
    assert len(found) == 35
    assert far == {"DPHuBERT (100 h distillation data)": pytest.approx(820.6, abs=0.1)}, "34 of 35; one is off by 1.6"


def test_the_row_of_the_paper_is_not_the_one_that_the_score_is_anchored_at() -> None:
    assert overall.superb_s(figures("FBANK")) == pytest.approx(-155, abs=1)


@pytest.mark.parametrize(
    ("upstream", "mean"), [("HuBERT Base", 80.8), ("DistilHuBERT", 75.9), ("LightHuBERT a_small", 79.1)]
)
def test_published_rows_give_the_published_means(upstream: str, mean: float) -> None:
    assert overall.mean_of_metrics(figures(upstream)) == pytest.approx(mean, abs=0.06)


def test_a_missing_task_is_never_averaged_around() -> None:
    most = {metric: value for metric, value in figures("hubert_base").items() if metric != ("sd", "der")}
    assert overall.superb_s(most) is None
    assert overall.mean_of_metrics(most) is None
    assert overall.missing(most) == ["sd"]


def test_the_published_folds_do_not_separate_the_two_models_on_er() -> None:
    """paper_facts section 3: 1.9, about -1.9 to +5.6, t = 1.40 with 4 degrees of freedom."""
    metric = ("er", "acc")
    hubert, distil = (published.choose([name])[0] for name in ("hubert_base", "distilhubert"))
    assert [sum(system.folds[metric]) / 5 for system in (hubert, distil)] == pytest.approx([64.92, 63.02], abs=0.01)
    found = differences.paired_folds(hubert.folds[metric], distil.folds[metric])
    assert (round(found.value, 1), round(found.low, 1), round(found.high, 1)) == (1.9, -1.9, 5.6)
    assert not found.distinguishable


def test_every_published_row_has_a_key_of_its_own_and_a_source() -> None:
    assert len({system.key for system in published.systems()}) == len(published.systems()) == 48
    assert all(system.source for system in published.systems())
    assert published.key_of("WavLM Base+") == "wavlm_base_plus"
    with pytest.raises(UserError, match="Did you mean 'hubert_base'"):
        published.choose(["hubert_bass"])
