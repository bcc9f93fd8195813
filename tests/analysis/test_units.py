"""Discovered units: clusters against phones that are known to the sample."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import mutual_info_score

from superb_eval.analysis import units
from superb_eval.analysis.layer_analysis import LayerQuestion, analyse
from superb_eval.errors import UserError
from superb_eval.results import layer_record
from superb_eval.runs.config import RunConfig

TONES = {"A": 300.0, "B": 900.0, "C": 2_500.0}
PHONE_SECONDS = 0.2


def _clip(path: Path, phones: str, rng: np.random.Generator) -> str:
    """Write a clip of tones and return its alignment; a pause is noise."""
    time = np.arange(int(PHONE_SECONDS * 16_000)) / 16_000
    parts = [np.sin(2 * np.pi * TONES[p] * time) if p in TONES else rng.standard_normal(len(time)) for p in phones]
    soundfile.write(path, 0.3 * np.concatenate(parts) + 1e-3 * rng.standard_normal(len(time) * len(phones)), 16_000)
    names = [p if p in TONES else "_:" for p in phones]
    return json.dumps([[p, k * PHONE_SECONDS, (k + 1) * PHONE_SECONDS] for k, p in enumerate(names)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("aligned")
    (root / "aligned").mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        with (root / f"aligned/{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "path", "alignment"])
            for number in range(6):
                name = f"{split}{number}"
                phones = "".join(rng.permutation(list("AABBCC_")))
                writer.writerow([name, f"{name}.wav", _clip(root / f"{name}.wav", phones, rng)])
    return root


def _config(corpus: Path, folder: Path) -> RunConfig:
    return RunConfig("fbank_nonorm", "", corpus, out=folder / "results", store=folder / "store")


def test_clusters_of_tones_are_the_tones(corpus: Path, tmp_path: Path) -> None:
    record, path = analyse(LayerQuestion(_config(corpus, tmp_path), (), clusters=(2, 24)))
    few, many = record.units
    assert layer_record.read(path) == record
    assert (many.phones, few.clusters, many.clusters) == (3, 2, 24)
    assert many.frames == pytest.approx(6 * 6 * PHONE_SECONDS * 100, rel=0.02), "fbank's frames, without pauses"
    (coarse,), (fine,) = few.layers, many.layers
    assert fine.phone_purity > 0.9 and fine.pnmi > 0.8
    assert coarse.phone_purity < 0.75 and coarse.cluster_purity > fine.cluster_purity
    again, _ = analyse(LayerQuestion(_config(corpus, tmp_path), (), clusters=(24,)))
    assert again == record, "measured again, it replaces what was measured"


def test_the_agreement_is_the_textbooks() -> None:
    rng = np.random.default_rng(1)
    phones, clusters = rng.integers(0, 5, 400), rng.integers(0, 7, 400)
    clusters[phones == 2] = 3
    pnmi, phone_purity, cluster_purity = units.agreement(phones, clusters)
    entropy = mutual_info_score(phones, phones)
    assert pnmi == pytest.approx(mutual_info_score(phones, clusters) / entropy)
    commonest = [np.bincount(phones[clusters == c]).max() for c in range(7)]
    assert phone_purity == pytest.approx(sum(commonest) / 400)
    assert cluster_purity == pytest.approx(sum(np.bincount(clusters[phones == p]).max() for p in range(5)) / 400)
    assert units.agreement(phones, phones) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_of_equal_singular_values_is_their_number(rank: int) -> None:
    rows, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((50, 8)))
    frames = (rows[:, :rank] @ np.eye(8)[:rank]).astype(np.float32)
    assert units.effective_rank(frames) == pytest.approx(rank, rel=1e-3)


@pytest.mark.parametrize("alignment", ["", "AH 0 1", "[[1]]", '[["AH", "x", 1]]', "null", "[" * 10**4])
def test_what_is_no_alignment_is_named_by_its_line(corpus: Path, tmp_path: Path, alignment: str) -> None:
    (tmp_path / "aligned").mkdir()
    for split in ("train", "test"):
        with (tmp_path / f"aligned/{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["id", "path", "alignment"], ["a", str(corpus / "train0.wav"), alignment]])
    with pytest.raises(UserError, match="line 2"):
        analyse(LayerQuestion(_config(tmp_path, tmp_path), (), clusters=(4,)))


def test_too_many_clusters_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\d+ frames in phones are too few for 100000 clusters"):
        analyse(LayerQuestion(_config(corpus, tmp_path), (), clusters=(100_000,)))
