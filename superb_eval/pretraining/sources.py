"""Where unlabelled audio comes from: sources of a recipe in, clips out, without any file that a task holds out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from superb_eval.data import manifest, table_io
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.pretraining.recipe import DataSettings, Source, place
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import Progress

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
"""Audio that is looked for in a folder."""

Named = Mapping[str, Path]
"""Where sources of a name lie."""


def clips(settings: DataSettings, named: Named, seed: int, progress: Progress) -> list[Clip]:
    """Return the clips of all sources, each stretch of a file once, in a fixed order.

    Raises:
        UserError: a source is not there or holds no audio.
    """
    found: list[Clip] = []
    held: set[Path] = set()
    for source in settings.sources:
        folder = _place(source, named, progress)
        own = _KINDS[source.kind](folder, source)
        if not own:
            raise UserError(f"{folder}: holds no audio for pre-training ({source.kind}). Check the recipe's sources.")
        found += _share(own, source.share, seed)
        if source.kind in ("corpus", "synthetic"):
            held |= _held_out(folder)
    for name in settings.exclude:
        held |= _listed(place(name, named))
    kept, dropped = _without(list(dict.fromkeys(found)), held)
    if dropped:
        progress.log(f"{dropped} clips are left out: dev, test or an excluded manifest holds the same file")
    return _share(kept, settings.share, seed)


def _place(source: Source, named: Named, progress: Progress) -> Path:
    if source.kind != "synthetic" or source.name in named:
        return place(source.name, named)
    from superb_eval.corpora import embedded

    size, _, seed = source.place.partition("/")
    if size not in ("nano", "mini") or not (seed or "0").isdigit():
        raise UserError(f"synthetic: {source.place}: expected nano or mini, or a seed with it such as mini/1.")
    out = embedded.place(f"unlabelled-{size}-{seed or 0}")
    if not (out / "corpus.json").is_file():
        embedded.synthesise(size, out, int(seed or 0), progress, ["unlabelled"])
    return out


def _share(found: list[Clip], share: float, seed: int) -> list[Clip]:
    """Draw a share of clips, in their order; a larger share holds every smaller one."""
    order = np.random.default_rng(seed).permutation(len(found))
    count = max(1, round(share * len(found)))
    return [found[i] for i in sorted(order[:count].tolist())]


def _corpus(root: Path, source: Source) -> list[Clip]:
    """The training rows of every task of a manifest corpus."""
    del source
    return [clip for table in _tables(root) for split, clip in _rows(table, root) if split == "train"]


def _held_out(root: Path) -> set[Path]:
    """Files in rows of a corpus that are no training rows: dev, test, QbE's queries and documents."""
    return {clip.path for table in _tables(root) for split, clip in _rows(table, root) if split != "train"}


def _librispeech(root: Path, source: Source) -> list[Clip]:
    base = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    parts = source.parts or tuple(sorted(p.name for p in base.glob("train-*") if p.is_dir()))
    missing = [part for part in parts if not (base / part).is_dir()]
    if missing or not parts:
        raise UserError(f"{base}: has no {', '.join(missing) or 'train-* folder'}. Give LibriSpeech's root.")
    return [clip for part in parts for clip in _folder(base / part, source)]


def _folder(root: Path, source: Source) -> list[Clip]:
    del source
    return [Clip(path) for path in sorted(_files(root)) if path.suffix.lower() in SUFFIXES]


def _files(root: Path) -> Iterator[Path]:
    """Yield the files under a folder, following links to folders; each folder is entered once, so loops end."""
    entered: set[str] = set()
    for folder, inside, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            inside.clear()
            continue
        entered.add(real)
        inside.sort()
        yield from (Path(folder) / name for name in names)


def _manifest(path: Path, source: Source) -> list[Clip]:
    del source
    return [clip for _, clip in _rows(path, _root(path))]


_KINDS: dict[str, Callable[[Path, Source], list[Clip]]] = {
    "corpus": _corpus,
    "synthetic": _corpus,
    "librispeech": _librispeech,
    "folder": _folder,
    "manifest": _manifest,
}


def _listed(path: Path) -> set[Path]:
    """The files that an excluded manifest names, or that an excluded corpus holds out."""
    return _held_out(path) if path.is_dir() else {clip.path for _, clip in _rows(path, _root(path))}


def _tables(root: Path) -> list[Path]:
    """The manifests of all tasks of a corpus: tables that have a column of paths."""
    found = sorted(path for suffix in ("csv", "parquet") for path in root.glob(f"*/*.{suffix}"))
    return [path for path in found if "path" in table_io.read(path).columns]


def _root(path: Path) -> Path:
    """What paths in a manifest are relative to: its folder, or the corpus whose task's folder it lies in."""
    table = table_io.read(path)
    if "path" not in table.columns:
        raise UserError(f"{path}: has no column 'path' (found: {', '.join(table.columns)}).")
    first = table.rows[0][table.columns.index("path")] if table.rows else ""
    return path.parent if (path.parent / first).is_file() else path.parent.parent


def _rows(path: Path, root: Path) -> Iterable[tuple[str, Clip]]:
    """Yield the split and the clip of each row: the file's name is the split, or a column of that name says it."""
    table = table_io.read(path)
    bad = []
    files = table_io.Files(root)
    for line, row in zip(table.places, table.rows, strict=True):
        cells = dict(zip(table.columns, row, strict=False))
        try:
            clip = Clip(root / cells["path"], *manifest.cut(cells))
        except (KeyError, ValueError):
            bad.append(f"{table_io.unit(path)} {line}: no path, or start and end are no seconds")
            continue
        # Files that are missing are left out, and told of, where they are read.
        outside = [problem for problem in files.problems(cells["path"]) if not problem.startswith("no such file")]
        if outside:
            bad.append(f"{table_io.unit(path)} {line}: {outside[0]}")
            continue
        yield path.stem if path.stem in manifest.SPLITS else cells.get("split", "held out"), clip
    if bad:
        raise UserError(manifest.listing(path, bad))


def _without(found: Sequence[Clip], held: set[Path]) -> tuple[list[Clip], int]:
    """Drop clips whose file has the content of a held-out one; only files of equal size are compared."""
    sizes: dict[int, set[str]] = {}
    for path in held:
        if path.is_file():
            sizes.setdefault(path.stat().st_size, set()).add(atomic_files.sha256(path))

    def free(path: Path) -> bool:
        if not path.is_file() or path.stat().st_size not in sizes:
            return True
        return atomic_files.sha256(path) not in sizes[path.stat().st_size]

    verdict = {path: free(path) for path in {clip.path for clip in found}}
    kept = [clip for clip in found if verdict[clip.path]]
    return kept, len(found) - len(kept)
