"""Disks: full at each write of a cell, read-only, torn, bit-flipped, and cluttered by the killed."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from superb_eval.errors import UserError
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import NoProgress
from tests.faults.conftest import Same


class Said(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


@contextmanager
def no_file_grows() -> Iterator[None]:
    """The system refuses every byte, as it does where a disk is full: with an error, for each library to tell of."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITTEN = ("shard", "best", "last", "probe-1", "predictions", "labels", "result")
"""What a cell writes."""


def test_a_disk_that_is_full_at_any_write_is_one_sentence_and_nothing_is_lost(
    order: RunConfig, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, wanted = atomic_files._save, ""

    def full(write: Callable[[Path], object], temporary: Path) -> None:
        name = temporary.name.split(".")[1]
        if ("shard" if len(name) == 64 else name) != wanted:
            return save(write, temporary)
        with no_file_grows():
            save(write, temporary)
        raise AssertionError("it was written")

    monkeypatch.setattr(atomic_files, "_save", full)
    for wanted in WRITTEN:
        with pytest.raises(UserError, match=rf"{'safetensors' if wanted == 'shard' else wanted}.*files may not grow"):
            evaluate(order)
    wanted = ""
    record, folder = evaluate(order)
    same(record, folder)
    assert not list(order.out.rglob("*.tmp")) and not list(order.store.rglob("*.tmp"))  # type: ignore[union-attr]


def test_errors_that_libraries_hide_come_to_light_and_others_stay_what_they_are(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    content = {"x": torch.zeros(10_000)}
    for save in (lambda path: torch.save(content, path), lambda path: save_file(content, path)):
        with no_file_grows(), pytest.raises(UserError, match="may not grow that large"):
            atomic_files.write(tmp_path / "x", save)
    with pytest.raises(ZeroDivisionError):
        atomic_files.write(tmp_path / "x", lambda path: 1 / 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_a_disk_says_is_explained(number: int, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(UserError, match=str(tmp_path / "x")):
        atomic_files.write(tmp_path / "x", refuse)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder in which nobody may write")
@pytest.mark.parametrize("where", ["out", "store"])
def test_a_folder_that_may_not_be_written_is_one_sentence(order: RunConfig, where: str) -> None:
    """/sys, where root is refused too."""
    with pytest.raises(UserError, match="/sys/kernel/superb-eval.*(read-only|not permitted)"):
        evaluate(replace(order, **{where: Path("/sys/kernel/superb-eval")}))


def test_a_file_where_a_folder_should_be_is_one_sentence(order: RunConfig) -> None:
    order.out.parent.mkdir(exist_ok=True)
    order.out.write_text("a file")
    with pytest.raises(UserError, match="results"):
        evaluate(order)


@pytest.mark.parametrize("torn", ["half", "empty", "zeros"])
def test_a_torn_record_is_named_and_the_cell_runs_again(order: RunConfig, same: Same, torn: str) -> None:
    _, folder = evaluate(order)
    path = folder / "result.json"
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(len(whole))}[torn])
    said = Said()
    record, again = evaluate(order, said)
    assert again == folder and any("result.json: damaged" in line for line in said.lines)
    same(record, folder)


@pytest.mark.parametrize("name", ["last.pt", "best.safetensors"])
@pytest.mark.parametrize("torn", ["half", "empty", "zeros", "flipped"])
def test_a_torn_state_of_training_is_named_and_the_training_begins_anew(
    order: RunConfig, same: Same, name: str, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, after=12)
        with pytest.raises(KeyboardInterrupt):
            evaluate(order)
    (path,) = order.out.rglob(name)
    whole = bytearray(path.read_bytes())
    flipped = bytes([*whole[: len(whole) // 2], whole[len(whole) // 2] ^ 1, *whole[len(whole) // 2 + 1 :]])
    path.write_bytes(
        {"half": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(len(whole)), "flipped": flipped}[torn]
    )
    with pytest.warns(UserWarning, match=rf"{name}: damaged .*begins anew"):
        record, folder = evaluate(order)
    same(record, folder)


def interrupt(patch: pytest.MonkeyPatch, after: int) -> None:
    from superb_eval.probing.training import Training

    update, steps = Training._update, []

    def interrupted(training: Training, *given: object) -> object:
        steps.append(1)
        if len(steps) > after:
            raise KeyboardInterrupt
        return update(training, *given)  # type: ignore[arg-type]

    patch.setattr(Training, "_update", interrupted)


def test_a_flipped_bit_in_the_store_is_found_named_and_mended(order: RunConfig, same: Same) -> None:
    evaluate(order)
    (path,) = order.store.rglob("*.safetensors")  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    for place in (len(content) // 2, len(content) - 1, 20):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.warns(UserWarning, match=path.name):
            record, folder = evaluate(replace(order, fresh=True))
        same(record, folder)
        assert record.features.extracted == 72


def test_what_the_killed_left_is_cleared_away_and_what_the_living_write_is_not(tmp_path: Path) -> None:
    target = tmp_path / "last.pt"
    code = f"from superb_eval import files; from pathlib import Path; import os\n\
files.write(Path({str(target)!r}), lambda path: (path.write_text('half'), os._exit(9)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    mine = tmp_path / left.name.replace(left.name.split("-")[-2], str(os.getpid()))
    foreign = tmp_path / ".last.pt.0123456789ab-1-abcdef.tmp"
    other = tmp_path / left.name.replace("last.pt", "first.pt")
    for path in (mine, foreign, other):
        path.touch()
    atomic_files.write_text(target, "whole")
    assert target.read_text() == "whole"
    assert not left.exists() and mine.exists() and foreign.exists() and other.exists()


def test_a_receipt_or_claim_that_is_torn_finishes_nothing(tmp_path: Path) -> None:
    assert atomic_files.create_text(tmp_path / "x", json.dumps({}))
    assert not atomic_files.create_text(tmp_path / "x", "other") and (tmp_path / "x").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
