"""The sources of a recipe's audio: finds their clips, less every file that a task holds out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from superb_eval.data import links, manifest, read_manifest, table_io
from superb_eval.data.audio import Clip
from superb_eval.data.audio_paths import AudioPaths
from superb_eval.data.importers.audio_files import is_audio
from superb_eval.errors import UserError, listed, near_miss
from superb_eval.pretraining.probe_settings import ProbeSettings
from superb_eval.pretraining.recipe import DataSettings, Source
from superb_eval.runtime import atomic_files
from superb_eval.runtime.progress import Progress

SourcePaths = Mapping[str, Path]
"""The path of each source, by its name in the recipe."""


def parse_paths(options: Sequence[str], settings: DataSettings, probe: ProbeSettings | None = None) -> dict[str, Path]:
    """Return the paths of sources, and of the probe's corpus, from `--data NAME=PATH` options.

    Raises:
        UserError: an option has another form, or the recipe has no source of its name.
    """
    names = [source.name for source in settings.sources] + list(settings.exclude)
    names += [probe.data] if probe is not None and probe.data else []
    paths = {}
    for text in options:
        name, equals, path = text.partition("=")
        if not equals:
            raise UserError(f"--data {text}: expected NAME=PATH, with a NAME that the recipe uses: {', '.join(names)}.")
        if name not in names:
            raise UserError(
                f"--data {text}: the recipe has no source '{name}'.{near_miss(name, names)} Known: {', '.join(names)}."
            )
        paths[name] = Path(path)
    return paths


def source_path(name: str, paths: SourcePaths) -> Path:
    """Return the path of a source: from `--data`, else its name taken as a path.

    Raises:
        UserError: nothing exists there.
    """
    path = paths.get(name, Path(name))
    if not path.exists():
        raise UserError(f"{path}: no such source of audio. Give its path: --data {name}=PATH.")
    return path


def find_clips(settings: DataSettings, paths: SourcePaths, seed: int, progress: Progress) -> list[Clip]:
    """Return the clips of all sources, each segment of a file once, in a fixed order.

    Raises:
        UserError: a source does not exist or holds no audio.
    """
    clips: list[Clip] = []
    held_out: set[Path] = set()
    for source in settings.sources:
        root = _source_root(source, paths, progress)
        own = _READERS[source.kind](root, source)
        if not own:
            raise UserError(f"{root}: holds no audio for pre-training ({source.kind}). Check the recipe's sources.")
        clips += _draw_share(own, source.share, seed)
        if source.kind in ("corpus", "synthetic"):
            held_out |= _held_out_files(root)
    for name in settings.exclude:
        held_out |= _excluded_files(source_path(name, paths))
    allowed, dropped = _without(list(dict.fromkeys(clips)), held_out)
    if dropped:
        progress.log(f"{dropped} clips are left out: dev, test or an excluded manifest holds the same file")
    return _draw_share(allowed, settings.share, seed)


def _source_root(source: Source, paths: SourcePaths, progress: Progress) -> Path:
    """Return the folder or file of a source; embedded speech is synthesised on first use."""
    if source.kind != "synthetic" or source.name in paths:
        return source_path(source.name, paths)
    from superb_eval.corpora import embedded

    size, _, seed = source.location.partition("/")
    if size not in ("nano", "mini") or not (seed or "0").isdigit():
        raise UserError(f"synthetic: {source.location}: expected nano or mini, or a seed with it such as mini/1.")
    out = embedded.default_folder(f"unlabelled-{size}-{seed or 0}")
    if not (out / "corpus.json").is_file():
        embedded.synthesise(size, out, int(seed or 0), progress, ["unlabelled"])
    return out


def _draw_share(clips: list[Clip], share: float, seed: int) -> list[Clip]:
    """Draw a share of clips, in their order; a larger share contains every smaller one."""
    order = np.random.default_rng(seed).permutation(len(clips))
    count = max(1, round(share * len(clips)))
    return [clips[i] for i in sorted(order[:count].tolist())]


def _corpus(root: Path, source: Source) -> list[Clip]:
    """Return the training rows of every task of a manifest corpus."""
    del source
    return [clip for table in _manifests(root) for split, clip in _rows(table, root) if split == "train"]


def _held_out_files(root: Path) -> set[Path]:
    """Return the files of a corpus's rows outside training: dev, test, QbE's queries and documents."""
    return {clip.path for table in _manifests(root) for split, clip in _rows(table, root) if split != "train"}


def _librispeech(root: Path, source: Source) -> list[Clip]:
    base = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    parts = source.parts or tuple(sorted(p.name for p in base.glob("train-*") if p.is_dir()))
    missing = [part for part in parts if not (base / part).is_dir()]
    if missing or not parts:
        raise UserError(f"{base}: has no {', '.join(missing) or 'train-* folder'}. Give LibriSpeech's root.")
    return [clip for part in parts for clip in _folder(base / part, source)]


def _folder(root: Path, source: Source) -> list[Clip]:
    del source
    return [Clip(path) for path in sorted(links.files_below(root)) if is_audio(path.name)]


def _manifest(path: Path, source: Source) -> list[Clip]:
    del source
    return [clip for _, clip in _rows(path, _audio_root(path))]


_READERS: dict[str, Callable[[Path, Source], list[Clip]]] = {
    "corpus": _corpus,
    "synthetic": _corpus,
    "librispeech": _librispeech,
    "folder": _folder,
    "manifest": _manifest,
}


def _excluded_files(path: Path) -> set[Path]:
    """Return the files that an excluded manifest names, or that an excluded corpus holds out."""
    return _held_out_files(path) if path.is_dir() else {clip.path for _, clip in _rows(path, _audio_root(path))}


def _manifests(root: Path) -> list[Path]:
    """Return the manifests of all tasks of a corpus: tables that have a column of paths."""
    tables = sorted(path for suffix in ("csv", "parquet") for path in root.glob(f"*/*.{suffix}"))
    return [path for path in tables if "path" in table_io.column_names(path)]


def _audio_root(path: Path) -> Path:
    """Return the folder that a manifest's paths are relative to: its own, or that of the corpus it belongs to."""
    table = table_io.read(path)
    if "path" not in table.columns:
        raise UserError(f"{path}: has no column 'path' (found: {listed(table.columns)}).")
    first = table.cells[table.columns.index("path")][0].as_py() if len(table) else ""
    return path.parent if (path.parent / first).is_file() else path.parent.parent


