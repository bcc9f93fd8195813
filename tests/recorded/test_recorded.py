"""The documents' figures are those of recorded runs, and the recorded runs are of what is shipped."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from superb_eval import recipe
from superb_eval.errors import UserError
from superb_eval.results import code_versions
from superb_eval.results.table import build
from tests.docs import documents
from tests.recorded import collecting, grids, pages, recorded_set
from tests.recorded.recorded_set import RecordedSet, figures_of
from tests.recorded.wording import Figures
from tests.results.runs import answers, known_training, new_record, vary, write_run

SETS = ("embedded", "second", "codes", "human")

INTERVAL = re.compile(r"\[[-+]?\d+\.\d+, [-+]?\d+\.\d+\]|\([-+]?\d+\.\d+ to [-+]?\d+\.\d+\)")


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: str(path.relative_to(documents.ROOT)))
def test_figures_are_those_of_recorded_runs(path: Path) -> None:
    text = documents.text_of(path)
    again = "`python -m tests.recorded write` writes what is between the marks, from tests/recorded/templates"
    assert pages.rendered(text, path.name) == text, again
    for line in pages.without_marked(text).splitlines():
        assert not INTERVAL.search(line), f"{path.name}: {line[:80]} is not between marks. {again}"


def test_every_template_is_in_one_document() -> None:
    used = [name for path in pages.paths() for name in pages.names_in(documents.text_of(path))]
    assert sorted(used) == sorted(path.name.removesuffix(pages.ENDING) for path in pages.TEMPLATES.iterdir())


@pytest.mark.parametrize("path", sorted((recipe.folder() / "distill/logs").glob("*.csv")), ids=lambda path: path.stem)
def test_every_line_of_a_log_has_all_columns(path: Path) -> None:
    assert grids.lines(path.stem)


def test_a_line_with_an_unquoted_comma_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "distill/logs/broken.csv"
    log.parent.mkdir(parents=True)
    log.write_text("change,loss\nthe same, frozen,1.0\n")
    monkeypatch.setattr(recipe, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="longer"):
        grids.lines("broken")


@pytest.mark.parametrize("name", SETS)
def test_cells_are_the_means_of_the_runs(name: str) -> None:
    recorded = recorded_set.read(name)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in recorded.runs:
        for metric, value in figures_of(run).items():
            values[run["upstream"], f"{run['task']}.{metric}"].append(value)
    cells = {
        (upstream, metric): cell
        for upstream in recorded.upstreams
        for metric in recorded.metrics
        if (cell := recorded.find(upstream, metric))
    }
    assert values.keys() == cells.keys()
    for key, cell in cells.items():
        assert float(cell["value"]) == pytest.approx(fmean(values[key]), abs=1e-3), key
        assert int(cell["seeds"]) == len(values[key]), key


@pytest.mark.parametrize("name", SETS)
def test_recorded_runs_are_of_what_is_shipped(name: str) -> None:
    """A changed recipe, a task's new version or other weights need `python -m tests.recorded collect` of new runs."""
    from upstreams import registry

    weights = {name: registry.load(name).identity()["weights"] for name in ("hubert_mini", "distilhubert_mini")}
    for run in recorded_set.read(name).runs:
        about = f"{name}: {run['upstream']} {run['task']} seed {run['seed']}"
        loaded = recipe.load(recipe.find(run["task"], "mini"), list(filter(None, run["overrides"].split("; "))))
        assert loaded.digest().startswith(run["recipe_digest"]), about
        assert run["code"] == code_versions.versions(run["task"]), about
        assert weights.get(run["upstream"], run["weights"]).startswith(run["weights"]), about


def test_recorded_files_are_small_and_name_no_folder() -> None:
    paths = list(collecting.folder().iterdir())
    assert sum(path.stat().st_size for path in paths) < 300_000
    for path in paths:
        assert not re.search(r"(?<![\w.])~?/(tmp|work|home|root|Users|mnt)\b", documents.text_of(path)), path.name


