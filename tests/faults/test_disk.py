"""Disks: full at each write, read-only, with damaged files, and with leftovers of killed processes."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
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


class RecordedProgress(NoProgress):
    """Records the lines that are logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


@contextmanager
def no_file_grows() -> Iterator[None]:
    """Refuse every written byte, as a full disk does: with an error that each library reports in its own way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITTEN = ("shard", "best", "last", "probe-1", "predictions", "labels", "result")
"""The files that a run writes."""


def test_a_full_disk_at_any_write_is_a_user_error_and_nothing_is_lost(
    config: RunConfig, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failing = atomic_files._save, ""

    def full(write: Callable[[Path], object], temporary: Path) -> None:
        name = temporary.name.split(".")[1]
        if ("shard" if len(name) == 64 else name) != failing:
            return save(write, temporary)
        with no_file_grows():
            save(write, temporary)
        raise AssertionError("it was written")

    monkeypatch.setattr(atomic_files, "_save", full)
    for failing in WRITTEN:
        with pytest.raises(UserError, match=rf"{'safetensors' if failing == 'shard' else failing}.*files may not grow"):
            evaluate(config)
    failing = ""
    record, folder = evaluate(config)
    same(record, folder)
    assert not list(config.out.rglob("*.tmp")) and not list(config.store.rglob("*.tmp"))  # type: ignore[union-attr]


def test_disk_errors_that_libraries_wrap_are_recognised_and_others_unchanged(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    content = {"x": torch.zeros(10_000)}
    for save in (lambda path: torch.save(content, path), lambda path: save_file(content, path)):
        with no_file_grows(), pytest.raises(UserError, match="may not grow that large"):
            atomic_files.write(tmp_path / "x", save)
    with pytest.raises(ZeroDivisionError):
        atomic_files.write(tmp_path / "x", lambda path: 1 / 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_disk_errors_are_explained(number: int, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(UserError, match=str(tmp_path / "x")):
        atomic_files.write(tmp_path / "x", refuse)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder in which nobody may write")
@pytest.mark.parametrize("where", ["out", "store"])
def test_a_folder_without_write_permission_is_a_user_error(config: RunConfig, where: str) -> None:
    """/sys, where root is refused too."""
    with pytest.raises(UserError, match="/sys/kernel/superb-eval.*(read-only|permission)"):
        evaluate(replace(config, **{where: Path("/sys/kernel/superb-eval")}))


def test_a_file_in_place_of_a_folder_is_a_user_error(config: RunConfig) -> None:
    config.out.parent.mkdir(exist_ok=True)
    config.out.write_text("a file")
    with pytest.raises(UserError, match="results"):
        evaluate(config)


@pytest.mark.parametrize("damage", ["half", "empty", "zeros"])
def test_a_truncated_record_is_named_and_the_run_repeated(config: RunConfig, same: Same, damage: str) -> None:
    _, folder = evaluate(config)
    path = folder / "result.json"
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(len(whole))}[damage])
    progress = RecordedProgress()
    record, again = evaluate(config, progress)
    assert again == folder and any("result.json: damaged" in line for line in progress.lines)
    same(record, folder)


@pytest.mark.parametrize("name", ["last.pt", "best.safetensors"])
@pytest.mark.parametrize("damage", ["half", "empty", "zeros", "flipped"])
def test_a_damaged_training_state_is_named_and_training_starts_over(
    config: RunConfig, same: Same, name: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, after=12)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    (path,) = config.out.rglob(name)
    whole = bytearray(path.read_bytes())
    flipped = bytes([*whole[: len(whole) // 2], whole[len(whole) // 2] ^ 1, *whole[len(whole) // 2 + 1 :]])
    path.write_bytes(
        {"half": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(len(whole)), "flipped": flipped}[damage]
    )
    with pytest.warns(UserWarning, match=rf"{name}: damaged .*starts over"):
        record, folder = evaluate(config)
    same(record, folder)


def interrupt(patch: pytest.MonkeyPatch, after: int) -> None:
    from superb_eval.probing.training import Training

    update, steps = Training._update, []

    def interrupted(training: Training, *inputs: object) -> object:
        steps.append(1)
        if len(steps) > after:
            raise KeyboardInterrupt
        return update(training, *inputs)  # type: ignore[arg-type]

    patch.setattr(Training, "_update", interrupted)


def test_a_flipped_bit_in_the_store_is_named_and_repaired(config: RunConfig, same: Same) -> None:
    evaluate(config)
    (path,) = config.store.rglob("*.safetensors")  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    for position in (len(content) // 2, len(content) - 1, 20):
        changed = bytearray(content)
        changed[position] ^= 4
        path.write_bytes(changed)
        with pytest.warns(UserWarning, match=path.name):
            record, folder = evaluate(replace(config, fresh=True))
        same(record, folder)
        assert record.features.extracted == 72


def test_leftovers_of_dead_processes_are_removed_and_files_of_live_ones_are_not(tmp_path: Path) -> None:
    target = tmp_path / "last.pt"
    code = f"from superb_eval.runtime import atomic_files; from pathlib import Path; import os\n\
atomic_files.write(Path({str(target)!r}), lambda path: (path.write_text('half'), os._exit(9)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (leftover,) = tmp_path.iterdir()
    own = tmp_path / leftover.name.replace(leftover.name.split("-")[-2], str(os.getpid()))
    foreign = tmp_path / ".last.pt.0123456789ab-1-abcdef.tmp"
    other = tmp_path / leftover.name.replace("last.pt", "first.pt")
    for path in (own, foreign, other):
        path.touch()
    atomic_files.write_text(target, "whole")
    assert target.read_text() == "whole"
    assert not leftover.exists() and own.exists() and foreign.exists() and other.exists()


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "result.json"
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, path.exists())))
    atomic_files.write_text(path, "{}")
    assert synced == [(path.stat().st_ino, False), (path.parent.stat().st_ino, True)]


def test_create_text_never_replaces_a_file(tmp_path: Path) -> None:
    assert atomic_files.create_text(tmp_path / "x", json.dumps({}))
    assert not atomic_files.create_text(tmp_path / "x", "other") and (tmp_path / "x").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["run.log", "result.json", "predictions.csv"])
def test_nothing_is_written_through_links_or_pipes_of_an_unfinished_run(name: str, config: RunConfig) -> None:
    """As in a results folder of somebody else."""
    _, folder = evaluate(config)
    (folder / "result.json").unlink()
    (mine := config.out / "mine.txt").write_text("mine")
    for make in (lambda path: path.symlink_to(mine), os.mkfifo):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with pytest.raises(UserError, match=f"{name}: is a link, a pipe or a device .*Remove it"):
            evaluate(config)
        assert mine.read_text() == "mine"


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_files, "READER_SECONDS", 0.0)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: is a pipe or a device without another end"):
        atomic_files.write_text(tmp_path / "pipe", "report")


def test_what_is_no_regular_file_is_written_in_place(tmp_path: Path) -> None:
    """A report written to a device, as root, once replaced the device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text(encoding="utf8")))
    reader.start()
    atomic_files.write_text(pipe, "report")
    reader.join()
    assert received == ["report"] and pipe.is_fifo()
    with pytest.raises(UserError, match="is a folder. Name a file in it"):
        atomic_files.write_text(tmp_path, "report")
    assert list(tmp_path.iterdir()) == [pipe]
