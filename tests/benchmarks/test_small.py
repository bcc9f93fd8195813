"""Benchmarks that take the same lines at toy sizes: both sides agree, and each line has its ratio."""

from __future__ import annotations

import pytest

from tests.benchmarks import distill, manifest, qbe
from tests.pretraining import test_distillation as made


def test_distillation_beside_s3prls(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3prl")
    monkeypatch.setattr(distill, "SAMPLES", 8_000)
    lines = distill.run(made.TINY, made.CONV, layers=4, predicted=(2, 3, 4)).splitlines()
    assert ["teacher stored" in line for line in lines] == [False, True]
    assert all(" x (" in line for line in lines)


def test_searches_beside_dtw_python(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dtw")
    for name, value in {"WIDTH": 8, "QUERIES": 1, "DOCUMENTS": 2}.items():
        monkeypatch.setattr(qbe, name, value)
    assert qbe.run().count(" x (") == 2


def test_a_manifest_by_columns_beside_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 100, "FILES": 10, "TURNS": 1}.items():
        monkeypatch.setattr(manifest, name, value)
    assert manifest.run().startswith("manifest of 100 rows: ")
