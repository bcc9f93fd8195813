"""What a task is projected to take: on the official corpora by published sizes, and on a corpus at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from downstreams import registry
from superb_eval import recipe
from superb_eval.analysis import projection, workload
from superb_eval.analysis.projection import HeadCost, TaskProjection, Throughput, TimedBatch
from superb_eval.analysis.workload import Workload
from superb_eval.corpora.load_corpus import read_corpus
from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from superb_eval.features.extract import READERS, Extraction
from superb_eval.features.load_or_extract import SHARD_UTTERANCES
from superb_eval.suite.jobs import SUPERB as TASKS
from upstreams import registry as upstreams

THROUGHPUT = Throughput(layers=3, width=8, stride=320, factor=20.0, weights=4e6, batch=1e6)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece of work is done once and takes a millisecond."""

    def timed(work, device: str) -> float:  # type: ignore[no-untyped-def]
        work()
        return 1e-3

    monkeypatch.setattr(projection, "timed", timed)


def published(task: str) -> Workload:
    return workload.of_published(recipe.load(recipe.find(task, "superb")))


def project(task: str, store_bytes: float = 1e15) -> TaskProjection:
    found = published(task)
    return projection.project(found, THROUGHPUT, projection.head_cost(found, THROUGHPUT, "cpu"), store_bytes, "cpu")


def of_nano(task: str, corpus: Path) -> Workload:
    chosen = recipe.load(recipe.find(task, "nano"))
    return workload.of_corpus(chosen, read_corpus(chosen, corpus))


def test_every_task_has_an_official_size() -> None:
    assert sorted(name for name in registry.names() if registry.get(name).official_corpus) == sorted(TASKS)


def test_a_task_without_an_official_corpus_is_refused(tmp_path: Path) -> None:
    chosen = recipe.load(recipe.find("ks", "superb")).model_copy(update={"task": "gender"})
    with pytest.raises(UserError, match="gender: has no official corpus"):
        workload.of_published(chosen)


def test_a_pooled_task_takes_one_pass_and_its_updates() -> None:
    found = project("ks")
    clips = 51_094 + 6_798 + 3_081
    assert found.size == 4 * 3 * 8 * clips and found.live == 0
    assert found.extracting == pytest.approx(clips / 20)
    assert found.training == pytest.approx(200_000e-3, rel=0.2)


def test_frames_without_room_in_the_store_are_extracted_at_each_pass() -> None:
    """PR: 100 000 updates of 2 x 16 utterances, and dev a hundred times."""
    stored, live = project("pr", 1e15), project("pr", 1.0)
    assert stored.live == 0 and stored.extracting == pytest.approx(stored.audio / 20)
    assert live.extracting < 1
    assert live.live == pytest.approx(12.0 * (3_200_000 + 2_703 * 100 + 2_620) / 20, rel=1e-3)
    assert live.memory == pytest.approx(stored.memory + THROUGHPUT.batch), "a batch of extraction beside the training"


def test_er_counts_its_corpus_once_and_its_folds_five_times() -> None:
    found = project("er")
    assert found.audio == pytest.approx(5_531 * 4.5)
    assert found.training == pytest.approx(5 * 30_000e-3, rel=0.1)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_official_head_takes_an_update(task: str) -> None:
    """On narrow features of a small batch of short utterances."""
    found = replace(published(task), seconds=1.0, padded=1.0)
    if found.recipe.train is not None:
        small = found.recipe.train.model_copy(update={"batch_size": 2})
        found = replace(found, recipe=found.recipe.model_copy(update={"train": small}))
    torch.manual_seed(0)
    assert projection.head_cost(found, THROUGHPUT, "cpu").seconds > 0


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_has_a_workload_of_a_corpus_at_hand(task: str, ten_tasks: Path) -> None:
    found = of_nano(task, ten_tasks)
    assert found.clips and found.seconds and found.audio and sum(found.utterances)
    cost = projection.head_cost(found, THROUGHPUT, "cpu")
    assert cost.seconds > 0 and cost.memory > 0


def test_a_workload_counts_its_corpus_and_the_padding_of_its_batches(tones: Path) -> None:
    found = of_nano("ks", tones)
    assert (found.clips, found.utterances, found.folds) == (72, (36, 18, 18), 1)
    assert 0.4 < found.seconds < found.padded < 0.9, "a batch is as long as its longest utterance"


