"""Audio paths of manifests: files must be inside the corpus folder, or the row is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.data.audio_paths import AudioPaths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "audio").mkdir(parents=True)
    (root / "audio" / "a.wav").touch()
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the corpus, whose name begins with the corpus' own."""
    outside = tmp_path / "corpus-secret"
    outside.mkdir()
    (outside / "s.wav").touch()
    return outside


@pytest.mark.parametrize("path", ["audio/a.wav", "./audio/a.wav", "audio//a.wav"])
def test_files_in_the_folder_are_accepted(root: Path, path: str) -> None:
    assert AudioPaths(root).problems(path) == []


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../corpus-secret/s.wav", "audio/../../corpus-secret/s.wav", "audio/..", "..\\s.wav"]
)
@pytest.mark.parametrize("allow_links", [False, None, True])
def test_paths_that_lead_out_are_refused(root: Path, outside: Path, path: str, allow_links: bool | None) -> None:
    (problem,) = AudioPaths(root, allow_links).problems(path)
    assert problem.startswith(f"path '{path}' leads out of the corpus folder; it must be relative to {root}")


def test_links_that_lead_out_are_followed_unless_refused(root: Path, outside: Path) -> None:
    (root / "link.wav").symlink_to(outside / "s.wav")
    (root / "folder").symlink_to(outside)
    for path in ("link.wav", "folder/s.wav"):
        (problem,) = AudioPaths(root, allow_links=False).problems(path)
        assert problem.startswith(f"path '{path}' leads out of the corpus folder, by a link to {outside}")
        assert AudioPaths(root).problems(path) == []


def test_links_that_stay_in_the_folder_are_followed(root: Path) -> None:
    (root / "link.wav").symlink_to("audio/a.wav")
    (root / "folder").symlink_to("audio")
    other_name = root.parent / "other"
    other_name.symlink_to(root)
    for name in (root, other_name):
        assert AudioPaths(name).problems("link.wav") == AudioPaths(name).problems("folder/a.wav") == []


def test_missing_files_are_refused(root: Path) -> None:
    for path in ("none.wav", "none/a.wav", "audio"):
        assert AudioPaths(root).problems(path) == [f"no such file: {root}/{path}"]


@pytest.mark.parametrize("allow_links", [False, None])
def test_broken_links_and_loops_are_refused_in_one_sentence(root: Path, allow_links: bool | None) -> None:
    (root / "broken.wav").symlink_to("audio/none.wav")
    (root / "loop.wav").symlink_to("loop.wav")
    (root / "folder").symlink_to("folder")
    for path, target in (("broken.wav", "audio/none.wav"), ("loop.wav", "loop.wav")):
        problems = AudioPaths(root, allow_links).problems(path)
        assert problems == [f"no such file: {root}/{path} is a link to {target}, which leads to none"]
    assert AudioPaths(root, allow_links).problems("folder/a.wav") == [f"no such file: {root}/folder/a.wav"]


def test_an_invalid_file_name_is_refused(root: Path) -> None:
    for path in ("audio/\0.wav", "\0/a.wav", "a" * 5000):
        (problem,) = AudioPaths(root).problems(path)
        assert "is not a valid file name" in problem or "no such file" in problem


def test_a_folder_that_is_listed_holds_the_same_files(
    root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "audio" / "out.wav").symlink_to(outside / "s.wav")
    (root / "audio" / "broken.wav").symlink_to("none")
    (root / "audio" / "folder").mkdir()
    names = [f"audio/{name}" for name in ("a.wav", "out.wav", "broken.wav", "folder", "none.wav", "", ".")]
    one_by_one = [AudioPaths(root, allow_links=False).problems(name) for name in names]
    monkeypatch.setattr("superb_eval.data.audio_paths.MANY", 0)
    assert [AudioPaths(root, allow_links=False).problems(name) for name in names] == one_by_one
    assert one_by_one[0] == [] and all(one_by_one[1:])
