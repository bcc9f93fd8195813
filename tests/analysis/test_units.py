"""Discovered units: clusters against phones that are known to the sample."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from superb_eval.analysis.layer_analysis import LayerQuestion, analyse
from superb_eval.errors import UserError
from superb_eval.results import layer_record
from superb_eval.runs.config import RunConfig
from tests import aligned_tones
from tests.aligned_tones import PHONE_SECONDS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aligned_tones.write(tmp_path_factory.mktemp("aligned"))


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
