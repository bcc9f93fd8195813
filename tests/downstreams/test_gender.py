"""The eleventh task: its labels, and that it took no more than a file and a recipe to add."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from downstreams import registry
from downstreams.gender import GenderIdentification
from downstreams.sid import SpeakerIdentification
from superb_eval import recipe
from superb_eval.data.audio import Clip
from superb_eval.data.manifest import Corpus, Manifest, Utterance
from superb_eval.errors import UserError
from superb_eval.results.stats.overall import METRICS
from superb_eval.results.table import build
from superb_eval.runs import config
from superb_eval.runs.evaluate import evaluate
from superb_eval.suite import jobs
from tests.conftest import TONES, write_tones

ROOT = Path(__file__).parents[2]


def corpus(**speakers: dict[str, str]) -> Corpus:
    """One row for each speaker, in all splits alike; and its labels."""
    rows = tuple(
        Utterance(f"{name}-1", Clip(Path("a.flac")), name, {"speaker": name, **labels}, line)
        for line, (name, labels) in enumerate(speakers.items(), start=2)
    )
    splits = {name: Manifest(name, rows, Path(f"{name}.csv")) for name in ("train", "dev", "test")}
    return Corpus("voices", Path(), splits)


def genders(annotated: Corpus) -> list[str]:
    return [u.labels["gender"] for u in GenderIdentification.annotate(annotated).splits["test"]]


def test_the_label_is_the_column_or_the_name_of_an_embedded_voice() -> None:
    assert genders(corpus(co_f000={}, co_m001={}, co_m017={})) == ["female", "male", "male"]
    assert genders(corpus(co_f000={"gender": "other"}, anna={"gender": "female"})) == ["other", "female"]


def test_rows_without_a_gender_are_named_with_their_line() -> None:
    with pytest.raises(UserError, match=r"train\.csv: 2 bad row(?s:.*)line 3: speaker 'anna' has no gender: add a"):
        genders(corpus(co_m001={}, anna={}, co_x001={}))


def test_it_is_speaker_identification_with_another_label() -> None:
    annotated = GenderIdentification.annotate(corpus(co_f000={}, co_m001={}))
    assert GenderIdentification.learn(annotated, None) == ["female", "male"]
    own = {name for name in vars(GenderIdentification) if not name.startswith("_")}
    assert own - set(vars(SpeakerIdentification)) == {"annotate"}


def test_all_are_still_superbs_ten_and_no_total_counts_it() -> None:
    assert len(jobs.SUPERB) == 10 and "gender" not in jobs.SUPERB
    request = jobs.SuiteConfig(("fbank",), ("all", "gender"))
    assert [job.task for job in jobs.expand(request)] == [*jobs.SUPERB, "gender"]
    assert [job.task for job in jobs.expand(replace(request, tasks=("all",)))] == list(jobs.SUPERB)
    assert "gender" not in {task for task, _ in METRICS}


def test_a_run_needs_the_part_of_the_embedded_corpus_that_its_recipe_names() -> None:
    (job,) = jobs.expand(jobs.SuiteConfig(("fbank",), ("gender",)))
    assert (job.part(), job.profile) == ("asr", "mini")
    assert recipe.load(recipe.find("gender", "mini")).part == "asr"
    (other,) = jobs.expand(jobs.SuiteConfig(("fbank",), ("gender",), overrides=("gender:corpus.folder=sid",)))
    assert other.part() == "sid"


def test_it_consists_of_one_file_and_one_recipe() -> None:
    other_uses = {"columns.py", "lhotse.py", "lhotse_lines.py"}  # what other toolkits call a column of their data
    named = {
        str(path.relative_to(ROOT))
        for folder in ("superb_eval", "downstreams", "recipes", "upstreams")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".yaml")
        and "synthetic" not in path.parts
        and "gender" in path.read_text("utf8")
        and path.name not in other_uses
    }
    assert named == {"downstreams/gender.py", "recipes/mini/gender.yaml"}
    assert set(registry.names()) - set(jobs.SUPERB) == {"gender"}


def test_it_runs_and_has_a_column_in_the_table(tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", {"train": 8, "dev": 4, "test": 4})
    for split in ("train", "dev", "test"):
        rows = (data / "ks" / f"{split}.csv").read_text().splitlines()
        as_voices = [_voice(row, k) for k, row in enumerate(rows[1:])]
        (data / "asr").mkdir(exist_ok=True)
        (data / "asr" / f"{split}.csv").write_text("\n".join(["id,path,speaker", *as_voices]) + "\n")
    short = ("train.steps=60", "train.eval_every=20", "train.lr=1e-2")
    out = tmp_path / "results"
    record, _ = evaluate(config.RunConfig("fbank_nonorm", "gender", data, overrides=short, out=out))
    assert record.metrics[0].units == 4 * len(TONES) and record.metrics[0].value > 80
    evaluate(config.RunConfig("fbank_nonorm", "ks", data, overrides=short, out=out))
    (table,), left_out = build.collect(out, build.TableOptions())
    assert [column.key for column in table.columns if column.key[0]] == [("ks", "acc"), ("gender", "acc")]
    assert not left_out


def _voice(row: str, number: int) -> str:
    """A row of KS by a voice whose name states which of two tones it is."""
    name, path, _, keyword = row.split(",")
    return f"{name},{path},t_{'f' if keyword == 'no' else 'm'}{number:03d}"
