"""Upstream + head as one ONNX model: onnxruntime's answers are those of the run, at every length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from superb_eval.cli import new_upstream
from superb_eval.cli.app import app
from superb_eval.errors import UserError
from superb_eval.export import onnx as onnx_export
from superb_eval.runs import evaluate, predict
from superb_eval.runs.config import RunConfig

onnx = pytest.importorskip("onnx", reason="extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="extra onnx")

SHORT = ("train.steps=20", "train.eval_every=10", "train.lr=1e-2")


@pytest.fixture(scope="module")
def run(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of KS on a small HuBERT."""
    return _run(tones, tmp_path_factory.mktemp("results"), "hubert_nano@random")


def _run(tones: Path, out: Path, upstream: str, *overrides: str) -> Path:
    order = RunConfig(upstream, "ks", tones, "nano", (*SHORT, *overrides), out=out, store=out / "store")
    return evaluate.evaluate(order)[1]


def _answers(model: Path, wavs: list[Path]) -> list[str]:
    session = onnxruntime.InferenceSession(str(model))
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    inputs = [soundfile.read(wav, dtype="float32")[0][None] for wav in wavs]
    return [labels[int(session.run(None, {"waveform": wav})[0].argmax())] for wav in inputs]


def test_the_runs_own_answers_come_out(run: Path, tones: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["onnx", str(run), "-o", str(tmp_path / "ks.onnx")])
    assert result.exit_code == 0, result.output
    assert "ks, waveform [1, samples] to [1 x 3] for 1 s; within" in result.output
    files = sorted((tones / "audio/test").glob("*.flac"))
    assert len({len(soundfile.read(file)[0]) for file in files}) > 10, "lengths differ"
    assert _answers(tmp_path / "ks.onnx", files) == [found.answer for found in predict.predict(run, files)]


def test_the_gain_of_the_recipe_is_part_of_it(tones: Path, tmp_path: Path) -> None:
    louder = _run(tones, tmp_path, "hubert_nano@random", "corpus.gain_db=20")
    onnx_export.export(louder, tmp_path / "loud.onnx")
    files = sorted((tones / "audio/test").glob("*.flac"))
    assert _answers(tmp_path / "loud.onnx", files) == [found.answer for found in predict.predict(louder, files)]


@pytest.mark.parametrize("overrides", [("features.layer=last",), ("features.normalize=true", "features.pooled=false")])
def test_layers_and_norms_of_the_recipe_are_part_of_it(tones: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    made = onnx_export.export(_run(tones, tmp_path, "hubert_nano@random", *overrides), tmp_path / "m.onnx")
    assert made.difference < 1e-5


def test_an_encoder_of_ones_own(tones: Path, tmp_path: Path) -> None:
    address = new_upstream.write("my_encoder", tmp_path)[1]
    made = onnx_export.export(_run(tones, tmp_path, address), tmp_path / "mine.onnx", [address])
    assert (made.task, made.shape) == ("ks", (1, 3)) and made.difference < 1e-5


def test_recognisers_give_frames(tmp_path: Path) -> None:
    """ASR's head reverses frames for its second direction, which depends on the length."""
    from downstreams import registry as tasks
    from downstreams.base import Setup
    from superb_eval.features.featurizer import Featurizer
    from superb_eval.probing.probe import Probe
    from superb_eval.recipe import find, load
    from upstreams import registry

    letters = ["<pad>", "<eos>", "<unk>", "a", "b"]
    for name, labels in (("asr", {"characters": letters}), ("pr", letters)):
        recipe = load(find(name, "nano"), ())
        kind = tasks.get(name)
        task = kind(Setup(labels, kind.Head.model_validate(recipe.head), 320))
        probe = Probe(Featurizer(3), task.head(192)).eval()
        found = predict.TrainedProbe(None, recipe, registry.load("hubert_nano@random"), task, probe)
        model = onnx_export.EndToEnd(found).eval().requires_grad_(False)
        onnx_export._write(model, tmp_path / "m.onnx", tmp_path)
        made = onnx_export._compare(model, tmp_path / "m.onnx", name, tmp_path)
        assert made.difference < 1e-5 and made.shape[:2] == (1, 49)


FIXED = """
import torch
class Enc(torch.nn.Module):
    downsample_rate = 160
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 8, 400, 160)
    def forward(self, wavs):
        x = self.conv(torch.stack(wavs)[:, None]).transpose(1, 2)
        return x * torch.linspace(0, 1, (len(wavs[0]) - 400) // 160 + 1)[:, None]
"""


def test_what_tracing_fixes_is_refused(tones: Path, tmp_path: Path) -> None:
    (tmp_path / "enc.py").write_text(FIXED)
    code = tmp_path / "enc.py"
    fixed = _run(tones, tmp_path, f"{code}:Enc")
    with pytest.raises(UserError, match="fixes lengths when it is traced"):
        onnx_export.export(fixed, tmp_path / "m.onnx", [str(code)])
    assert not (tmp_path / "m.onnx").exists()


def test_trimmed_silence_is_refused(tones: Path, tmp_path: Path) -> None:
    trimmed = _run(tones, tmp_path, "fbank_nonorm", "corpus.trim_silence=true")
    with pytest.raises(UserError, match="trims silence"):
        onnx_export.export(trimmed, tmp_path / "m.onnx")


def test_what_cannot_be_written_is_one_sentence(tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fbank = _run(tones, tmp_path, "fbank_nonorm")
    capfd.readouterr()
    with pytest.raises(UserError, match=r"can't be written as ONNX|fixes lengths when it is traced"):
        onnx_export.export(fbank, tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", ""), "nor a page of torch's graph"


def test_without_the_extra(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed\. Run pip install 'superb-eval\[onnx\]'"):
        onnx_export.export(run, tmp_path / "m.onnx")


def test_the_file_holds_its_metadata(run: Path, tmp_path: Path) -> None:
    onnx_export.export(run, tmp_path / "m.onnx")
    model = onnx.load(str(tmp_path / "m.onnx"))
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert (facts["task"], facts["upstream"], facts["sample_rate"]) == ("ks", "hubert_nano@random", "16000")
    assert [i.name for i in model.graph.input] == ["waveform"] and [o.name for o in model.graph.output] == ["output"]
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    upstream = predict.load_trained(run).upstream
    assert weights > 0.9 * upstream.count_parameters(), "weights are part of the file"
