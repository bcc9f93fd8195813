"""Distillation from end to end on toy audio: it resumes exactly, and its student loads everywhere."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from superb_eval.cli import app
from superb_eval.errors import UserError
from superb_eval.pretraining import recipe, trainer
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.distill import distill
from superb_eval.pretraining.distillation import Distillation
from superb_eval.pretraining.recipe import DistillationRecipe
from superb_eval.runtime.progress import NoProgress
from tests.rounding import assert_near_losses
from upstreams import registry

TINY = ("data.batch_seconds=4", "optim.steps=6", "optim.log_every=1", "student.dropout=0.2", "student.hidden=null")


Toy = Callable[..., DistillationRecipe]


@pytest.fixture(scope="session")
def toy(teacher: Path) -> Toy:
    """The toy recipe with that teacher, as a function of overrides."""
    fixed = (*TINY, f"teacher.address=hubert@{teacher}")
    return lambda *overrides: recipe.load("distilhubert_toy", "distill", DistillationRecipe, (*fixed, *overrides))


def train(settings: DistillationRecipe, speech: Path, out: Path) -> Path:
    return distill(settings, [f"audio={speech}"], out, "cpu", 1, NoProgress())


def curve(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def same(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def states(upstream: Any, wav: Tensor) -> list[Tensor]:
    with torch.no_grad():
        hidden_states: list[Tensor] = upstream([wav])["hidden_states"]
    return hidden_states


@pytest.fixture(scope="session")
def student(toy: Toy, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student trained for 30 updates; read it, don't change it."""
    out = tmp_path_factory.mktemp("distilled")
    return train(toy("optim.steps=30", "student.dropout=0.0", "optim.lr=3e-3"), speech, out)


def test_the_loss_of_every_layer_falls(student: Path) -> None:
    lines = curve(student.parent)
    for part in ("loss", "l1_1", "cosine_1", "l1_2", "cosine_2"):
        values = [float(line[part]) for line in lines]
        assert sum(values[-5:]) < 0.9 * sum(values[:5]), part


