"""What many tests need: a small corpus of tones that a linear head can classify, and quiet surroundings."""

from __future__ import annotations

import csv
import gc
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from tests.ten_tasks import write as write_ten_tasks

TONES = {"yes": 300.0, "no": 900.0, "_unknown_": 2700.0}
"""Hz."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # Beside other processes, torch's threads would wait for each other; no effect once torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("untimed", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("untimed")


TEST_DEVICE = os.environ.get("SUPERB_EVAL_TEST_DEVICE", "cuda")
"""The device of tests that are marked `gpu`."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU where there is none."""
    if item.get_closest_marker("gpu") and TEST_DEVICE != "cpu":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU: torch finds none")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, the slowest first, so that no core is idle while another runs the last one.

    The tests of a file stay together, since they share fixtures.
    """
    seconds: dict[Path, float] = {}
    for item in items:
        for marker in item.iter_markers("slow"):
            seconds[item.path] = max(seconds.get(item.path, 1.0), marker.kwargs.get("seconds", 1.0))
    items.sort(key=lambda item: -seconds.get(item.path, 0.0))


def pytest_collection_finish() -> None:
    """Let collections of garbage, one at the end of each run, pass over the libraries' objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _unsynced() -> Iterator[None]:
    """Don't wait for the disk: only a power loss tells a synced file from a written one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def device() -> str:
    """The device of a test that is marked `gpu`."""
    return TEST_DEVICE


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's store and corpora."""
    monkeypatch.setenv("SUPERB_EVAL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SUPERB_EVAL_CORPORA", str(tmp_path / "corpora"))


def write_tones(root: Path, rows_per_class: dict[str, int], seconds: tuple[float, float] = (0.4, 0.9)) -> Path:
    """Write a manifest corpus for KS: noisy tones of varying length, `rows_per_class` by split."""
    rng = np.random.default_rng(0)
    for split, count in rows_per_class.items():
        rows = []
        for label, pitch in TONES.items():
            for k in range(count):
                path = root / "audio" / split / f"{label}-{k}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                time = np.arange(int(16_000 * rng.uniform(*seconds))) / 16_000
                tone = 0.2 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.25) * time)
                soundfile.write(path, tone + 0.1 * rng.standard_normal(len(time)), 16_000)
                rows.append([f"{split}-{label}-{k}", str(path.relative_to(root)), f"{split}{k}", label])
        _write_rows(root / "ks" / f"{split}.csv", rows)
    return root


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows([["id", "path", "speaker", "keyword"], *rows])


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 72 tones; read it, don't change it."""
    return write_tones(tmp_path_factory.mktemp("tones"), {"train": 12, "dev": 6, "test": 6})


def write_melodies(root: Path, documents: int = 8) -> Path:
    """Write a manifest corpus for QbE: a word is three tones in a row, a document some words of another voice."""
    rng = np.random.default_rng(1)
    words = {
        "rising": (400, 800, 1600),
        "falling": (1600, 800, 400),
        "valley": (900, 450, 2500),
        "peak": (300, 2400, 600),
    }

    def write(name: str, spoken: Sequence[str], voice: float) -> str:
        time = np.arange(1600) / 16_000
        tones = [np.sin(2 * np.pi * voice * pitch * time) for word in spoken for pitch in words[word]]
        path = root / "audio" / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.concatenate(tones) + 0.01 * rng.standard_normal(1600 * len(tones)), 16_000)
        return str(path.relative_to(root))

    queries, docs, pairs = [], [], []
    for split in ("dev", "test"):
        held = {f"{split}-d{k}": rng.choice(list(words), size=2) for k in range(documents)}
        for name, spoken in held.items():
            docs.append([split, name, write(name, spoken, 1.05), "b"])
        for word in words:
            queries.append([split, f"{split}-{word}", write(f"{split}-{word}", [word], 1.0), "a"])
            pairs += [[split, f"{split}-{word}", name, str(int(word in spoken))] for name, spoken in held.items()]
    _write_table(root / "qbe" / "queries.csv", [["split", "id", "path", "speaker"], *queries])
    _write_table(root / "qbe" / "docs.csv", [["split", "id", "path", "speaker"], *docs])
    _write_table(root / "qbe" / "pairs.csv", [["split", "query", "doc", "label"], *pairs])
    return root


def _write_table(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="session")
def melodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 8 queries and 16 documents; read it, don't change it."""
    return write_melodies(tmp_path_factory.mktemp("melodies"))


@pytest.fixture(scope="session")
def ten_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 24 tones for every task; read it, don't change it."""
    return write_ten_tasks(tmp_path_factory.mktemp("ten-tasks"))
