"""Predicts with a trained head: audio files in, the task's answers out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from downstreams import registry as tasks
from downstreams.base import Scores, Setup, TrainedTask
from superb_eval.data import links
from superb_eval.data.audio import SAMPLE_RATE, Clip
from superb_eval.data.importers.audio_files import ENDINGS, is_audio
from superb_eval.errors import UserError
from superb_eval.features.dataset import Features
from superb_eval.features.extract import Extraction, extract
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.folds import weights_name
from superb_eval.probing.probe import Probe, apply, load_weights
from superb_eval.recipe import Recipe
from superb_eval.results import platforms, recorded_upstream, run_files
from superb_eval.results import record as records
from superb_eval.results.folder import find_run
from superb_eval.results.record import RunRecord
from superb_eval.results.recorded_recipe import recipe_of
from superb_eval.results.stats import scoring
from superb_eval.runtime import devices
from upstreams.base import Upstream
from upstreams.loading import identity, legacy_fingerprints


@dataclass(frozen=True)
class TrainedProbe:
    """A trained head, with its record, recipe, task and upstream."""

    record: RunRecord
    recipe: Recipe
    upstream: Upstream
    task: TrainedTask
    probe: Probe


@dataclass(frozen=True)
class FileAnswer:
    """The answer for an audio file, as text, and its scores (`TrainedTask.scores`); empty where none were asked for."""

    file: Path
    answer: str
    scores: Scores


def predict(
    run: Path, sources: Sequence[Path], device: str = "cpu", scores: bool = False, trusted: Sequence[str] = ()
) -> list[FileAnswer]:
    """Return the answer of a finished run's head (of its first fold) for each audio file, or file of a folder.

    `trusted` is the code that its upstream may run (`recorded_upstream.check_trusted`).

    Raises:
        UserError: see `load_trained`; or a file can't be read.
    """
    paths = _audio_files(sources)
    trained = load_trained(run, device, trusted)
    task, features = trained.task, _extract(trained.upstream, paths, trained.recipe, device)

    def read(output: Tensor, lengths: Tensor) -> Sequence[tuple[Any, Tensor | None, int]]:
        outputs = output.cpu() if scores else [None] * len(lengths)
        return list(zip(task.decode(output, lengths), outputs, lengths.tolist(), strict=True))

    (rows,) = apply([trained.probe], features, read)
    decoded, outputs, lengths = (list(column) for column in zip(*rows, strict=True))
    found = task.scores(decoded, outputs, lengths) if scores else [{}] * len(paths)
    return [FileAnswer(*row) for row in zip(paths, task.show(decoded), found, strict=True)]


def load_trained(run: Path, device: str = "cpu", trusted: Sequence[str] = ()) -> TrainedProbe:
    """Load the head of a finished run, of its first fold, and its upstream.

    Raises:
        UserError: the folder holds no finished run, its upstream is code that is not trusted, or has changed since.
    """
    devices.require(device)
    run = find_run(run)
    record = records.read(run / records.NAME)
    upstream = recorded_upstream.load(record.upstream, trusted).to(device)
    _check_same(run, record, upstream)
    recipe = recipe_of(record)
    task = _trained_task(run, record, recipe)
    with torch.inference_mode():
        output = upstream([torch.zeros(SAMPLE_RATE, device=device)])
    states = output.get(recipe.features.key)
    if not states:
        raise UserError(f"{run}: features.key: its upstream has no {recipe.features.key!r}, but {', '.join(output)}.")
    probe = _trained_probe(run, recipe, task, len(states), int(states[0].shape[-1])).to(device)
    return TrainedProbe(record, recipe, upstream, task, probe)


def _trained_task(run: Path, record: RunRecord, recipe: Recipe) -> TrainedTask:
    """Return the task with the labels of a run's first head.

    Raises:
        UserError: the task trains no head, or labels or settings of the head aren't valid.
    """
    task_type = tasks.get(record.task)
    if not issubclass(task_type, TrainedTask):
        raise UserError(f"{run}: {record.task} trains no head, so there is none to predict with.")
    labels = scoring.read_labels(run, task_type)
    if labels is None:
        raise UserError(f"{run / records.LABELS}: is missing, or holds no labels of fold 1. Run it again.")
    try:
        head = task_type.Head.model_validate(recipe.head)
    except ValidationError as error:
        raise UserError(f"{run}: its recipe's head is not valid ({records.format_error(error)}).") from error
    task = task_type(Setup(labels, head, record.upstream.stride))
    task.adopt(record.training[0].tuned)
    return task


def _trained_probe(run: Path, recipe: Recipe, task: TrainedTask, layers: int, dim: int) -> Probe:
    """Return the probe of a run's first fold; it is built once its file is known to hold the weights of one so large.

    Raises:
        UserError: the file holds others, or some that are not finite.
    """

    def build() -> Probe:
        return Probe(Featurizer(layers, recipe.features.layer_index), task.head(dim))

    try:
        with torch.device("meta"):
            blueprint = build()
    except IndexError as error:
        raise UserError(f"{run}: features.layer: its upstream has no {error}.") from error
    path = run_files.path_in(run, weights_name(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that nothing is copied to the meta device
        load_weights(path, blueprint)
    probe = build()
    load_weights(path, probe)
    if not all(bool(tensor.isfinite().all()) for tensor in probe.state_dict().values()):
        raise UserError(f"{path}: holds weights that are not finite. Run it again with --fresh.")
    return probe


def _check_same(run: Path, record: RunRecord, upstream: Upstream) -> None:
    recorded, present = record.upstream.identity, upstream.identity()
    if legacy_fingerprints.current(record.upstream.fingerprint) == identity.fingerprint(present):
        return
    if platforms.only_rounding_differs(record.upstream.address, recorded, present):
        # A head trained on another machine works here too.
        parts = ", ".join(identity.differences(recorded, present))
        warnings.warn(
            f"{run}: {record.upstream.address} differs from training in the bits of {parts} alone: "
            "another processor or library version may be why",
            stacklevel=2,
        )
        return
    changed = f" ({', '.join(identity.differences(recorded, present))} changed)" if recorded else ""
    raise UserError(f"{run}: was trained on another {record.upstream.address}{changed}. Run it again with --fresh.")


def _extract(upstream: Upstream, paths: Sequence[Path], recipe: Recipe, device: str) -> Features:
    extraction = Extraction.of(recipe.features, pooled=False)
    clips = [Clip(path, gain_db=recipe.corpus.gain_db, trim_silence=recipe.corpus.trim_silence) for path in paths]
    rows = dict(extract(upstream, clips, extraction, device))
    return Features.from_tensors([rows[i] for i in range(len(clips))])


def _audio_files(sources: Sequence[Path]) -> list[Path]:
    paths: list[Path] = []
    for source in sources:
        files = sorted(p for p in links.files_below(source) if is_audio(p.name)) if source.is_dir() else [source]
        if not files:
            raise UserError(f"{source}: holds no audio file ({', '.join(sorted(ENDINGS))}).")
        paths += files
    return paths
