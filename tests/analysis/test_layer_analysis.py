"""Layer by layer: the probes are runs that share one pass of the upstream, and CKA is over the same utterances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superb_eval.analysis import layer_analysis
from superb_eval.analysis.cka import linear_cka
from superb_eval.analysis.layer_analysis import LayerQuestion, analyse
from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.features.extract import Extraction, extract
from superb_eval.results import layer_record
from superb_eval.results.layer_record import LayersRecord
from superb_eval.results.record import find, read
from superb_eval.runs.config import RunConfig, prepare
from superb_eval.runtime.progress import NoProgress
from upstreams import registry

SHORT = ("train.steps=30", "train.eval_every=30", "train.batch_size=8", "train.lr=1e-2")
STUDENT, TEACHER = "hubert_nano@random", "hubert_nano@random:1"


@pytest.fixture(scope="module")
def question(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> LayerQuestion:
    root = tmp_path_factory.mktemp("layers")
    asked = RunConfig(STUDENT, "", tones, overrides=SHORT, out=root / "results", store=root / "store")
    return LayerQuestion(asked, ("ks",), TEACHER)


@pytest.fixture(scope="module")
def found(question: LayerQuestion) -> tuple[LayersRecord, Path]:
    return analyse(question)


def test_one_pass_serves_every_layer_and_the_comparison(
    question: LayerQuestion, found: tuple[LayersRecord, Path]
) -> None:
    record, path = found
    assert layer_record.read(path) == record and path.parent.parent == question.config.out / "layers"
    (ks,), (alike,) = record.tasks, record.alike
    runs = [read(path.parent / probe.run / "result.json") for probe in ks.probes]
    count = runs[0].upstream.layers
    assert [probe.layer for probe in ks.probes] == list(range(count)) and count > 1
    assert [run.features.extracted for run in runs] == [72] + [0] * (count - 1)
    assert [run.recipe["features"]["layer"] for run in runs] == list(range(count))
    assert [(p.value, p.command) for p in ks.probes] == [(run.metrics[0].value, run.command) for run in runs]
    assert len({p.value for p in ks.probes}) > 1, "other layers say other things"
    assert alike.utterances == 18 and np.shape(alike.cka) == np.shape(alike.by_chance) == (count, count)
    assert find(question.config.out) == [], "probes are no runs of the table"


def test_alikeness_is_that_of_the_clips_means(question: LayerQuestion, found: tuple[LayersRecord, Path]) -> None:
    clips = [u.clip for u in prepare(replace(question.config, task="ks"), NoProgress()).corpus.splits["test"]]
    means = []
    for address in (STUDENT, TEACHER):
        rows = dict(extract(registry.load(address), clips, Extraction("pooled"), "cpu"))
        means.append(torch.stack([rows[k] for k in range(len(clips))]).double().numpy())
    assert np.array(found[0].alike[0].cka, dtype=float) == pytest.approx(linear_cka(*means), abs=1e-4)


def test_a_second_call_adds_to_the_first_and_runs_nothing_anew(
    question: LayerQuestion, found: tuple[LayersRecord, Path]
) -> None:
    first, path = found
    written = [p.stat().st_mtime_ns for p in sorted(path.parent.rglob("result.json"))]
    second, _ = analyse(replace(question, against=STUDENT))
    assert second.tasks == first.tasks and [alike.against for alike in second.alike] == [TEACHER, STUDENT]
    assert [p.stat().st_mtime_ns for p in sorted(path.parent.rglob("result.json"))] == written
    assert np.diag(np.array(second.alike[1].cka, dtype=float)) == pytest.approx(1, abs=1e-5)


def test_other_weights_begin_anew_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    record, path = LayersRecord(upstream=STUDENT, fingerprint="another"), tmp_path / "layers.json"
    layer_record.write(record, path)
    found = layer_analysis._existing_record(path, RunConfig(STUDENT, "ks"))
    assert found.fingerprint == registry.load(STUDENT).fingerprint()
    layer_record.write(layer_analysis._existing_record(path, RunConfig(STUDENT, "ks")), path)
    assert layer_analysis._existing_record(path, RunConfig(STUDENT, "ks")) == layer_record.read(path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"layers\.json: can't be read .* Remove it"):
        layer_analysis._existing_record(path, RunConfig(STUDENT, "ks"))


def test_at_most_so_many_utterances_are_compared(question: LayerQuestion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_analysis, "MOST_UTTERANCES", 7)
    run = prepare(replace(question.config, task="ks"), NoProgress())
    chosen = layer_analysis._compared_clips(run)
    of_test = [audio.digest(u.clip) for u in run.corpus.splits["test"]]
    assert len(set(chosen)) == 7 and chosen[0] == of_test[0] and set(chosen) <= set(of_test)
