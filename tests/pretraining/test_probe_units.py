"""A training that is probed by discovered units: log, choice, resuming, and mistakes that stop it before it starts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from superb_eval.analysis import units
from superb_eval.corpora import embedded
from superb_eval.errors import UserError
from superb_eval.pretraining import probe_tasks, probe_units, trainer
from superb_eval.pretraining.distill import distill
from superb_eval.pretraining.pretrain import pretrain
from superb_eval.pretraining.probe_settings import ProbeSettings
from superb_eval.pretraining.recipe import DistillationRecipe, PretrainRecipe, load
from superb_eval.runs.config import RunConfig
from superb_eval.runtime.progress import NoProgress, Progress
from tests import aligned_tones

Toy = Callable[..., PretrainRecipe]

PROBE = "probe={every: 2, tasks: [units], data: aligned, units: {clusters: 8}}"
COLUMNS = ("step", "units_pnmi", "units_layer", "units_rank", "probe")


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aligned_tones.write(tmp_path_factory.mktemp("aligned"))


def train(settings: PretrainRecipe, speech: Path, aligned: Path, out: Path) -> Path:
    return pretrain(settings, [f"audio={speech}", f"aligned={aligned}"], out, "cpu", 1, NoProgress(), [])


def probes(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open(encoding="utf8") as file:
        return [{name: float(row[name]) for name in COLUMNS} for row in csv.DictReader(file) if row["probe"]]


def test_units_are_logged_and_choose_the_encoder(toy: Toy, speech: Path, aligned: Path, tmp_path: Path) -> None:
    folder = train(toy(PROBE, "optim.lr=3e-2"), speech, aligned, tmp_path / "out")
    lines = probes(tmp_path / "out")
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert 0 < line["units_pnmi"] < 1 and line["units_layer"] in (0, 1) and 1 <= line["units_rank"] <= 8
        assert line["probe"] == pytest.approx(100 * line["units_pnmi"], rel=1e-5)
    assert len({line["units_pnmi"] for line in lines}) > 1
    best = json.loads((tmp_path / "out" / probe_tasks.BEST).read_text())
    chosen = max(lines, key=lambda line: line["probe"])
    assert best["step"] == chosen["step"] and best["probe"] == pytest.approx(chosen["probe"], rel=1e-5)
    config = RunConfig(f"hubert@{folder}", "", aligned, store=tmp_path / "store")
    measures = units.measure(config, 8, tmp_path, NoProgress())
    assert (measures.best().pnmi, measures.best().layer) == (best["units_pnmi"], best["units_layer"])
    assert measures.layers[-1].rank == best["units_rank"], "the exported encoder is the best one"


def test_a_resumed_training_has_the_same_figures(
    toy: Toy, speech: Path, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, update = toy(PROBE), trainer._Trainer._update
    train(settings, speech, aligned, tmp_path / "uninterrupted")

    def signalled(self: Any, module: Any, optimizer: Any, batches: Any, stop: bool, save: bool) -> Any:
        return update(self, module, optimizer, batches, stop or self.state.step == 1, save)

    monkeypatch.setattr(trainer._Trainer, "_update", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(settings, speech, aligned, tmp_path / "resumed")
    monkeypatch.setattr(trainer._Trainer, "_update", update)
    assert [line["step"] for line in probes(tmp_path / "resumed")] == [2]
    train(settings, speech, aligned, tmp_path / "resumed")
    assert probes(tmp_path / "resumed") == probes(tmp_path / "uninterrupted")
    one, other = ((tmp_path / name / probe_tasks.BEST).read_text() for name in ("resumed", "uninterrupted"))
    assert one == other


def test_chosen_layers_alone_are_clustered(toy: Toy, speech: Path, aligned: Path, tmp_path: Path) -> None:
    for name, layers in (("first", "[0]"), ("all", "[]")):
        train(toy(PROBE, f"probe.units.layers={layers}", "optim.steps=2"), speech, aligned, tmp_path / name)
    (first,), (best,) = probes(tmp_path / "first"), probes(tmp_path / "all")
    assert first["units_layer"] == 0 and first["units_pnmi"] <= best["units_pnmi"]
    assert first["units_rank"] == best["units_rank"], "of the last layer in both"


def test_a_distillation_is_probed_too(teacher: Path, speech: Path, aligned: Path, tmp_path: Path) -> None:
    overrides = ["data.batch_seconds=4", "optim.steps=2", f"teacher.address=hubert@{teacher}", "student.hidden=null"]
    settings = load("distilhubert_toy", "distill", DistillationRecipe, [*overrides, PROBE])
    data = [f"audio={speech}", f"aligned={aligned}"]
    distill(settings, data, tmp_path, "cpu", 1, NoProgress(), [])
    (line,) = probes(tmp_path)
    assert 0 < line["units_pnmi"] <= 1
    last = settings.student.layers
    with pytest.raises(UserError, match=rf"layers: {last + 1} is no hidden state .* Choose of 0 to {last}"):
        load("distilhubert_toy", "distill", DistillationRecipe, [PROBE, f"probe.units.layers=[{last + 1}]"])


def test_the_score_of_units_and_tasks_is_a_mean_in_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ProbeSettings.model_validate({"every": 1, "tasks": ["units", "ks", "pr"], "chooses": False})
    encoder = probe_tasks.Probes(settings, tmp_path, None, "cpu", lambda folder: None, tmp_path / "model")
    monkeypatch.setattr(probe_units, "measure", lambda *given: {"units_pnmi": 0.5, "units_rank": 3.0})
    monkeypatch.setattr(encoder.__class__, "_dev_metric", lambda self, task, folder: {"ks": 60.0, "pr": 80.0}[task])
    expected = {"units_pnmi": 0.5, "units_rank": 3.0, "ks_dev": 60.0, "pr_dev": 80.0, "probe": (50 + 60 - 80) / 3}
    assert encoder.evaluate(1) == expected


def test_embedded_speech_is_synthesised_before_the_training(
    toy: Toy, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesised: list[tuple[str, list[str]]] = []

    def synthesise(size: str, out: Path, seed: int, progress: Progress, tasks: Sequence[str]) -> None:
        assert seed == 0 and not (tmp_path / "out").exists()
        synthesised.append((size, list(tasks)))
        out.mkdir(parents=True)
        aligned_tones.write(out)
        (out / "corpus.json").write_text(json.dumps({"name": size, "tasks": list(tasks)}))

    monkeypatch.setattr(embedded, "synthesise", synthesise)
    settings = toy("probe={every: 2, tasks: [units], units: {clusters: 8, size: mini}}", "optim.steps=2")
    pretrain(settings, [f"audio={speech}"], tmp_path / "out", "cpu", 1, NoProgress(), [])
    assert synthesised == [("mini", ["aligned"])] and len(probes(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("probe.units.layers=[2]", r"yaml: probe.units.layers: 2 is no hidden state .* Choose of 0 to 1\.$"),
        ("probe.units.layers=[-1]", r"'probe\.units\.layers\.0' is -1"),
        ("probe.units.clusters=1", r"'probe\.units\.clusters' is 1: input should be greater than or equal to 2"),
        ("probe.units.clusters=70000", r"'probe\.units\.clusters' is 70000"),
        ("probe.tasks=[ks]", "probe.tasks has no units: add it"),
        ("probe.units.size=mini", "leave one out"),
        ("probe.overrides=[train.steps=5]", "units has none: leave them out"),
    ],
)
def test_wrong_settings_are_explained(toy: Toy, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        toy(PROBE, override)


def test_a_corpus_that_can_not_be_measured_stops_a_training_before_it_starts(
    toy: Toy, speech: Path, aligned: Path, tones: Path, tmp_path: Path
) -> None:
    # Six clips of 1.4 s have 69 frames each, of which six sevenths lie in phones.
    with pytest.raises(UserError, match=r"3[45]\d frames in phones are too few for 400 .* Lower probe.units.clusters"):
        train(toy(PROBE, "probe.units.clusters=400"), speech, aligned, tmp_path / "out")
    with pytest.raises(UserError, match="has no folder 'aligned' with manifests"):
        train(toy(PROBE), speech, tones, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_units_is_stored_as_before(toy: Toy) -> None:
    stored = toy("probe={every: 2}").model_dump(mode="json")["probe"]
    assert stored == {"every": 2, "tasks": ["ks", "pr"], "data": None, "overrides": [], "chooses": True}
    assert toy(PROBE).model_dump(mode="json")["probe"]["units"] == {"clusters": 8, "layers": [], "size": "nano"}
