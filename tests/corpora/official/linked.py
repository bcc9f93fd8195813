"""Copies of a corpus folder in which links lead to its folders or files, as labs keep their data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from superb_eval.data.links import describe_links
from superb_eval.data.manifest import Corpus


def linked_copies(root: Path, out: Path) -> Iterator[Path]:
    """Yield a link to `root`, then a copy for each depth of folders: what lies there is a link to the original."""
    out.mkdir()
    (out / "0").symlink_to(root)
    yield out / "0"
    deepest = max(len(path.relative_to(root).parts) for path in root.rglob("*"))
    for depth in range(1, deepest + 1):
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            place = out / str(depth) / path.relative_to(root)
            if len(parts) == depth or (len(parts) < depth and path.is_file()):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
        yield out / str(depth)


def assert_links_are_followed(load: Callable[[Path], Corpus], root: Path, out: Path) -> None:
    """Read every copy: the same rows, from files that are there."""
    original = load(root)
    digests = {name: split.digest() for name, split in original.splits.items()}
    copies = list(linked_copies(root, out))
    assert len(copies) > 3
    for copy in copies:
        corpus = load(copy)
        assert {name: split.digest() for name, split in corpus.splits.items()} == digests, copy.name
        assert corpus.notes == original.notes and all(clip.path.is_file() for clip in corpus.clips())
        linked = describe_links((clip.path for clip in corpus.clips()), corpus.root)
        outside = all(clip.path.is_relative_to(root) for clip in corpus.clips())  # lists of absolute paths
        assert bool(linked) == (copy.name != "0" and not outside)
