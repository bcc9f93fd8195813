"""Changed inputs of a run are noticed: behind links, at equal size and time, and next to a user's encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from superb_eval.suite import inputs, jobs
from superb_eval.suite.jobs import Job, SuiteConfig


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A corpus whose audio is elsewhere: a folder and a file behind links, and a cyclic link."""
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    (corpus / "ks").mkdir(parents=True)
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "a.flac").write_bytes(b"one")
    (tmp_path / "b.flac").write_bytes(b"two")
    (corpus / "ks" / "train.csv").write_text("id,path\n")
    (corpus / "audio").symlink_to(elsewhere, target_is_directory=True)
    (corpus / "b.flac").symlink_to(tmp_path / "b.flac")
    (elsewhere / "back").symlink_to(corpus, target_is_directory=True)
    return corpus


def current_state(path: Path) -> str:
    inputs.clear_cache()
    return inputs.file_state(path)


def test_files_behind_links_count(linked: Path, tmp_path: Path) -> None:
    before = current_state(linked)
    assert current_state(linked) == before, "and the cyclic link is followed once"
    (tmp_path / "elsewhere" / "deep" / "a.flac").write_bytes(b"three")
    changed = current_state(linked)
    assert changed != before
    (tmp_path / "b.flac").write_bytes(b"four")
    assert current_state(linked) != changed


def test_a_dangling_link_is_a_state_too(linked: Path, tmp_path: Path) -> None:
    before = current_state(linked)
    (tmp_path / "b.flac").unlink()
    assert current_state(linked) not in ("", before)


def test_a_file_changed_at_equal_size_and_time(linked: Path, tmp_path: Path) -> None:
    path, before = tmp_path / "elsewhere" / "deep" / "a.flac", current_state(linked)
    state = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert current_state(linked) != before


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's encoder next to a helper, a configuration and unrelated files."""
    folder = tmp_path / "own"
    texts = {
        "encoder.py": "from helper import F",
        "helper.py": "F = 1",
        "parts/deep.py": "G = 1",
        "cfg.json": "{}",
        "train.log": "",
        ".git/HEAD": "",
        "__pycache__/encoder.pyc": "",
        "venv/pyvenv.cfg": "",
        "venv/lib/torch.py": "",
        "results/u/result.json": "",
        "corpus/a.csv": "",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def upstream(own: Path) -> str:
    inputs.clear_cache()
    return inputs.upstream_state(f"{own}/encoder.py:Mine", (own / "results", own / "corpus"))


@pytest.mark.parametrize("name", ["encoder.py", "helper.py", "parts/deep.py", "cfg.json", "new.bin"])
def test_files_that_an_encoder_may_read_count(name: str, own: Path) -> None:
    before = upstream(own)
    assert upstream(own) == before
    (own / name).write_text("changed")
    assert upstream(own) != before


@pytest.mark.parametrize(
    "name",
    ["train.log", ".git/HEAD", "__pycache__/encoder.pyc", "venv/lib/torch.py", "results/u/result.json", "corpus/b.csv"],
)
def test_files_that_an_encoder_does_not_read_do_not_count(name: str, own: Path) -> None:
    before = upstream(own)
    (own / name).write_text("changed")
    assert upstream(own) == before


def test_too_many_files_never_count_as_unchanged(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_FILES", 4)
    assert upstream(own) != upstream(own)


def job_of(data: Path, out: Path) -> Job:
    (job,) = jobs.expand(SuiteConfig(("fbank",), ("ks",), data, overrides=("train.steps=4",), out=out))
    return job


def raise_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from downstreams.ks import KeywordSpotting

    monkeypatch.setattr(KeywordSpotting, "version", 2)


def raise_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("superb_eval.results.code_versions.ENGINE_VERSION", 2)


@pytest.mark.parametrize("change", [raise_task, raise_engine])
def test_versions_count(
    change: Callable[[pytest.MonkeyPatch], None], tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tones, tmp_path / "r")
    before = jobs.signature(job)
    change(monkeypatch)
    assert jobs.signature(job) != before


@pytest.mark.slow
def test_a_receipt_with_another_signature_opens_the_finished_run(tones: Path, tmp_path: Path) -> None:
    """As receipts from before versions were recorded are."""
    from superb_eval.runtime.progress import NoProgress
    from superb_eval.suite.execute import execute

    job = job_of(tones, tmp_path / "r")
    receipt = execute(job, NoProgress())
    record = job.out / receipt.run / "result.json"
    before = record.stat()
    content = json.loads(job.receipt_path().read_text())
    job.receipt_path().write_text(json.dumps({**content, "signature": "f" * 64}))
    inputs.clear_cache()
    assert jobs.finished(job) is None
    again = execute(job, NoProgress())
    assert (again.run, again.figures, again.signature) == (receipt.run, receipt.figures, receipt.signature)
    assert record.stat().st_mtime_ns == before.st_mtime_ns, "nothing was computed again"
    assert jobs.finished(job)
