"""The command line, as its users meet it: what it prints, what it exits with, and how it says what is wrong."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
import yaml
from typer.testing import CliRunner

from superb_eval import recipe
from superb_eval.cli import app
from superb_eval.cli.sections import SectionedGroup
from superb_eval.version import __version__
from tests.results import runs

SHORT = ["-o", "train.steps=40", "-o", "train.eval_every=20", "-o", "train.lr=1e-2"]


class Called:
    """The outcome of a call of the command line."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str | Path) -> None:
        self.code = 0
        arguments, sys.argv = sys.argv, ["superb-eval", *map(str, words)]
        try:
            app.main()
        except SystemExit as exit_:
            self.code = int(exit_.code or 0)
        finally:
            sys.argv = arguments
        captured = capsys.readouterr()
        self.out, self.err = captured.out, captured.err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    return lambda *words: Called(capsys, *words)


def test_run_then_table(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for upstream in ("fbank", "fbank_nonorm"):
        called = call("run", "ks", "-u", upstream, "--data", tones, "--out", tmp_path / "r", *SHORT)
        assert called.code == 0, called.err
        assert "95 % interval" in called.out and "chance: 33.33" in called.out
    again = call("run", "ks", "-u", "fbank", "--data", tones, "--out", tmp_path / "r", *SHORT)
    assert "done before" in again.err
    shown = call("table", tmp_path / "r", "--speakers", "these", "--format", "markdown")
    assert "| fbank_nonorm | 0.00 |" in shown.out and "not SUPERB" in shown.out
    assert "ACC % ↑" in call("table", tmp_path / "r").out


def test_run_and_suite_print_what_training_warns_of(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    swept, out = (*SHORT, "-o", "train.lr={sweep: [1.0e+30, 1e-2]}"), ("--data", tones, "--out", tmp_path / "r")
    warning = "learning rate 1e+30 diverged and was left out after step 20:"
    with pytest.warns(UserWarning, match="diverged"):
        ran = call("run", "ks", "-u", "fbank", *out, *swept)
    assert ran.code == 0 and f"warning: {warning}" in ran.out
    suite = call("suite", "-u", "fbank_nonorm", "--tasks", "ks", *out, *swept, "--jobs", "1")
    assert suite.code == 0 and f"warning: fbank_nonorm ks: {warning}" in suite.err


@pytest.mark.parametrize("command", ["run", "suite", "plan", "layers", "predict", "cost"])
def test_a_missing_gpu_is_one_sentence_before_anything_is_read(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:  # type: ignore[no-untyped-def]
    """No audio is synthesised or read, and no unfinished run is left behind."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    out = tmp_path / "results"
    arguments = {
        "run": ["ks", "-u", "fbank", "--out", str(out)],
        "suite": ["-u", "fbank", "--tasks", "ks", "--out", str(out)],
        "plan": ["-u", "fbank", "--tasks", "ks", "--out", str(out)],
        "layers": ["fbank", "--out", str(out)],
        "predict": [str(out), "a.wav"],
        "cost": ["fbank"],
    }
    ran = call(command, *arguments[command], "--device", "cuda:1")
    assert ran.code == 2 and ran.out == ""
    assert "superb-eval: --device cuda:1: 0 CUDA GPU(s) are found" in ran.err
    assert not out.exists() and not any((tmp_path / "corpora").glob("*"))
    unknown = call(command, *arguments[command], "--device", "gpu")
    assert unknown.code == 2 and "--device gpu: no such device. Expected cpu, cuda, cuda:N" in unknown.err


@pytest.mark.parametrize("command", ["pretrain", "distill"])
def test_a_training_without_its_gpu_leaves_no_folder(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:  # type: ignore[no-untyped-def]
    """Its audio isn't read: this folder has none, which would be the message otherwise."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    recipe, out = {"pretrain": "hubert_toy", "distill": "distilhubert_toy"}[command], tmp_path / "out"
    (tmp_path / "audio").mkdir()
    ran = call(command, recipe, "--out", out, "--data", f"audio={tmp_path}/audio", "--device", "cuda")
    assert ran.code == 2 and "superb-eval: 1 GPU(s) requested, 0 found. Lower --devices, or use cpu." in ran.err
    assert not out.exists()


@pytest.mark.parametrize("command", [["pretrain", "hubert_toy"], ["distill", "distilhubert_toy"]], ids=lambda c: c[0])
def test_a_training_that_cannot_start_leaves_no_folder(call, tmp_path: Path, command: list[str]) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    for source in ("nowhere", "empty"):
        out = tmp_path / "out"
        called = call(*command, "--out", out, "--data", f"audio={tmp_path / source}")
        assert called.code == 2 and str(tmp_path / source) in called.err
        assert not out.exists()


def test_a_trained_head_answers_for_files_and_folders(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    call("run", "ks", "-u", "fbank_nonorm", "--data", tones, "--out", tmp_path / "r", *SHORT, "-o", "train.steps=200")
    (folder,) = (tmp_path / "r" / "fbank_nonorm" / "ks").iterdir()
    called = call("predict", folder, tones / "audio" / "test")
    answers = dict(line.split("\t") for line in called.out.splitlines())
    right = [Path(path).stem.rpartition("-")[0] == answer for path, answer in answers.items()]
    assert len(right) == 18 and sum(right) > 12
    as_json = json.loads(call("predict", folder, tones / "audio" / "test", "--format", "json").out)
    assert {row["file"]: row["answer"] for row in as_json} == answers
    refused(call("predict", tmp_path, tones), "result.json")
    scored = json.loads(call("predict", folder, tones / "audio" / "test", "--format", "json", "--scores").out)
    for row in scored:
        probabilities = list(row["scores"].values())
        assert row["answer"] == next(iter(row["scores"])) and probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-3), "all three classes are among the best five"
    line = call("predict", folder, scored[0]["file"], "--scores").out.strip().split("\t")
    assert line[1] == answers[line[0]] and re.fullmatch(rf"{line[1]} 0\.\d{{3}}(, \w+ 0\.\d{{3}}){{2}}", line[2])
    refused(call("predict", folder, tones / "ks"), "holds no audio file")


def test_help_teaches_at_every_level(call) -> None:  # type: ignore[no-untyped-def]
    for words in (
        [],
        ["run"],
        ["table"],
        ["upstream"],
        ["upstream", "check"],
        ["corpus", "synth"],
        ["corpus", "check"],
    ):
        called = call(*words, "--help")
        assert called.code == 0
        assert "superb-eval" in called.out


def test_the_help_page_has_every_command_in_a_section_and_whole_sentences(call) -> None:  # type: ignore[no-untyped-def]
    shown = call("--help").out
    sections = [line[:-1] for line in shown.splitlines() if re.fullmatch(r"[A-Z]\w+:", line)]
    assert sections == ["Options", "Evaluate", "Compare", "Upstreams", "Train", "Inspect"]
    assert shown.index("Evaluate:") < shown.index("  run ") < shown.index("  suite ") < shown.index("Compare:")
    assert "..." not in shown.partition("Evaluate:")[2]


def test_a_command_of_no_section_is_an_error() -> None:
    group = typer.Typer(cls=SectionedGroup, rich_markup_mode=None)
    group.command("nowhere")(lambda: None)
    group.command("elsewhere", rich_help_panel="Train")(lambda: None)
    with pytest.raises(ValueError, match="nowhere: its rich_help_panel"):
        CliRunner().invoke(group, ["--help"], catch_exceptions=False)


def test_seeds_are_a_number_or_a_list_in_run_and_suite(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = ("--data", tones, "--out", tmp_path / "r", *SHORT)
    assert call("run", "ks", "--model", "fbank", *out, "--seeds", "1,3").code == 0
    names = {path.name.split("-")[1] for path in (tmp_path / "r" / "fbank" / "ks").iterdir()}
    assert names == {"seed1", "seed3"}
    dry = call("suite", "-u", "fbank", "--tasks", "ks", *out, "--seeds", "4", "--dry-run")
    assert dry.code == 0 and "4 runs" in dry.out and "ks x 4 seeds" in dry.out
    assert len(list((tmp_path / "r" / "fbank" / "ks").iterdir())) == 2
    for wrong in ("0", "a", "1,-2", ""):
        refused(call("run", "ks", "-u", "fbank", *out, "--seeds", wrong), "expected a number of seeds, such as 3")


def test_version(call) -> None:  # type: ignore[no-untyped-def]
    assert call("--version").out == f"superb-eval {__version__}\n"


def test_recipe_list_has_a_sentence_for_each(call) -> None:  # type: ignore[no-untyped-def]
    lines = call("recipe", "list").out.splitlines()
    assert len(lines) == len(recipe.shipped((*recipe.PROFILES, "pretrain", "distill")))
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_recipe_copy_is_a_recipe_to_change_and_run(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "mine.yaml"
    assert call("recipe", "copy", "ks", "--profile", "mini", "--out", target).code == 0
    assert target.read_text() == (recipe.folder() / "mini" / "ks.yaml").read_text()
    target.write_text(target.read_text().replace("steps: 1000", "steps: 7"))
    assert "steps: 7" in call("recipe", "show", target).out
    refused(call("recipe", "copy", "ks", "--out", target), "exists. Give another file with --out")
    assert "steps: 7" in target.read_text()


def test_upstream_list_has_sizes_and_where_weights_are_from(call) -> None:  # type: ignore[no-untyped-def]
    rows = {line.split()[0]: line for line in call("upstream", "list").out.splitlines() if line}
    assert "13 x 768, 94.4 M" in rows["hubert"] and "downloaded: facebook/hubert-base-ls960" in rows["hubert"]
    assert "included" in rows["distilhubert_mini"] and "no weights" in rows["fbank"]
    assert "none: @CHECKPOINT, @random" in rows["hubert_nano"]


def test_help_loads_nothing_heavy() -> None:
    """0.3 s are promised; torch, pandas or transformers alone would take longer."""
    program = (
        "import sys; sys.argv = ['superb-eval', '--help']\n"
        "from superb_eval.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted(sys.modules))"
    )
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'pandas'", "'numpy'", "'transformers'", "'pydantic'", "'soundfile'"):
        assert heavy not in modules


def test_what_reads_results_loads_no_torch(tmp_path: Path) -> None:
    """All ten tasks, whose predictions are scored again to compare upstreams."""
    for upstream, errs in (("a", 0.1), ("b", 0.3)):
        runs.ten_tasks(tmp_path / "out", upstream, errs, seed=0)
    for words in (["table", str(tmp_path / "out")], ["report", str(tmp_path / "out"), "-o", str(tmp_path / "r.html")]):
        program = (
            f"import sys; sys.argv = {['superb-eval', *words]}\n"
            "from superb_eval.cli.app import main\n"
            "try: main()\n"
            "except SystemExit as end: assert not end.code\n"
            "print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.split()[-1] == "False", words


def test_known_rates_are_listed_with_their_source(call) -> None:  # type: ignore[no-untyped-def]
    for task in ("sid", "asv", "ks"):
        for line in call("recipe", "rates", task).out.splitlines():
            found = re.fullmatch(rf"\w+ on {task}: lr ([\d.e-]+)( gave .+?)? \((.+)\)", line)
            assert found and 1e-7 <= float(found[1]) <= 1 and found[3], line
    assert "hubert_base on sid: lr 0.1 gave" in call("recipe", "rates", "sid").out
    assert call("recipe", "rates", "none").out == "no rate is known for none\n"


def test_layers_are_a_table(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Its headings have two lines; once, the line end was printed as a character's number."""
    ran = call("layers", "fbank", "--tasks", "ks", "--data", tones, "--out", tmp_path, *SHORT)
    assert ran.code == 0 and "u000a" not in ran.out
    assert "KS ACC %" in ran.out and "fbank, layer by layer" in ran.out


def test_recipe_show_is_a_recipe(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shown = call("recipe", "show", "ks", "-o", "train.steps=123")
    assert yaml.safe_load(shown.out)["train"]["steps"] == 123
    (tmp_path / "again.yaml").write_text(shown.out)
    assert call("recipe", "show", tmp_path / "again.yaml").out == shown.out
    assert "recipes/superb/ks.yaml" in call("recipe", "list").out
    assert "[default: superb]" in call("recipe", "show", "--help").out
    assert yaml.safe_load(shown.out)["profile"] == "superb"


def test_upstreams_and_tasks_are_listed_and_shown(call) -> None:  # type: ignore[no-untyped-def]
    assert "fbank_nonorm" in call("upstream", "list").out
    assert "94371712" in call("upstream", "show", "hubert").out
    assert "keyword spotting" in call("task", "list").out


def test_check_prints_a_line_a_rule_and_both_figures_of_batch_invariance(call) -> None:  # type: ignore[no-untyped-def]
    called = call("upstream", "check", "hubert_nano@random")
    assert called.code == 0, called.out
    assert "batch invariance" in called.out and "1e-04" in called.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_their_options(call, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """As the script that --install-completion writes asks for them."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # the option then takes the shell's name
    script = CliRunner().invoke(app.app, ["--show-completion", shell], prog_name="superb-eval").output
    assert f"_SUPERB_EVAL_COMPLETE=complete_{shell}" in script
    monkeypatch.setenv("_SUPERB_EVAL_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    for line, expected in {"superb-eval ups": "upstream", "superb-eval run --ups": "--upstream"}.items():
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        assert expected in call().out


def test_doctor_says_what_works(call) -> None:  # type: ignore[no-untyped-def]
    called = call("doctor")
    assert called.code == 0
    assert all(word in called.out for word in ("torch", "FLAC", "s3prl", "synth"))


def test_corpus_synth_and_check(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("corpus", "synth", "--size", "nano", "--tasks", "ks", "--out", tmp_path / "c").code == 0
    checked = call("corpus", "check", "ks", "--data", tmp_path / "c", "--full")
    assert checked.code == 0 and "utterances" in checked.out and "_silence_" in checked.out
    ran = call("run", "recipes/nano/ks.yaml", "-u", "fbank_nonorm", "--data", tmp_path / "c", "--out", tmp_path / "r")
    assert ran.code == 0, ran.err
    assert "synthetic speech" in call("table", tmp_path / "r").out


@pytest.fixture
def broken(tones: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tones, tmp_path / "broken")


def refused(called: Called, *words: str) -> None:
    """Exit code 2, one message, no traceback."""
    assert called.code == 2, called.out + called.err
    assert "Traceback" not in called.err
    for word in words:
        assert word in called.err


def test_an_unknown_key_is_refused_with_a_near_miss(call, tones: Path) -> None:  # type: ignore[no-untyped-def]
    refused(
        call("run", "ks", "-u", "fbank", "--data", tones, "-o", "train.stesp=1"), "train.stesp", "Did you mean 'steps'"
    )


def test_a_missing_corpus_folder_is_refused(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    refused(call("run", "ks", "-u", "fbank", "--data", tmp_path / "none"), "no such corpus folder", "--data")


def test_a_wrong_label_is_refused_with_its_line(call, broken: Path) -> None:  # type: ignore[no-untyped-def]
    path = broken / "ks" / "test.csv"
    path.write_text(path.read_text().replace(",yes\n", ",maybe\n", 1))
    refused(call("run", "ks", "-u", "fbank", "--data", broken), "test.csv", "line 2", "'maybe'", "never seen in train")


def test_a_truncated_flac_is_refused_by_name(call, broken: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = next((broken / "audio" / "dev").glob("*.flac"))
    path.write_bytes(path.read_bytes()[:2000])
    refused(call("run", "ks", "-u", "fbank", "--data", broken, "--out", tmp_path / "r", *SHORT), path.name)


def test_a_stereo_file_at_44100_hz_is_accepted(call, broken: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = next((broken / "audio" / "test").glob("*.flac"))
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((44_100, 2)), 44_100)
    called = call("run", "ks", "-u", "fbank", "--data", broken, "--out", tmp_path / "r", *SHORT)
    assert called.code == 0, called.err


def test_a_misspelt_upstream_is_refused_with_a_near_miss(call, tones: Path) -> None:  # type: ignore[no-untyped-def]
    refused(call("run", "ks", "-u", "fbank_nonrom", "--data", tones), "Did you mean 'fbank_nonorm'")


def test_a_pickle_that_wants_to_run_code_is_refused(call, tones: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "proof",)

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Hostile()))
    refused(call("run", "ks", "-u", f"hubert_nano@{tmp_path / 'weights.pt'}", "--data", tones), "weights.pt", "refused")
    assert not (tmp_path / "proof").exists()


def test_words_the_command_line_does_not_know(call) -> None:  # type: ignore[no-untyped-def]
    for words in (["runn"], ["run", "ks"], ["run", "ks", "-u", "fbank", "--sede", "1"], ["table", "/no/such"]):
        assert call(*words).code == 2


def test_the_official_protocol_needs_its_corpus(call) -> None:  # type: ignore[no-untyped-def]
    refused(call("run", "ks", "-u", "fbank", "--profile", "superb"), "needs its corpus", "--data")
