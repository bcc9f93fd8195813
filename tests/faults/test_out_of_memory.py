"""Memory that runs out: batches shrink, it is said, nothing is left out, and the result is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from downstreams import registry as tasks
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.features.extract import Extraction, extract
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import out_of_memory
from tests import memory
from upstreams import registry
from upstreams.base import Upstream

SHORT = ("train.steps=6", "train.eval_every=3", "train.batch_size=8", "train.lr=1e-2")


def cuda(size: int) -> Exception:
    return torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} GiB")


def cpu(size: int) -> Exception:
    return RuntimeError(f"[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: {size} bytes")


def test_what_is_a_shortage_and_what_is_not() -> None:
    assert all(out_of_memory.is_out_of_memory(error) for error in (MemoryError(), cuda(1), cpu(1)))
    assert not any(
        out_of_memory.is_out_of_memory(error) for error in (RuntimeError("shape"), ValueError("memory"), KeyError())
    )


def real_shortage() -> Exception:
    """What torch raises where the system refuses."""
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
def test_the_systems_own_refusal_is_recognised() -> None:
    assert out_of_memory.is_out_of_memory(real_shortage())


@pytest.mark.skipif(out_of_memory._trim() is None or not Path("/proc/self/status").is_file(), reason="glibc on Linux")
def test_what_is_free_between_blocks_in_use_goes_back_to_the_system() -> None:
    blocks = [b"x" * (60_000 + k % 7) for k in range(4_000)]  # 240 MB, each below what the C library would map alone
    held = memory.anonymous()
    kept = blocks[::100]
    del blocks
    out_of_memory.trim_memory()
    assert memory.anonymous() < held - 150_000_000 and len(kept) == 40


def scarce(
    upstream: Upstream, most: int, raised: Callable[[int], Exception], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Let an upstream hold so many waveforms at once; return the sizes of batches that it was given."""
    seen: list[int] = []
    forward = type(upstream).forward

    def limited(self: Any, wavs: list[torch.Tensor]) -> Any:
        seen.append(len(wavs))
        if len(wavs) > most:
            raise raised(len(wavs))
        return forward(self, wavs)

    monkeypatch.setattr(type(upstream), "forward", limited)
    return seen


@pytest.mark.parametrize("raised", [cuda, cpu, lambda size: MemoryError()])
def test_a_batch_that_memory_can_not_hold_is_computed_in_halves(
    tones: Path, raised: Callable[[int], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = registry.load("hubert_nano@random")
    clips = [Clip(path) for path in sorted((tones / "audio/test").glob("*.flac"))]
    how = Extraction("pooled", batch_seconds=8.0)
    expected = dict(extract(upstream, clips, how, "cpu"))
    seen = scarce(upstream, 2, raised, monkeypatch)
    with pytest.warns(
        UserWarning, match=r"memory ran out on a batch of \d+ clips, \d+ s: it is computed in two halves"
    ):
        found = dict(extract(upstream, clips, how, "cpu"))
    assert max(seen) > 2 and found.keys() == expected.keys() == set(range(len(clips))), "none is left out"
    for i, features in expected.items():
        torch.testing.assert_close(found[i], features, rtol=1e-4, atol=1e-5)


def test_a_clip_that_is_too_long_by_itself_is_named(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = registry.load("hubert_nano@random")
    scarce(upstream, 0, cpu, monkeypatch)
    clips = [Clip(path) for path in sorted((tones / "audio/test").glob("*.flac"))[:2]]
    with (
        pytest.warns(UserWarning, match="memory ran out"),
        pytest.raises(UserError, match=r"\.flac: memory runs out on this clip of 1? ?\d* ?s"),
    ):
        dict(extract(upstream, clips, Extraction("pooled"), "cpu"))


def test_another_error_of_an_upstream_is_no_shortage(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = registry.load("hubert_nano@random")
    scarce(upstream, 0, lambda size: RuntimeError("shapes differ"), monkeypatch)
    clips = [Clip(next((tones / "audio/test").glob("*.flac")))]
    with pytest.raises(RuntimeError, match="shapes differ"):
        dict(extract(upstream, clips, Extraction("pooled"), "cpu"))


def hungry(task: str, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let losses of a task be computed of so many utterances at once."""
    seen: list[int] = []
    kind = tasks.get(task)
    loss = kind.loss  # type: ignore[attr-defined]

    def limited(self: Any, output: Any, lengths: Any, targets: Any) -> Any:
        seen.append(len(targets))
        if len(targets) > most:
            raise cuda(len(targets))
        return loss(self, output, lengths, targets)

    monkeypatch.setattr(kind, "loss", limited)
    return seen


def test_training_goes_on_in_smaller_parts_and_learns_the_same(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "a", store=tmp_path / "s")
    expected, folder = evaluate(order)
    seen = hungry("ks", 3, monkeypatch)
    with pytest.warns(UserWarning, match=r"step 1: memory ran out; batches are computed in 2 parts from here on"):
        found, other = evaluate(
            RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "b", store=tmp_path / "s")
        )
    assert seen[0] == 8 and seen[1] == 4 and max(seen[2:]) <= 3 and sum(seen[2:]) >= 6 * 8 - 3
    losses = [[point["loss"] for point in record.training[0].rates[0].curve] for record in (expected, found)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    from safetensors.torch import load_file

    ours, theirs = (load_file(place / "probe-1.safetensors") for place in (other, folder))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4)


def test_an_utterance_that_is_too_much_by_itself_ends_the_training(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hungry("ks", 0, monkeypatch)
    with (
        pytest.warns(UserWarning, match="memory ran out"),
        pytest.raises(UserError, match="step 1: memory runs out for a single utterance"),
    ):
        evaluate(RunConfig("fbank_nonorm", "ks", tones, overrides=SHORT, out=tmp_path / "a", store=tmp_path / "s"))


def test_parts_weigh_what_their_losses_are_means_over() -> None:
    """Diarisation's loss is a mean over frames, the others' are means over utterances."""
    sd = tasks.get("sd")
    assert sd.weight(None, [torch.zeros(30, 2), torch.zeros(50, 2)]) == 80  # type: ignore[attr-defined, arg-type]
    assert tasks.get("asr").weight(None, [[1], [2, 3]]) == 2  # type: ignore[attr-defined, arg-type]
