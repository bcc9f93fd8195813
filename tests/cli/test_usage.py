"""Command lines as people type them: other spellings, wrong guesses, and every help text read as a newcomer would."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from superb_eval.cli.app import app
from tests.cli.test_app import Called, call, refused
from tests.docs import commands

__all__ = ["call"]  # a fixture

GUESSES = {
    # of s3prl
    "run ks -m train -n name": "superb-eval run: there is no option -m. `run` trains and tests; `predict` applies",
    "run -u fbank -d ks": "there is no option -d. The task comes first: superb-eval run ks -u NAME",
    "run ks -u fbank -n exp1": "A run's folder follows from what is run, OUT/UPSTREAM/TASK/RUN; choose OUT with --out.",
    "run ks -u hubert -k hubert.pt": "Weights are part of the address: -u NAME@CHECKPOINT.",
    "run ks -u hubert -c my.yaml": "superb-eval recipe copy ks",
    "run ks -u hubert -l 3": "-o features.layer=N",
    "run ks -u fbank -o results2": "such as train.steps=100. To choose where output goes: --out results2.",
    "run speech_commands -u fbank": "s3prl's speech_commands is ks here.",
    "suite -u fbank --tasks ctc": "s3prl's ctc is pr or sf here.",
    "run ks -u fbank -o config.optimizer.lr=1e-3": "is a key of s3prl. Here it is such as train.lr;",
    # of lm-evaluation-harness
    "run --model hubert --tasks ks": "The task comes first: superb-eval run ks -u NAME; several: superb-eval suite",
    "--model hubert --tasks ks --limit 10": "A command comes first, such as superb-eval run ks -u NAME",
    "suite --model hubert --tasks ks --num_fewshot 5": "there are no shots",
    "suite --model hubert --model_args pretrained=x": "Weights are part of the address: -u NAME@CHECKPOINT.",
    "suite --model hubert --batch_size 8": "-o train.batch_size=N; of extraction: -o features.batch_seconds=S",
    "suite -u fbank --tasks list": "no task is called 'list'. Known: asr, asv,",
    # of anyone
    "run all -u fbank": "several: superb-eval suite -u fbank --tasks all",
    "run ks,pr -u fbank": "several: superb-eval suite -u fbank --tasks ks,pr",
    "run ks -u fbank,hubert": "several: superb-eval suite -u fbank,hubert --tasks ks",
    "run ks fbank": "missing option '-u' / '--upstream'. `superb-eval upstream list` lists upstreams",
    "run ks pr -u fbank": "`run` takes one task, and its upstream with -u",
    "run ks -u fbank --fresh --resume": "--fresh and --resume exclude each other. Give one of them.",
    "run ks -u fbank --limit 0.1": "invalid value for '--limit'",
    "run ks -u fbank --limt 3": "Did you mean '--limit'?",
    "quick -u fbank": "Here the upstream is named without an option",
    "tabel results": "Did you mean 'table'?",
    "evaluate ks": "Type superb-eval run ks -u NAME.",
    "ks -u fbank": "Type superb-eval run ks -u NAME.",
    "models": "Type superb-eval upstream list.",
    "suite --tasks": "option '--tasks' requires an argument.",
    "table --format html": "invalid value for '--format': 'html' is not one of 'rich', 'markdown', 'latex'",
}


@pytest.mark.parametrize("line", GUESSES)
def test_a_wrong_guess_ends_in_a_sentence_that_helps(
    call, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    called: Called = call(*shlex.split(line))
    refused(called, GUESSES[line])
    assert called.out == "" and called.err.count("\n") == 1 and "Usage:" not in called.err
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


def test_an_interrupted_command_ends_in_a_sentence(call, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("superb_eval.runs.evaluate.evaluate_seeds", interrupt)
    called = call("run", "ks", "-u", "fbank")
    assert called.code == 130 and called.err.strip() == "superb-eval: interrupted; the same command resumes it."


SPELLED = {
    "run ks --model fbank --output_path r --limit 3": {"upstream": "fbank", "out": Path("r"), "limit": 3},
    "run ks --upstreams fbank --store_gb 2": {"upstream": "fbank", "store_gb": 2.0},
    "suite --models a,b --task ks --output r --dry_run": {"upstreams": "a,b", "tasks": "ks", "out": Path("r")},
    "table -o t.md": {"out": Path("t.md")},
    "report -o r.html": {"out": Path("r.html")},
    "onnx run -o k.onnx": {"out": Path("k.onnx")},
    "run ks -u fbank -o train.lr=1 --resume": {"override": ["train.lr=1"], "fresh": False},
    "pretrain hubert_toy --out p --resume": {"resume": True},
    "corpus synth --output_dir c --resume": {"out": Path("c")},
}


@pytest.mark.parametrize("line", SPELLED)
def test_what_is_unambiguous_is_accepted(line: str) -> None:
    _, given = commands.parse(["superb-eval", *shlex.split(line)])
    assert {key: given[key] for key in SPELLED[line]} == SPELLED[line]


def test_corpus_export_takes_its_folder_in_three_places(
    call, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    exported = []
    monkeypatch.setattr("superb_eval.export.hf_dataset.export", lambda *given: exported.append(given[:3]))
    for words in (("ks", "--data", tones), (tones, "ks"), ("ks", tones)):
        assert call("corpus", "export", *words, "--out", tmp_path).code == 0
    assert [(corpus.name, task, out) for corpus, task, out in exported] == [(tones.name, "ks", tmp_path)] * 3
    refused(call("corpus", "export", "ks", "--out", tmp_path / "d"), "Give the corpus with --data FOLDER")


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command, groups included, with the words that call it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*words, name))


EVERY = dict(leaves(typer.main.get_command(app)))

LEFTOVERS = re.compile(
    r"<(?![\w|]*\|)|list\[|\brange>|x>=|\[default: \(|None\b|\b(TyperPath|INTEGER)\b|\.\.\.$", re.MULTILINE
)
"""What a framework prints of its own accord: names of types, tuples, sentences that it cut."""


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_is_in_plain_words(call, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    shown = call(*words, "--help").out
    own = shown.partition("\n\n")[2]  # after its usage
    assert not LEFTOVERS.search(own), LEFTOVERS.findall(own)
    assert shown.startswith("Usage: superb-eval")
    about = shown.split("\n\n")[1]
    assert about.strip()[0].isupper() and about.strip().endswith((".", ":")), "it begins with whole sentences"


@pytest.mark.parametrize("words", [words for words in EVERY if not hasattr(EVERY[words], "commands")], ids=" ".join)
def test_every_option_is_explained_and_o_is_an_override(words: tuple[str, ...]) -> None:
    options = [param for param in EVERY[words].params if param.param_type_name == "option"]
    for param in EVERY[words].params:
        assert param.help, f"{' '.join(words)} {param.name}"
    assert all("--override" in param.opts for param in options if "-o" in param.opts)
    assert all(param.opts == ["--out"] for param in options if param.name == "out")


@pytest.mark.parametrize("words", [words for words in EVERY if "\b" in (EVERY[words].help or "")], ids=" ".join)
def test_examples_in_help_are_good_command_lines(words: tuple[str, ...]) -> None:
    found = 0
    for line in EVERY[words].help.splitlines():
        if line.strip().startswith("superb-eval ") and "..." not in line:
            commands.parse(shlex.split(line.partition(" > ")[0], comments=True))
            found += 1
    assert found, "there are examples"