def test_a_search_counts_queries_and_documents(melodies: Path) -> None:
    found = of_nano("qbe", melodies)
    assert found.searched == (4, 8)
    cost = projection.head_cost(found, THROUGHPUT, "cpu")
    timed = projection.TIMED_PAIRS_CPU[0] * projection.TIMED_PAIRS_CPU[1]
    ways = len(found.task().ways())  # type: ignore[attr-defined]
    assert cost.seconds == pytest.approx(1e-3 / timed * 4 * 8 * (3 + 1) * ways)


def test_a_corpus_that_is_still_to_be_made_has_the_labels_of_the_official_one() -> None:
    found = workload.of_size(recipe.load(recipe.find("pr", "nano")), 100, 150.0)
    assert found.utterances == (60, 20, 20) and found.seconds == 1.5 and len(found.labels) > 70
    assert projection.head_cost(found, THROUGHPUT, "cpu").seconds > 0


def test_extraction_is_timed_in_its_own_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 s, or as many clips as a shard has, and longer ones on a GPU; on a CPU a few seconds of one."""
    upstream = upstreams.load("hubert_nano@random")
    pr, ks = published("pr"), published("ks")
    pr_batch, ks_batch = (projection.timed_batch(upstream, each, "cuda") for each in (pr, ks))
    assert pr_batch.clips > 60 // 12 and 12.0 <= pr_batch.samples / 16_000 < 12 * 1.2 and pr_batch.share == 1
    assert ks_batch.clips == SHARD_UTTERANCES and ks_batch.extraction.kind == "pooled"
    part = projection.timed_batch(upstream, ks, "cpu")
    assert 1 < part.clips * part.samples / 16_000 <= projection.TIMED_SECONDS and 0 < part.share < 0.2
    assert projection.timed_batch(upstream, pr, "cpu").samples == 16_000 * projection.TIMED_SECONDS
    lengths = [replace(ks, seconds=seconds) for seconds in (1.0, 1.25, 1.46, 1.77, 3.0)]
    parts = {replace(projection.timed_batch(upstream, each, "cpu"), share=1.0) for each in lengths}
    assert len(parts) == 2, "corpora of about the same clips are timed once"
    sizes: list[tuple[int, ...]] = []
    forward_padded = type(upstream).forward_padded

    def counted(self, batch: PaddedWavs) -> dict[str, list[Tensor]]:  # type: ignore[no-untyped-def]
        sizes.append(tuple(batch.samples.shape))
        return forward_padded(self, batch)

    monkeypatch.setattr(type(upstream), "forward_padded", counted)
    measured = projection.measure(upstream, TimedBatch(3, 6_400, Extraction("pooled", precision="bf16"), 0.5), "cpu")
    assert set(sizes) == {(3, 6_400)}
    assert measured.factor == pytest.approx(3 * 6_400 / 16_000 / 1e-3) and measured.stride == 320
    assert measured.weights == sum(4 * t.numel() for t in (*upstream.parameters(), *upstream.buffers()))


def test_features_that_an_upstream_lacks_are_named() -> None:
    with pytest.raises(UserError, match="fbank has no feature 'paper'. It has: hidden_states"):
        projection.measure(upstreams.load("fbank"), TimedBatch(1, 16_000, Extraction("pooled", "paper")), "cpu")


def test_memory_counts_weights_and_the_larger_of_extraction_and_training() -> None:
    found, base = published("ks"), projection.PROCESS_BYTES + THROUGHPUT.weights
    small = projection.project(found, THROUGHPUT, HeadCost(1.0, 5.0), 1e15, "cpu")
    large = projection.project(found, THROUGHPUT, HeadCost(1.0, 5e9), 1e15, "cpu")
    assert small.memory == base + THROUGHPUT.batch and large.memory == base + 5e9


def test_a_gpu_waits_for_audio_only_where_reading_takes_longer(tones: Path) -> None:
    found, head = of_nano("ks", tones), HeadCost(1.0, 1.0)
    assert 0 < found.decoding < 1
    slow, fast = replace(found, decoding=1.0), replace(found, decoding=0.01)
    seconds = [projection.project(each, THROUGHPUT, head, 1e15, "cuda").extracting for each in (slow, fast)]
    assert seconds == pytest.approx([found.audio_seconds / READERS, found.audio_seconds / 20])
    alone = projection.project(slow, THROUGHPUT, head, 1e15, "cpu").extracting
    assert alone == pytest.approx(found.audio_seconds * 1.05), "a core reads and computes"
