"""Feature stores: their budgets, files in them that aren't ours, other users' stores, and stores that go away."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from superb_eval.errors import UserError
from superb_eval.features import load_or_extract
from superb_eval.features.store import MADE_ON, UPSTREAM, Store
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from superb_eval.runtime import locks, safetensors_io
from tests.campaigns.commands import type_command
from tests.campaigns.kill import differences
from tests.faults.conftest import Same

SHORT = ("-o", "train.steps=6", "-o", "train.eval_every=3", "-o", "train.lr=1e-2")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shard(store: Store, name: str, size: int = 1000, age: float = 0.0) -> Path:
    """Write a shard of another run of about so many bytes."""
    path = store.address(name)
    safetensors_io.write(path, {"values": torch.zeros(size // 4, 1, 1)}, {MADE_ON: "cpu float32", UPSTREAM: name})
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


@pytest.mark.parametrize("text", ["nan", "-1", "0", "inf", "-inf", "1e999", "plenty", ""])
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_budget_is_checked_before_anything_else(
    text: str, by: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    shard(Store(store), "another run's")
    before = contents(store)
    option = ["--store-gb", text] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("SUPERB_EVAL_STORE_GB", text)
    for command in (["run", "ks", "-u", "fbank"], ["suite", "-u", "fbank", "--tasks", "ks"], ["layers", "fbank"]):
        done = type_command(*command, "--data", tones, "--out", tmp_path / "r", "--store", store, *option)
        assert done.refused and len(done.err.splitlines()) == 1, done.err
        assert ("SUPERB_EVAL_STORE_GB" if by == "environment" else "--store-gb") in done.err
    assert contents(store) == before and not (tmp_path / "r").exists()


def test_a_budget_smaller_than_a_run_deletes_nothing(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_or_extract, "SHARD_UTTERANCES", 8)  # each of which would fit
    store = tmp_path / "store"
    shard(Store(store), "another run's", 40_000)
    before = contents(store)
    options = ["--store", store, "--store-gb", "5e-5", "--out", tmp_path / "r"]
    done = type_command("run", "ks", "-u", "fbank", "--data", tones, *options, *SHORT)
    assert done.refused and "need 6.9e-05 GB, more than the budget of 5e-05 GB. Raise it with --store-gb" in done.err
    assert {name: text for name, text in contents(store).items() if name in before} == before


def test_what_a_store_did_not_write_is_not_deleted_and_does_not_count(tones: Path, tmp_path: Path) -> None:
    """A folder of a user's own networks as the store."""
    store = Store(tmp_path / "store")
    old, new = (shard(store, name, 40_000, age) for name, age in (("old", 2.0), ("new", 1.0)))
    weights = {"weight": torch.zeros(100_000)}
    named = store.address("a user's file by the name of a shard")
    marked = store.folder / "mymodel/model.safetensors"
    link = store.address("a link")
    for path in (store.folder / "mymodel/weights.safetensors", named):
        safetensors_io.write(path, weights)
    safetensors_io.write(marked, weights, {MADE_ON: "cpu", UPSTREAM: "x"})
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(marked)
    os.mkfifo(store.folder / "mymodel/pipe.safetensors")
    before = contents(store.folder)
    options = ["--store", store.folder, "--store-gb", "1.2e-4", "--out", tmp_path / "r"]
    done = type_command("run", "ks", "-u", "fbank", "--data", tones, *options, *SHORT)
    assert done.code == 0, done.err
    assert not old.exists() and new.exists()
    assert before.items() - contents(store.folder).items() == {
        (str(old.relative_to(store.folder)), before.pop(str(old.relative_to(store.folder))))
    }
    assert link.is_symlink()


