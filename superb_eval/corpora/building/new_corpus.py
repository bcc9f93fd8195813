"""Makes a corpus of a data folder: columns, splits, audio, tables, and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from downstreams import registry as tasks
from superb_eval import recipe as recipes
from superb_eval.corpora.building.choose_splits import Divided, choose_splits
from superb_eval.corpora.building.corpus_folder import NewCorpusFolder
from superb_eval.corpora.building.label_rows import TaskNeeds, describe_left_out, label_rows
from superb_eval.corpora.building.new_row import NewRow
from superb_eval.corpora.building.new_trials import make_trials
from superb_eval.corpora.building.place_audio import place_audio
from superb_eval.corpora.building.recording_turns import check_recordings
from superb_eval.corpora.building.request import CorpusRequest
from superb_eval.corpora.building.split_plan import plan_splits
from superb_eval.corpora.building.summary import summarise
from superb_eval.corpora.building.write_tables import write_manifest, write_rttm, write_trials
from superb_eval.corpora.trials import TRIAL_FILES
from superb_eval.data.importers import formats
from superb_eval.errors import UserError
from superb_eval.runtime.progress import Progress


def make_corpus(request: CorpusRequest, progress: Progress) -> dict[str, Any]:
    """Make the corpus that was asked for, or resume an interrupted one; return its summary.

    A finished one is not changed, and its source not read. The same request gives the same tables on every platform.

    Raises:
        UserError: the source can't be read, leaves a choice open (the message names the option), or can't be divided;
            the folder holds something else, or the disk is full.
    """
    if request.out.resolve().is_relative_to(request.source.resolve()):
        raise UserError(
            f"{request.out}: lies in {request.source}, which is read and not changed. Choose another folder."
        )
    settings = request.settings()
    folder = NewCorpusFolder(request.out, request.task)
    summary = folder.finished(settings)
    if summary is not None:
        return summary
    recipe = recipes.load(recipes.find(request.task, "mini"), request.overrides)
    kind = tasks.get(request.task)
    needs = TaskNeeds(kind, kind.needs(kind.Head.model_validate(recipe.head)))
    plan = plan_splits(formats.split_names(request.source), request)
    source = formats.read(request.source, plan.names, turns=needs.turns)
    rows, left_out, notes = label_rows(source, plan, needs, request)
    with folder.reserved(settings):
        rows, unreadable = place_audio(rows, source.root, request.out, request.audio, progress)
        left_out |= unreadable
        if needs.turns:
            rows, turn_notes = check_recordings(rows, left_out)
            notes += turn_notes
        if not rows:
            raise UserError(f"{request.source}: no row can be used ({describe_left_out(left_out)}).")
        splits, split_notes = choose_splits(rows, plan, needs, request, left_out)
        split_notes += _write(splits, needs, request)
        decisions = [*source.notes, *notes, *plan.notes, *split_notes]
        summary = summarise(source.kind, splits, decisions, left_out, labels=not needs.turns)
        summary["overrides"] = [f"corpus.folder={request.folder()}"] if recipe.part != request.folder() else []
        folder.finish(settings, summary)
    return summary


def _write(splits: Divided, needs: TaskNeeds, request: CorpusRequest) -> list[str]:
    """Write the tables; return sentences on trials, where the task has them."""
    folder = request.out / request.folder()
    trials = {}
    if needs.kind.trials:
        trials = {name: make_trials(splits[name], request.trials, request.seed, name) for name in TRIAL_FILES}
        write_trials(folder, trials)
    for name, rows in splits.items():
        write_manifest(folder / f"{name}.csv", rows)
        if needs.turns:
            write_rttm(folder / f"{name}.rttm", _turns(rows))
    kinds = {name: (len(chosen), sum(trial.target for trial in chosen)) for name, chosen in trials.items()}
    return [
        f"trials of {name}: {count}, of which {targets} are of one speaker, seed {request.seed}"
        for name, (count, targets) in kinds.items()
    ]


def _turns(rows: Sequence[NewRow]) -> Mapping[str, Any]:
    return {row.id: row.row.turns for row in rows}
