"""Links out of a corpus folder: found, counted, and kept out of what is passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval import recipe
from superb_eval.data import links


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpus with a file of its own, a link within it, a linked file, and a linked folder."""
    outside, root = tmp_path / "archive", tmp_path / "corpus"
    for folder in (outside / "more", root / "audio"):
        folder.mkdir(parents=True)
    for path in (outside / "a.wav", outside / "more/b.wav", root / "audio/own.wav"):
        path.touch()
    (root / "audio/within.wav").symlink_to("own.wav")
    (root / "audio/a.wav").symlink_to(outside / "a.wav")
    (root / "folder").symlink_to(outside / "more")
    return root


NAMES = ("audio/own.wav", "audio/within.wav", "audio/a.wav", "folder/b.wav")


def test_links_out_of_the_folder_are_counted_with_an_example(root: Path, tmp_path: Path) -> None:
    sentence = "2 of 4 audio files are links that lead out of the corpus folder, such as audio/a.wav -> "
    paths = [root / name for name in NAMES]
    assert links.describe_links([*paths, *paths], root) == sentence + str(tmp_path / "archive/a.wav")
    assert links.describe_links(paths[:2], root) == ""


def test_a_corpus_folder_may_be_a_link_itself(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "other", Path("other"), Path("other/../other")):
        assert links.describe_links([folder / name for name in NAMES[:2]], folder) == ""
        assert links.describe_links([folder / name for name in NAMES], folder).startswith("2 of 4 audio files")


def test_files_named_outside_the_folder_are_no_links(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "archive/a.wav"
    assert links.describe_links([outside, root / NAMES[0]], root) == ""
    folder = links.CorpusFolder(root)
    assert not folder.holds(outside) and not folder.holds(root / NAMES[2]) and folder.holds(root / NAMES[1])


def test_how_links_are_treated_is_in_no_digest_but_where_it_always_was() -> None:
    digests = {
        chosen: recipe.load(recipe.find("ks", "nano"), [f"corpus.allow_links={chosen}"]).digest()
        for chosen in ("null", "false", "true")
    }
    assert digests["null"] == digests["false"] == recipe.load(recipe.find("ks", "nano")).digest() != digests["true"]