def test_the_student_loads_everywhere(student: Path) -> None:
    from transformers import AutoModel

    wav = 0.1 * torch.randn(9_000, generator=torch.Generator().manual_seed(0))
    model = AutoModel.from_pretrained(student).eval()
    assert type(model).__name__ == "HubertModel"
    with torch.no_grad():
        theirs = model(wav[None], output_hidden_states=True).hidden_states
    for address in (f"distilhubert@{student}", f"hubert@{student}"):
        for mine, other in zip(states(registry.load(address), wav), theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    assert not [name for name in load_file(student / "model.safetensors") if "head" in name or "shared" in name]
    assert len(states(registry.load(f"distilhubert_heads@{student}"), wav)) == 2 + 2


def test_the_model_card_describes_the_student(student: Path) -> None:
    text = (student / "README.md").read_text(encoding="utf8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "transformers"
    assert "Teacher: hubert (" in body
    assert "30 of 30 updates on 0.01 h" in body
    assert "hidden states 1, 2." in body


def test_interrupted_and_resumed_distillation_equals_an_uninterrupted_one(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy("optim.accumulate=2", "loss.standardise=2", "teacher.dropout=true")
    uninterrupted = train(settings, speech, tmp_path / "uninterrupted")
    update = trainer._Trainer._update

    def stop_at_2(self: Any, module: Any, optimizer: Any, batches: Any, stop: bool, save: bool) -> Any:
        return update(self, module, optimizer, batches, stop or self.state.step + 1 == 2, save)

    monkeypatch.setattr(trainer._Trainer, "_update", stop_at_2)
    with pytest.raises(KeyboardInterrupt):
        train(settings, speech, tmp_path / "resumed")
    assert len(curve(tmp_path / "resumed")) == 3, "the signal was read while the next update was running"
    resumed = train(settings, speech, tmp_path / "resumed")
    assert same(uninterrupted, resumed)
    assert [line["loss"] for line in curve(uninterrupted.parent)] == [line["loss"] for line in curve(resumed.parent)]


@pytest.mark.parametrize(
    ("override", "layers", "terms"),
    [
        ("loss.layers=[2]", 1, {"l1_2", "cosine_2"}),
        ("loss.cosine=0", 1, {"l1_1", "cosine_1", "l1_2", "cosine_2"}),
        ("loss.l2=1", 1, {"l1_1", "l2_1", "cosine_1", "l1_2", "l2_2", "cosine_2"}),
        ("student.initialise=[]", 1, {"l1_1", "cosine_1", "l1_2", "cosine_2"}),
        ("student.layers=2", 2, {"l1_1", "cosine_1", "l1_2", "cosine_2"}),
        ("data.share=0.5", 1, {"l1_1", "cosine_1", "l1_2", "cosine_2"}),
    ],
)
def test_ablations_are_one_override(
    toy: Toy, student: Path, speech: Path, tmp_path: Path, override: str, layers: int, terms: set[str]
) -> None:
    folder = train(toy("optim.steps=1", override), speech, tmp_path)
    assert registry.load(f"distilhubert@{folder}").card.layers == 1 + layers
    assert {name for name in curve(tmp_path)[0] if name[-2:] in ("_1", "_2")} == terms
    assert not same(folder, student) if layers == 1 else True


def test_overrides_reach_the_loss(toy: Toy) -> None:
    assert toy("loss.cosine=0").loss.cosine == 0
    shipped = recipe.load("distilhubert", "distill", DistillationRecipe)
    assert (shipped.loss.layers, shipped.loss.l1, shipped.loss.cosine) == ((4, 8, 12), 1.0, 1.0)
    assert (shipped.optim.steps, shipped.optim.lr, shipped.optim.warmup) == (200_000, 2e-4, 0.07)
    assert (shipped.data.batch_clips, shipped.student.layers, shipped.student.projection_norm) == (24, 2, False)
    replay = recipe.load("s3prl_default", "distill", DistillationRecipe)
    assert (replay.loss.layers, replay.loss.padding, replay.teacher.dropout) == ((4, 12), True, True)


@pytest.mark.parametrize("name", ["distilhubert", "s3prl_default", "distilhubert_mini", "distilhubert_toy"])
def test_shipped_recipes_are_valid(name: str) -> None:
    assert recipe.load(name, "distill", DistillationRecipe).teacher.address


def call_cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["superb-eval", *map(str, words)])
    code = 0
    try:
        app.main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return lambda *words: call_cli(capsys, monkeypatch, *words)


def test_the_command_takes_a_teacher(called: Call, speech: Path, tmp_path: Path) -> None:
    words = ["distill", "distilhubert_toy", "--out", tmp_path, "--data", f"audio={speech}", "--teacher"]
    short = [word for text in (*TINY, "optim.steps=2", "loss.layers=[5]") for word in ("-o", text)]
    code, out, _ = called(*words, "hubert_mini@random:3", *short)
    assert (code, out) == (0, f"student: distilhubert@{tmp_path / 'model'}\n")
    assert "Teacher: hubert_mini" in (tmp_path / "model" / "README.md").read_text(encoding="utf8")
    code, _, err = called(*words, "hubert_mini@random:4", *short)
    assert code == 2 and "holds a training by another recipe" in err
    with FileLock(tmp_path / ".lock"):
        code, _, err = called(*words, "hubert_mini@random:3", *short)
    assert code == 2 and "another process runs this training" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "loss.layers=[1, 9]"], "the teacher hubert_nano has hidden states 0 to 2"),
        (["-o", "teacher.address=null"], "no teacher is named. Give one with --teacher"),
        (["--teacher", "hubert_nan"], "Did you mean 'hubert_nano'?"),
        (["-o", "loss.cosin=0"], "unknown key 'loss.cosin'. Did you mean 'cosine'?"),
        (["-o", "student.initialise=[conv]"], "student.initialise"),
        (["-o", "student.hidden=96"], "in the teacher and [96, 192] in the student"),
        (["-o", "student.hidden=97", "-o", "student.initialise=[]"], "can't be built"),
        (["--data", "sound=x"], "the recipe has no source 'sound'"),
    ],
)
def test_bad_input_is_one_sentence(called: Call, speech: Path, tmp_path: Path, words: list[str], message: str) -> None:
    command = ["distill", "distilhubert_toy", "--out", tmp_path / "out"]
    code, _, err = called(*command, "--data", f"audio={speech}", *words)
    assert code == 2 and message in err and "Traceback" not in err
    assert not (tmp_path / "out" / "last.pt").exists()


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoint(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = Distillation.targets
    calls = []

    def nan_at_3(self: Distillation, batch: Batch) -> Tensor:
        calls.append(1)
        return targets(self, batch) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(Distillation, "targets", nan_at_3)
    with pytest.raises(UserError, match="update 3: the loss is nan on .*flac.*the checkpoint of update 2 remains"):
        train(toy("optim.save_minutes=0"), speech, tmp_path)
    assert "2 of 6 updates" in (tmp_path / "model" / "README.md").read_text(encoding="utf8")
    assert registry.load(f"distilhubert@{tmp_path / 'model'}").card.layers == 2


def test_a_full_disk_leaves_checkpoint_and_student(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(source).name == "README.md" and "3 of 6 updates" in Path(source).read_text(encoding="utf8"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr("superb_eval.pretraining.export.os.replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        train(toy("optim.save_minutes=0"), speech, tmp_path)
    monkeypatch.undo()
    assert registry.load(f"distilhubert@{tmp_path / 'model'}").card.layers == 2
    assert not [path for path in (tmp_path / "model").iterdir() if path.name.startswith(".")]
    resumed, uninterrupted = (
        train(toy("optim.save_minutes=0"), speech, tmp_path / name) for name in ("", "uninterrupted")
    )
    assert same(resumed, uninterrupted)


def test_the_checkpoint_of_another_network_is_refused(toy: Toy, speech: Path, tmp_path: Path) -> None:
    train(toy("optim.steps=1"), speech, tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    torch.save({**state, "weights": {"mean": torch.zeros(3, 3)}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="is the checkpoint of another network or seed"):
        train(toy("optim.steps=1"), speech, tmp_path)


def test_release_and_controls(called: Call, student: Path, tmp_path: Path) -> None:
    """Stored in 16 bits with its card; truncated, or the front end alone."""
    wav = 0.1 * torch.randn(9_000, generator=torch.Generator().manual_seed(0))
    code, out, _ = called("upstream", "export", f"distilhubert@{student}", "--out", tmp_path / "release")
    assert (code, out) == (0, f"exported: {tmp_path / 'release'}\n")
    expected = states(registry.load(f"distilhubert@{student}"), wav)
    for mine, full in zip(states(registry.load(f"distilhubert@{tmp_path / 'release'}"), wav), expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, full, rtol=0.02, atol=0.02)
    assert str(tmp_path.parent) not in (tmp_path / "release" / "config.json").read_text(encoding="utf8")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (student, tmp_path / "release")]
    assert sizes[1] < 0.55 * sizes[0]  # names take space too in such a small file
    assert (tmp_path / "release" / "README.md").read_bytes() == (student / "README.md").read_bytes()
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == [
        ".superb-eval",
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    called("upstream", "export", student, "--out", tmp_path / "bare")  # the folder alone
    assert (tmp_path / "bare" / "README.md").read_bytes() == (student / "README.md").read_bytes()
    called("upstream", "export", "hubert_mini", "--out", tmp_path / "again")
    assert "**Training data**" in (tmp_path / "again" / "README.md").read_text(encoding="utf8")
    called("upstream", "export", "hubert_mini@random", "--out", tmp_path / "untrained")
    assert not (tmp_path / "untrained" / "README.md").exists()
    for layers in (1, 0):
        folder = tmp_path / f"cut{layers}"
        assert (
            called(
                "upstream",
                "export",
                "hubert_nano@random",
                "--keep-layers",
                layers,
                "--dtype",
                "float32",
                "--out",
                folder,
            )[0]
            == 0
        )
        cut, entire = states(registry.load(f"hubert@{folder}"), wav), states(registry.load("hubert_nano@random"), wav)
        assert len(cut) == layers + 1
        for mine, full in zip(cut, entire, strict=False):
            torch.testing.assert_close(mine, full)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fbank"], "fbank: can't be exported: it isn't one of this package's HuBERT-like upstreams"),
        (["hubert_nano@random", "--keep-layers", "5"], "--keep-layers 5: the network has 2 transformer layers"),
        (["hubert_nano@random", "--card", "nowhere.md"], "nowhere.md"),
    ],
)
def test_bad_exports_are_one_sentence(called: Call, tmp_path: Path, words: list[str], message: str) -> None:
    code, _, err = called("upstream", "export", *words, "--out", tmp_path / "out")
    assert code == 2 and message in err
    assert not (tmp_path / "out").exists()


def test_weights_too_large_for_16_bits_are_refused(called: Call, student: Path, tmp_path: Path) -> None:
    shutil.copytree(student, tmp_path / "large")
    weights = load_file(student / "model.safetensors")
    weights["encoder.layer_norm.weight"][0] = 1e5
    save_file(weights, tmp_path / "large" / "model.safetensors", metadata={"format": "pt"})
    words = ("upstream", "export", f"distilhubert@{tmp_path / 'large'}", "--out", tmp_path / "out")
    code, _, err = called(*words)
    assert code == 2 and "encoder.layer_norm.weight is not finite in float16" in err
    assert called(*words, "--dtype", "bfloat16")[0] == 0


def test_bf16_gives_nearly_the_curve_of_float32(toy: Toy, speech: Path, tmp_path: Path) -> None:
    """The teacher stays in float32, so its targets are the same."""
    for precision in ("float32", "bf16"):
        train(toy(f"optim.precision={precision}", "student.dropout=0"), speech, tmp_path / precision)
    ours, theirs = ([float(line["loss"]) for line in curve(tmp_path / name)] for name in ("bf16", "float32"))
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.02)
    weights = load_file(tmp_path / "bf16" / "model" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_a_teacher_in_bf16(toy: Toy, speech: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bf16"):
        train(toy(f"teacher.precision={precision}", "student.dropout=0"), speech, tmp_path / precision)
    ours, theirs = ([float(line["loss"]) for line in curve(tmp_path / name)] for name in ("bf16", "float32"))
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(toy: Toy, speech: Path, tmp_path: Path) -> None:
    words = [
        "distill",
        "distilhubert_toy",
        "--data",
        f"audio={speech}",
        "-o",
        f"teacher.address={toy().teacher.address}",
    ]
    words += [
        word for text in (*TINY, "student.dropout=0", "optim.steps=4", "data.batch_seconds=8") for word in ("-o", text)
    ]
    for count in (1, 2):
        command = [
            sys.executable,
            "-m",
            "superb_eval.cli.app",
            *words,
            "--out",
            str(tmp_path / str(count)),
            "--devices",
            str(count),
        ]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one, two = ([float(line["loss"]) for line in curve(tmp_path / str(count))] for count in (1, 2))
    assert len(one) == 4
    assert_near_losses(two, one)