def test_a_shard_of_other_features_counts_as_damaged(tmp_path: Path) -> None:
    """By its name and checksum it is valid."""
    store, header = Store(tmp_path), {MADE_ON: "cpu float32", UPSTREAM: "x"}
    path, values, lengths = store.address("x"), torch.zeros(6, 2, 3), torch.tensor([1, 2, 3])
    for tensors, utterances in (({"values": values}, 6), ({"values": values, "lengths": lengths}, 3)):
        safetensors_io.write(path, tensors, header)
        assert store.read(path, utterances) is not None
    hostile = (
        ({"values": values[:-1]}, header),
        ({"values": values.long()}, header),
        ({"values": values[0]}, header),
        ({"other": values}, header),
        ({"values": values}, {}),
        ({"values": values, "lengths": lengths}, header),
        ({"values": values, "lengths": torch.tensor([9, 1, 1, 1, 1, -7])}, header),
        ({"values": values, "lengths": torch.ones(6)}, header),
        ({"values": values, "lengths": torch.ones(6, 1, dtype=torch.int64)}, header),
    )
    for content, text in hostile:
        safetensors_io.write(path, content, text)
        with pytest.warns(UserWarning, match=f"{path.name}: no features of 6 utterances; they are extracted again"):
            assert store.read(path, 6) is None


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
def test_what_is_no_file_in_place_of_a_shard_is_refused(kind: str, config: RunConfig) -> None:
    evaluate(config)
    (path,) = Path(config.store or "").glob("*/*.safetensors")
    path.unlink()
    {"pipe": os.mkfifo, "folder": os.mkdir, "broken link": lambda p: p.symlink_to("nowhere")}[kind](path)
    with pytest.raises(UserError, match=f"{path.name}: is a folder, a pipe or a broken link where a shard belongs"):
        evaluate(replace(config, fresh=True))


def test_a_lock_file_is_not_followed_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "lock").symlink_to("mine.txt")
    with (
        pytest.raises(UserError, match="lock: is a link where a lock file belongs. Remove it"),
        locks.hold(tmp_path / "lock"),
    ):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"
    with pytest.raises(UserError, match="is a folder"), locks.hold(tmp_path):
        pass


def refuse_writing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Refuse to create or change files in a folder, as one of another user does, for root too."""
    open_, mkdir, utime, access = os.open, os.mkdir, os.utime, os.access

    def inside(path: object) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(folder)

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    def opened(path, flags, *rest, **more):  # type: ignore[no-untyped-def]
        return refuse(path) if inside(path) and flags & (os.O_RDWR | os.O_WRONLY) else open_(path, flags, *rest, **more)

    def may(path, mode):  # type: ignore[no-untyped-def]
        return access(path, mode) and not (inside(path) and mode & os.W_OK)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "access", may)
    monkeypatch.setattr(os, "mkdir", lambda path, *rest: refuse(path) if inside(path) else mkdir(path, *rest))
    monkeypatch.setattr(os, "utime", lambda path, *rest: refuse(path) if inside(path) else utime(path, *rest))


def test_another_users_store_is_read_and_not_written(
    config: RunConfig, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(config)
    store = Path(config.store or "")
    for path in store.rglob("*.lock"):
        path.unlink()
    before = contents(store)
    refuse_writing(monkeypatch, store)
    record, folder = evaluate(replace(config, fresh=True))
    same(record, folder)
    assert record.features.extracted == 0 and contents(store) == before
    with pytest.raises(UserError, match=rf"{store}: lacks features of this run, .* with --store"):
        evaluate(replace(config, upstream="fbank"))
    assert contents(store) == before


def test_a_store_that_goes_away_during_a_run_loses_nothing(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is mapped stays; what is written next makes the store again."""
    monkeypatch.setattr(load_or_extract, "SHARD_UTTERANCES", 8)
    unbroken = replace(config, out=config.out / "unbroken", store=config.out / "other")
    evaluate(unbroken)
    write, written = Store.write, []

    def vanishing(self: Store, *inputs: object) -> object:
        written.append(write(self, *inputs))  # type: ignore[arg-type]
        if len(written) in (2, 5):
            shutil.rmtree(self.folder)
        return written[-1]

    monkeypatch.setattr(Store, "write", vanishing)
    record, _ = evaluate(replace(config, out=config.out / "broken"))
    assert len(written) == 8 and record.features.extracted == 72
    assert differences(unbroken.out, config.out / "broken") == []
