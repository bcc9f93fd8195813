"""An upstream, the learned weights of its layers and a trained head as one ONNX model: a waveform in, an output out.

The input is `waveform` [1, samples] at 16 kHz, of any length that the upstream takes; the output is that of the task's
head before decoding: [1, classes], or [1, frames, symbols]. The file holds the labels of the outputs as metadata.
It is written only where onnxruntime gives the same numbers as torch on lengths that it wasn't traced with.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from superb_eval.data import audio
from superb_eval.errors import UserError
from superb_eval.runs.predict import TrainedProbe, load_trained
from superb_eval.runtime import atomic_files, own_file
from upstreams.base import Upstream
from upstreams.hubert import Hubert

OPSET = 17
TRACED, CHECKED = 24_000, (8_000, 16_001, 48_000)
"""Lengths in samples: the one that the model is traced with, and those that it is compared on afterwards."""

PRODUCER = "superb-eval"
MARK = re.compile(rb"\A.{0,32}" + PRODUCER.encode(), re.DOTALL)
"""The producer of the models, which stands at the beginning of their files."""

LIMIT = 1e-4
"""Largest difference between torch and onnxruntime, relative to the largest value of an output."""


@dataclass(frozen=True)
class Exported:
    """A model that was written: its task, outputs' shape for 1 s, and the largest relative difference from torch's."""

    task: str
    shape: tuple[int, ...]
    difference: float

    def summary(self) -> str:
        """Return one line: task, shapes and difference."""
        shape = " x ".join(map(str, self.shape))
        return f"{self.task}, waveform [1, samples] to [{shape}] for 1 s; within {self.difference:.0e} of torch"


class EndToEnd(nn.Module):
    """Upstream, featurizer and head in sequence, for one waveform [1, samples] at a time."""

    def __init__(self, run: TrainedProbe) -> None:
        super().__init__()
        self.upstream, self.probe = run.upstream, run.probe
        chosen = run.recipe.features
        self.key, self.each_frame, self.pooled = chosen.key, chosen.normalize, chosen.pooled and run.task.pooled
        self.gain: float = 10 ** (run.recipe.corpus.gain_db / 20)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the head's output, by operations that can be traced."""
        scaled = waveform * self.gain
        return self._head(self._traceable(scaled) if isinstance(self.upstream, Hubert) else self._encode(scaled))

    def reference(self, waveform: Tensor) -> Tensor:
        """Return the head's output, by the same code as a run."""
        return self._head(self._encode(waveform * self.gain))

    def _encode(self, waveform: Tensor) -> list[Tensor]:
        return list(self.upstream([waveform[0]])[self.key])

    def _traceable(self, waveform: Tensor) -> list[Tensor]:
        """Return the hidden states without masks and lengths, which tracing would fix to those of its waveform."""
        if self.upstream.normalise:
            centred = waveform - waveform.mean()
            waveform = centred / (centred.square().mean() + 1e-5).sqrt()
        states: list[Tensor] = self.upstream.encode(waveform)  # type: ignore[operator]
        return states[-1:] if self.key == "paper" else states

    def _head(self, states: list[Tensor]) -> Tensor:
        hidden = torch.stack(states, dim=2).float()  # [1, frames, layers, dim]
        if self.each_frame:
            hidden = nn.functional.layer_norm(hidden, (int(hidden.shape[-1]),))
        if self.pooled:  # the mean may come last: the weighted sum is linear
            return self.probe.head(self.probe.featurizer(hidden).mean(dim=1), torch.ones(1, dtype=torch.long))  # type: ignore[no-any-return]
        lengths = torch.full((1,), hidden.shape[1], dtype=torch.long)
        return self.probe(hidden, lengths)  # type: ignore[no-any-return]


