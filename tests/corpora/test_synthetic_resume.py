"""A generation that is interrupted, whenever and however, resumes and ends with the same bytes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from superb_eval.corpora.synthetic import generate, synthesise, worker
from superb_eval.errors import UserError
from superb_eval.runtime import processes

pytest.importorskip("espeakng_loader")

TASKS = ("ks", "sd")  # four shards; single words, and mixtures whose labels come out of the rendering


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise("nano", tmp_path_factory.mktemp("whole"), tasks=TASKS)


@pytest.fixture
def unfinished(whole: Path, tmp_path: Path) -> Path:
    """A corpus whose last shard but one is missing."""
    out = tmp_path / "unfinished"
    shutil.copytree(whole, out)
    for name in ("corpus.json", "checksums.csv", ".shards/ks-001.json"):
        (out / name).unlink()
    return out


def same(first: Path, second: Path) -> bool:
    names = ("checksums.csv", "corpus.json", "ks/train.csv", "sd/train.csv", "sd/train.rttm")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def sabotage(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Run `code` at the start of every worker."""
    (folder / "sitecustomize.py").write_text(f"import os, sys\n{code}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_killed_generation_resumes(whole: Path, tmp_path: Path) -> None:
    first = tmp_path / ".shards" / "ks-000.json"
    code = (
        f"from superb_eval.corpora.synthetic import *; synthesise('nano', {str(tmp_path)!r}, tasks={TASKS}, workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=generate._environment())
    while not first.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert first.exists()
    assert not (tmp_path / "corpus.json").exists()
    assert not (tmp_path / "sd").exists()
    before = first.stat().st_mtime_ns
    assert same(synthesise("nano", tmp_path, tasks=TASKS), whole)
    assert first.stat().st_mtime_ns == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_dead_worker_is_named_and_finished_shards_stay(
    whole: Path, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal\nprint('last words', file=sys.stderr, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    sabotage(monkeypatch, tmp_path, code)
    with pytest.raises(RuntimeError, match=r"shard ks-001 died with status -9(.|\n)*last words"):
        synthesise("nano", unfinished, tasks=TASKS)
    monkeypatch.undo()
    progress: list[tuple[int, int]] = []
    synthesise("nano", unfinished, tasks=TASKS, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(76, 108), (108, 108)]
    assert same(unfinished, whole)


def test_a_full_disk_is_one_sentence_and_finished_shards_stay(
    whole: Path, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"def fsync(file):\n    raise OSError({errno.ENOSPC}, 'No space left on device')\nos.fsync = fsync"
    sabotage(monkeypatch, tmp_path, code)
    with pytest.raises(UserError, match=r"\.shards/ks-001\.json|\.flac: the disk is full\. Free some space"):
        synthesise("nano", unfinished, tasks=TASKS)
    monkeypatch.undo()
    assert not list(unfinished.rglob("*.tmp"))
    assert same(synthesise("nano", unfinished, tasks=TASKS), whole)


def test_a_lost_clip_is_rendered_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "damaged"
    shutil.copytree(whole, out)
    (out / "corpus.json").unlink()
    lost = next(out.rglob("*.flac"))
    lost.unlink()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    half = lost.with_name(f".{lost.name}.{processes.machine_id()}-{ended.pid}-abcdef.tmp")
    half.write_bytes(b"half")
    assert same(synthesise("nano", out, tasks=TASKS), whole)
    assert lost.read_bytes() == (whole / lost.relative_to(out)).read_bytes()
    assert not half.exists()


def test_an_unfinished_corpus_of_another_seed_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".shards").mkdir()
    (tmp_path / ".shards/settings.json").write_text('{"size": "nano", "seed": 3, "generator_version": 3}')
    with pytest.raises(UserError, match=r"seed 3 \(expected 0\)"):
        synthesise("nano", tmp_path, tasks=TASKS)


def test_a_second_generation_waits_for_the_first_and_finds_it_done(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second sees how far the first has come, and generates nothing once that one has finished."""
    monkeypatch.setattr(generate, "LOOK_EVERY", 0.01)
    out = tmp_path / "both"
    shutil.copytree(whole, out)
    description = out / "corpus.json"
    description.rename(tmp_path / "corpus.json")
    lock = FileLock(out / ".shards/lock")
    lock.acquire()
    lines: list[str] = []
    progress: list[tuple[int, int]] = []

    def finish(done: int, total: int) -> None:
        progress.append((done, total))
        (tmp_path / "corpus.json").rename(description)
        lock.release()

    before = (out / "checksums.csv").stat().st_mtime_ns
    assert same(synthesise("nano", out, tasks=TASKS, progress=finish, log=lines.append), whole)
    assert lines == [f"another process is generating into {out}: waiting for it"]
    assert progress == [(108, 108)]
    assert (out / "checksums.csv").stat().st_mtime_ns == before


def test_a_second_generation_continues_where_the_first_was_killed(
    whole: Path, unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "LOOK_EVERY", 0.01)
    lock = FileLock(unfinished / ".shards/lock")
    lock.acquire()
    progress: list[tuple[int, int]] = []

    def end(done: int, total: int) -> None:
        progress.append((done, total))
        if len(progress) == 2:
            lock.release()

    assert same(synthesise("nano", unfinished, tasks=TASKS, progress=end), whole)
    assert progress == [(76, 108), (76, 108), (76, 108), (108, 108)]


def test_a_folder_where_another_seed_is_generated_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".shards").mkdir()
    (tmp_path / ".shards/settings.json").write_text('{"size": "nano", "seed": 3, "generator_version": 4}')
    with FileLock(tmp_path / ".shards/lock"), pytest.raises(UserError, match=r"seed 3 \(expected 0\)"):
        synthesise("nano", tmp_path, tasks=TASKS)


def test_what_a_user_put_there_is_not_touched(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "ks").mkdir()
    (tmp_path / "ks/train.csv").write_text("mine")
    with pytest.raises(UserError, match="holds ks/, which this command didn't write"):
        synthesise("nano", tmp_path, tasks=TASKS)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "ks/train.csv"]
    out = tmp_path / "ours"
    shutil.copytree(whole, out)
    (out / "sid").mkdir()
    (out / "sid/train.csv").write_text("mine")
    with pytest.raises(UserError, match=r"sid/train\.csv: isn't the manifest that is generated there"):
        synthesise("nano", out, tasks=("sid",))
    assert (out / "sid/train.csv").read_text() == "mine" and same(out, whole)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/corpus: there is a file where a folder should be\."):
        synthesise("nano", tmp_path / "file" / "corpus")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_worker_explains_a_missing_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "clip.flac")

    monkeypatch.setattr(worker, "render_shard", refuse)
    assert worker.main(["ks", "nano", "0", "1", str(tmp_path)]) == 2
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}: .*\n", capsys.readouterr().err)


def test_a_worker_raises_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ECHILD, "No child processes")

    monkeypatch.setattr(worker, "render_shard", fail)
    with pytest.raises(ChildProcessError):
        worker.main(["ks", "nano", "0", "1", str(tmp_path)])
