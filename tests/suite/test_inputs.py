"""What a run is made from is seen to change behind links, with size and time kept, and beside a user's encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from superb_eval.suite import inputs, jobs
from superb_eval.suite.jobs import Job, Request


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A corpus whose audio lies elsewhere: a folder and a file behind links, and a link that leads back."""
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


def now(path: Path) -> str:
    inputs.forget()
    return inputs.state(path)


def test_files_behind_links_count(linked: Path, tmp_path: Path) -> None:
    before = now(linked)
    assert now(linked) == before, "and the link that leads back ends nowhere"
    (tmp_path / "elsewhere" / "deep" / "a.flac").write_bytes(b"three")
    changed = now(linked)
    assert changed != before
    (tmp_path / "b.flac").write_bytes(b"four")
    assert now(linked) != changed


def test_a_link_to_nowhere_is_a_state_too(linked: Path, tmp_path: Path) -> None:
    before = now(linked)
    (tmp_path / "b.flac").unlink()
    assert now(linked) not in ("", before)


def test_a_file_whose_size_and_time_were_kept(linked: Path, tmp_path: Path) -> None:
    path, before = tmp_path / "elsewhere" / "deep" / "a.flac", now(linked)
    state = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert now(linked) != before


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's encoder with a helper, a configuration and much else beside it."""
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
    inputs.forget()
    return inputs.upstream(f"{own}/encoder.py:Mine", (own / "results", own / "corpus"))


@pytest.mark.parametrize("name", ["encoder.py", "helper.py", "parts/deep.py", "cfg.json", "new.bin"])
def test_what_a_users_encoder_may_be_made_of_counts(name: str, own: Path) -> None:
    before = upstream(own)
    assert upstream(own) == before
    (own / name).write_text("changed")
    assert upstream(own) != before


@pytest.mark.parametrize(
    "name",
    ["train.log", ".git/HEAD", "__pycache__/encoder.pyc", "venv/lib/torch.py", "results/u/result.json", "corpus/b.csv"],
)
def test_what_it_is_not_made_of_does_not(name: str, own: Path) -> None:
    before = upstream(own)
    (own / name).write_text("changed")
    assert upstream(own) == before


def test_beside_too_many_files_nothing_is_taken_for_unchanged(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_FILES", 4)
    assert upstream(own) != upstream(own)


def job_of(data: Path, out: Path) -> Job:
    (job,) = jobs.expand(Request(("fbank",), ("ks",), data, overrides=("train.steps=4",), out=out))
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
def test_a_receipt_of_another_signature_opens_the_run_and_keeps_it(tones: Path, tmp_path: Path) -> None:
    """As those of before versions were kept are."""
    from superb_eval.runtime.progress import NoProgress
    from superb_eval.suite.execute import execute

    job = job_of(tones, tmp_path / "r")
    receipt = execute(job, NoProgress())
    record = job.out / receipt.run / "result.json"
    before = record.stat()
    content = json.loads(job.receipt().read_text())
    job.receipt().write_text(json.dumps({**content, "signature": "f" * 64}))
    jobs.forget()
    assert jobs.finished(job) is None
    again = execute(job, NoProgress())
    assert (again.run, again.figures, again.signature) == (receipt.run, receipt.figures, receipt.signature)
    assert record.stat().st_mtime_ns == before.st_mtime_ns, "nothing was computed"
    assert jobs.finished(job)