def export(run: Path, out: Path, trusted: Sequence[str] = ()) -> Exported:
    """Write the model of a finished run, of its first fold; `trusted` is the code that its upstream may run.

    Raises:
        UserError: see `superb_eval.runs.predict`; onnx isn't installed; or its output would differ
            at other lengths than the traced one.
    """
    _check_installed()
    target = own_file.check(out, MARK, "model")
    found = load_trained(run, trusted=trusted)
    if found.recipe.corpus.trim_silence:
        raise UserError(
            f"{run}: its recipe trims silence before the upstream, which ONNX can't. Train "
            "one with -o corpus.trim_silence=false."
        )
    model = EndToEnd(found).eval().requires_grad_(False)
    made: list[Exported] = []

    def save(path: Path) -> None:
        with _quiet():
            _write(model, path, run)
        _add_metadata(path, found)
        made.append(_compare(model, path, found.record.task, run))

    atomic_files.write(target, save)
    return made[0]


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed. Run pip install 'superb-eval[onnx]'.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the tracer's warnings about Python values, whose effect `_compare` finds, and the graphs that it prints."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _silent_streams():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _silent_streams() -> Iterator[None]:
    """Hide what compiled code prints: torch's a page of its graph, before the error that it raises."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with open(os.devnull, "w", encoding="utf8") as nowhere:
            for descriptor in streams:
                os.dup2(nowhere.fileno(), descriptor)
        yield
    finally:
        for descriptor, saved in streams.items():
            os.dup2(saved, descriptor)
            os.close(saved)


def _write(model: EndToEnd, path: Path, run: Path) -> None:
    if isinstance(model.upstream, Hubert):
        _remove_masks(model.upstream)
    try:
        # The tracer: torch.export refuses heads that reverse frames, as both ASR's and SF's do.
        with _one_sequence():
            torch.onnx.export(
                model,
                (_noise(TRACED),),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["waveform"],
                output_names=["output"],
                dynamic_axes={"waveform": {1: "samples"}},
            )
    except Exception as error:  # torch raises errors of many kinds for what it can't write
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{run}: can't be written as ONNX: {type(error).__name__}: {first}") from error


@contextmanager
def _one_sequence() -> Iterator[None]:
    """Register `pad_sequence` with the exporter: of one waveform's frames it makes a batch of one."""

    from torch.onnx import symbolic_helper, utils

    def symbolic(graph: Any, sequences: Any, batch_first: bool, value: float, side: str = "right") -> Any:
        del value, side  # nothing is padded
        axis = graph.op("Constant", value_t=torch.tensor([0 if batch_first else 1]))
        return graph.op("Unsqueeze", *sequences.node().inputs(), axis)

    kinds = symbolic_helper.parse_args("v", "b", "f", "s")
    utils.register_custom_op_symbolic("aten::pad_sequence", kinds(symbolic), OPSET)
    try:
        yield
    finally:
        utils.unregister_custom_op_symbolic("aten::pad_sequence", OPSET)


def _remove_masks(upstream: Upstream) -> None:
    """Make masked normalisation plain: nothing is padded here."""
    for module in upstream.modules():
        if hasattr(module, "valid"):
            vars(module)["valid"] = None


def _add_metadata(path: Path, found: TrainedProbe) -> None:
    import onnx

    model: Any = onnx.load(str(path))
    metadata = {
        "task": found.record.task,
        "labels": json.dumps(found.task.labels, ensure_ascii=False),
        "upstream": found.record.upstream.address,
        "sample_rate": str(audio.SAMPLE_RATE),
        "fingerprint": found.record.upstream.fingerprint,
    }
    onnx.helper.set_model_props(model, metadata)
    model.producer_name = PRODUCER
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _compare(model: EndToEnd, path: Path, task: str, run: Path) -> Exported:
    """Compare the file with torch on lengths that it wasn't traced with.

    Raises:
        UserError: it fails there, or its output differs from torch's.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class but this
        raise UserError(f"{run}: onnxruntime can't open its ONNX model: {str(error)[:200]}") from error
    worst = 0.0
    shape: tuple[int, ...] = ()
    for samples in CHECKED:
        wav = _noise(samples)
        with torch.inference_mode():
            expected = model.reference(wav)
        try:
            output = torch.from_numpy(session.run(None, {"waveform": wav.numpy()})[0])
        except Exception as error:  # onnxruntime's errors have no common class but this
            raise UserError(
                f"{run}: its ONNX model takes no {samples} samples: the upstream's code fixes lengths when "
                "it is traced. Keep Python's len() and int() out of its forward."
            ) from error
        if output.shape != expected.shape or not torch.isfinite(output).all():
            raise UserError(
                f"{run}: its ONNX model gives {list(output.shape)} for {samples} samples, torch "
                f"{list(expected.shape)}: the upstream's code fixes lengths when it is traced."
            )
        worst = max(worst, float((output - expected).abs().max() / expected.abs().max().clamp_min(1e-12)))
        shape = tuple(expected.shape) if samples == CHECKED[1] else shape
    if worst > LIMIT:
        raise UserError(f"{run}: its ONNX model is {worst:.0e} off torch's output, at most {LIMIT:.0e} is allowed.")
    return Exported(task, shape, worst)


def _noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))
