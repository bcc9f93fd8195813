"""Out of memory: batches are split with a warning, nothing is left out, and the result is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from downstreams import registry as tasks
from downstreams.batching.targets import Targets
from superb_eval.data.audio import Clip
from superb_eval.data.padding import PaddedWavs
from superb_eval.errors import UserError
from superb_eval.features.extract import Extraction, extract
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import out_of_memory
from tests.rounding import assert_near_losses
from upstreams import registry
from upstreams.base import Upstream

SHORT = ("train.steps=6", "train.eval_every=1", "train.batch_size=8", "train.lr=1e-2")


def cuda(size: int) -> Exception:
    return torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} GiB")


def cpu(size: int) -> Exception:
    return RuntimeError(f"[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: {size} bytes")


def test_out_of_memory_errors_are_distinguished_from_others() -> None:
    assert all(out_of_memory.is_out_of_memory(error) for error in (MemoryError(), cuda(1), cpu(1)))
    assert not any(
        out_of_memory.is_out_of_memory(error) for error in (RuntimeError("shape"), ValueError("memory"), KeyError())
    )


def real_error() -> Exception:
    """Return what torch raises where the system refuses memory."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 10**8, before[1]))
    try:
        torch.zeros(10**9)
    except Exception as error:
        return error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    raise AssertionError("there was memory")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="Linux")
def test_a_real_error_is_recognised() -> None:
    assert out_of_memory.is_out_of_memory(real_error())


def limit_upstream(
    upstream: Upstream, limit: int, raised: Callable[[int], Exception], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Let an upstream process at most `limit` waveforms at once; return the sizes of its batches."""
    sizes: list[int] = []
    forward_padded = type(upstream).forward_padded

    def limited(self: Any, batch: PaddedWavs) -> Any:
        sizes.append(len(batch.lengths))
        if len(batch.lengths) > limit:
            raise raised(len(batch.lengths))
        return forward_padded(self, batch)

    monkeypatch.setattr(type(upstream), "forward_padded", limited)
    return sizes


@pytest.mark.parametrize("raised", [cuda, cpu, lambda size: MemoryError()])
def test_a_batch_that_does_not_fit_is_computed_in_halves(
    tones: Path, raised: Callable[[int], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = registry.load("hubert_nano@random")
    clips = [Clip(path) for path in sorted((tones / "audio/test").glob("*.flac"))]
    extraction = Extraction("pooled", batch_seconds=8.0)
    expected = dict(extract(upstream, clips, extraction, "cpu"))
    sizes = limit_upstream(upstream, 2, raised, monkeypatch)
    with pytest.warns(
        UserWarning, match=r"memory ran out on a batch of \d+ clips, \d+ s: it is computed in two halves"
    ):
        features_by_clip = dict(extract(upstream, clips, extraction, "cpu"))
    assert max(sizes) > 2 and features_by_clip.keys() == expected.keys() == set(range(len(clips))), "none is left out"
    for i, features in expected.items():
        torch.testing.assert_close(features_by_clip[i], features, rtol=1e-4, atol=1e-5)


def test_a_single_clip_that_does_not_fit_is_named(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = registry.load("hubert_nano@random")
    limit_upstream(upstream, 0, cpu, monkeypatch)
    clips = [Clip(path) for path in sorted((tones / "audio/test").glob("*.flac"))[:2]]
    with (
        pytest.warns(UserWarning, match="memory ran out"),
        pytest.raises(UserError, match=r"\.flac: memory runs out on this clip of 1? ?\d* ?s"),
    ):
        dict(extract(upstream, clips, Extraction("pooled"), "cpu"))


def test_other_errors_of_an_upstream_are_raised(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = registry.load("hubert_nano@random")
    limit_upstream(upstream, 0, lambda size: RuntimeError("shapes differ"), monkeypatch)
    clips = [Clip(next((tones / "audio/test").glob("*.flac")))]
    with pytest.raises(RuntimeError, match="shapes differ"):
        dict(extract(upstream, clips, Extraction("pooled"), "cpu"))


def limit_task(task: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a task compute losses of at most `limit` utterances at once; return the sizes of its batches."""
    sizes: list[int] = []
    kind = tasks.get(task)
    loss = kind.loss  # type: ignore[attr-defined]

    def limited(self: Any, *inputs: Any) -> Any:
        sizes.append(len(inputs[-1]))  # the targets
        if len(inputs[-1]) > limit:
            raise cuda(len(inputs[-1]))
        return loss(self, *inputs)

    monkeypatch.setattr(kind, "loss", limited)
    return sizes


def test_training_continues_in_smaller_parts_with_the_same_result(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "a", store=tmp_path / "s")
    expected, _ = evaluate(config)
    sizes = limit_task("ks", 3, monkeypatch)
    with pytest.warns(UserWarning, match=r"step 1: memory ran out; batches are computed in 2 parts from here on"):
        record, _ = evaluate(
            RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "b", store=tmp_path / "s")
        )
    assert sizes[0] == 8 and sizes[1] == 4 and max(sizes[2:]) <= 3 and sum(sizes[2:]) >= 6 * 8 - 3
    losses = [[point["loss"] for point in each.training[0].rates[0].curve] for each in (record, expected)]
    assert_near_losses(losses[0], losses[1], rel=1e-5)


def test_a_single_utterance_that_does_not_fit_ends_the_training(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_task("ks", 0, monkeypatch)
    with (
        pytest.warns(UserWarning, match="memory ran out"),
        pytest.raises(UserError, match="step 1: memory runs out for a single utterance"),
    ):
        evaluate(RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "a", store=tmp_path / "s"))


def test_parts_weigh_what_their_losses_are_means_over() -> None:
    """Diarisation's loss is a mean over frames, the others' are means over utterances."""
    sd = tasks.get("sd")
    assert sd.weight(None, Targets.of([torch.zeros(30, 2), torch.zeros(50, 2)])) == 80  # type: ignore[attr-defined, arg-type]
    assert tasks.get("asr").weight(None, Targets.of([[1], [2, 3]])) == 2  # type: ignore[attr-defined, arg-type]