@pytest.mark.parametrize(("upstream", "name"), [("hubert_mini", "teacher"), ("distilhubert_mini", "student")])
def test_the_cards_state_the_training_that_the_logs_record(upstream: str, name: str) -> None:
    last = grids.log(name)[-1]
    card = " ".join((documents.ROOT / f"upstreams/weights/{upstream}/README.md").read_text(encoding="utf8").split())
    assert f"{last['step']:,} updates".replace(",", " ") in card and f"{last['hours']:.0f} hours of audio" in card


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KS, three seeds of two upstreams; the second is better, and its address is a folder."""
    folder = tmp_path_factory.mktemp("study")
    for upstream, right in (("fbank", 0.4), ("hubert@/my/cut", 0.9)):
        record = vary(
            new_record(upstream, "ks"), command=f"superb-eval run ks -u {upstream} --data /my/pack -o train.steps=9"
        )
        for seed in range(3):
            write_run(folder, vary(record, seed=seed), answers(right, seed))
    return folder


@pytest.fixture(scope="module")
def collected(study: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordedSet:
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch, known_training(None):
        patch.setattr(collecting, "folder", lambda: folder)
        collecting.collect(study, "small", "1234567", ["hubert@/my/cut=hubert@cut"])
    return recorded_set.read("small", folder)


def test_collect_stores_what_the_table_shows(collected: RecordedSet, study: Path) -> None:
    with known_training(None):
        shown = build.collect(study, build.TableOptions(against="fbank"))[0][0].cell("hubert@/my/cut", ("ks", "acc"))
    assert shown is not None and shown.low is not None and shown.high is not None and shown.difference is not None
    figures, d = Figures(collected), shown.difference
    assert figures.figure("hubert@cut", "ks.acc") == f"{shown.value:.1f} [{shown.low:.1f}, {shown.high:.1f}]"
    assert figures.difference("hubert@cut", "fbank", "ks.acc") == f"{d.value:+.1f} [{d.low:.1f}, {d.high:.1f}]"
    assert figures.table({"hubert@cut": "cut"}).splitlines()[0] == "| | KS ACC ↑ |"
    assert [(run["upstream"], run["seed"], run["overrides"]) for run in collected.runs[:2]] == [
        ("fbank", "0", "train.steps=9"),
        ("fbank", "1", "train.steps=9"),
    ]
    assert collected.runs[-1]["command"] == "superb-eval run ks -u hubert@cut --data pack -o train.steps=9"


def test_runs_that_another_set_holds_are_not_stored_twice(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "folder", lambda: tmp_path)
    rename = ["hubert@/my/cut=hubert@cut"]
    with known_training(None):
        collecting.collect(study, recorded_set.SHARED, "1234567", rename)
        collecting.collect(study, "small", "7654321", rename, shared=["fbank"])
    written = [run["upstream"] for run in csv.DictReader((tmp_path / "small.runs.csv").open(encoding="utf8"))]
    assert written == ["hubert@cut"] * 3
    runs = recorded_set.read("small", tmp_path).runs
    assert [(run["upstream"], run["commit"]) for run in runs] == [
        *[("fbank", "1234567")] * 3,
        *[("hubert@cut", "7654321")] * 3,
    ]


def test_sentences_follow_the_recorded_tests(collected: RecordedSet) -> None:
    figures = Figures(collected)
    assert figures.tasks("hubert@cut", "fbank") == "ahead in every task"
    assert figures.tasks("fbank", "hubert@cut") == "behind in every task"
    assert figures.verdict("hubert@cut", "fbank", "ks.acc") == "ahead of"
    unlike = [{**c, "higher_is_better": "False"} if c["metric"] == "acc" else c for c in collected.cells]
    assert (
        Figures(RecordedSet("small", collected.runs, tuple(unlike))).verdict("hubert@cut", "fbank", "ks.acc")
        == "behind"
    )
    for recorded, word in (("False", "inconclusive in every task"), ("", "not tested, since the variance")):
        changed = tuple({**c, "distinguishable": recorded} for c in collected.cells)
        assert Figures(RecordedSet("small", collected.runs, changed)).tasks("hubert@cut", "fbank").startswith(word)
    with pytest.raises(UserError, match="holds no runs of fbnk. Did you mean 'fbank'"):
        figures.figure("fbnk", "ks.acc")


def test_provenance_names_seeds_that_differ(collected: RecordedSet) -> None:
    about = {"processor": "AMD EPYC", "capability": "AVX2", "cores": "2", "torch": "2.11.0", "python": "3.11.7"}
    runs = tuple({**run, **about} for run in collected.runs)
    text = Figures(RecordedSet("small", (*runs[:1], *runs[3:]), ())).provenance(["fbank", "hubert@cut"])
    assert text == (
        "Recorded at commit 1234567, seed 0 (`hubert@cut` seeds 0 to 2), on two cores of an AMD EPYC (AVX2), "
        "torch 2.11 and Python 3.11. Changed settings: KS `train.steps=9`."
    )


@pytest.mark.parametrize(
    ("commit", "renames", "message"),
    [
        ("final", ["hubert@/my/cut=cut"], "expected a commit's 7 to 40 hex digits"),
        ("1234567", [], "names a folder of this machine. Add --rename hubert@/my/cut=NAME"),
        ("1234567", ["hubert@/my/cut=fbank"], "are to name rows, each once"),
        ("1234567", ["hubert@/my/cut=cut", "hubert=x"], "got hubert. The rows: "),
        ("1234567", ["cut"], "expected OLD=NEW"),
    ],
)
def test_collect_refuses(commit: str, renames: list[str], message: str, study: Path) -> None:
    with pytest.raises(UserError, match=message):
        collecting.collect(study, "small", commit, renames)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- recorded: nothing -->\n<!-- end -->\n", "nothing.md.j2 is missing"),
        ("<!-- recorded: results -->\n", "stands alone"),
        ("a\n<!-- end -->\n", "<!-- end --> stands alone"),
    ],
)
def test_a_wrong_mark_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pages.rendered(text, "README.md")


def test_a_mark_is_written_anew() -> None:
    text = "before\n\n<!-- recorded: training-student -->\nold\n<!-- end -->\n\nafter [1.0, 2.0]\n"
    done = pages.rendered(text, "README.md")
    assert "old" not in done and done.startswith("before") and done.endswith("after [1.0, 2.0]\n")
    assert pages.rendered(done, "README.md") == done and "| 50 | 12 | 1.33 |" in done
    assert INTERVAL.findall(pages.without_marked(done)) == ["[1.0, 2.0]"]
