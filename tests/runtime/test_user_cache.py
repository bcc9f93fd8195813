"""The user's cache: where it is, and one sentence where there can be none."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from superb_eval.corpora import embedded
from superb_eval.errors import UserError
from superb_eval.features import store
from superb_eval.runtime import user_cache
from superb_eval.runtime.user_cache import CacheFolder

CACHES = pytest.mark.parametrize("cache", [user_cache.FEATURES, user_cache.CORPORA], ids=lambda cache: cache.name)


def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let platformdirs find no home, as in a container whose user id has no entry."""

    def fail(name: str) -> str:
        raise RuntimeError(f"could not determine the home directory of {name}")

    for cache in (user_cache.FEATURES, user_cache.CORPORA):
        monkeypatch.delenv(cache.variable, raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", fail)


def test_the_store_and_the_corpora_lie_where_their_variables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERB_EVAL_STORE", str(tmp_path / "a"))
    monkeypatch.setenv("SUPERB_EVAL_CORPORA", str(tmp_path / "b"))
    assert (store.default_folder(), embedded.cache_folder()) == (tmp_path / "a", tmp_path / "b")


@CACHES
def test_else_they_lie_in_the_users_cache(cache: CacheFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.variable, raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    assert cache.path() == tmp_path / "superb-eval" / cache.name


@CACHES
def test_a_user_without_a_home_is_told_the_variable(cache: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    without_home(monkeypatch)
    with pytest.raises(UserError, match=rf"{cache.content}: no home folder .* with .*{cache.variable}\.$"):
        cache.path()


@CACHES
def test_a_home_that_may_not_be_written_is_named_before_anything_is_made(
    cache: CacheFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cache.variable, raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "home" / name))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=rf"{tmp_path} may not be written\. .* with .*{cache.variable}\.$"):
        cache.path()
    (tmp_path / "home/superb-eval" / cache.name).mkdir(parents=True)  # a filled cache may be read alone
    assert cache.path().is_dir()