def _rows(path: Path, root: Path) -> Iterable[tuple[str, Clip]]:
    """Yield the split and the clip of each row: the split is the file's name, or in a column `split`."""
    table = table_io.read(path)
    bad = []
    files = AudioPaths(root)
    for line, row in table.rows():
        cells = dict(zip(table.columns, row, strict=False))
        try:
            clip = Clip(root / cells["path"], *read_manifest.clip_bounds(cells))
        except (KeyError, ValueError):
            bad.append(f"{table_io.row_unit(path)} {line}: no path, or start and end are no seconds")
            continue
        # Missing files are left out, and reported, where they are read.
        outside = [problem for problem in files.problems(cells["path"]) if not problem.startswith("no such file")]
        if outside:
            bad.append(f"{table_io.row_unit(path)} {line}: {outside[0]}")
            continue
        yield path.stem if path.stem in manifest.SPLITS else cells.get("split", "held out"), clip
    if bad:
        raise UserError(manifest.bad_rows_message(path, bad))


def _without(clips: Sequence[Clip], held_out: set[Path]) -> tuple[list[Clip], int]:
    """Drop clips whose file has the content of a held-out one; only files of equal size are compared."""
    hashes: dict[int, set[str]] = {}
    for path in held_out:
        if path.is_file():
            hashes.setdefault(path.stat().st_size, set()).add(atomic_files.sha256(path))

    def is_allowed(path: Path) -> bool:
        if not path.is_file() or path.stat().st_size not in hashes:
            return True
        return atomic_files.sha256(path) not in hashes[path.stat().st_size]

    allowed = {path: is_allowed(path) for path in {clip.path for clip in clips}}
    remaining = [clip for clip in clips if allowed[clip.path]]
    return remaining, len(clips) - len(remaining)
