"""A results folder of one upstream that others may read: records without the folders of the machine that made them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superb_eval.results import record as records
from superb_eval.results import run_files
from superb_eval.results.folder import Run, RunGroup, slug
from superb_eval.results.record import RunRecord
from superb_eval.results.recorded_command import shareable, without_folders


def write(groups: Sequence[RunGroup], out: Path) -> None:
    """Write the runs of `groups` with their predictions and labels into the results folder `out`."""
    for run in (run for group in groups for run in group.runs):
        record = shared_record(run.record)
        folder = out / slug(record.upstream.address) / record.task / run.folder.name
        folder.mkdir(parents=True)
        for name in _files(run):
            shutil.copyfile(run_files.path_in(run.folder, name), folder / name)
        records.write(record, folder)


def shared_record(record: RunRecord) -> RunRecord:
    """Return a record whose texts name no absolute path.

    Raises:
        UserError: its command can't be read.
    """
    content = _without_folders(record.model_dump(mode="json"))
    return RunRecord.model_validate({**content, "command": shareable(record.command)})


def _files(run: Run) -> list[str]:
    names = [name for name in (*run.record.predictions, *run.record.heads) if name.endswith((".csv", ".json"))]
    return [name for name in names if run_files.path_in(run.folder, name).is_file()]


def _without_folders(value: Any) -> Any:
    """Return a value of a record with every absolute path in its texts cut to its last part."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    return without_folders(value) if isinstance(value, str) else value
