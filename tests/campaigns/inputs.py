"""The kinds of files that are fuzzed: valid seed files, tokens that matter in them, and their readers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.campaigns import data_folders, models


@dataclass(frozen=True)
class Kind:
    """A kind of file; `seeds` may also write files that the reader needs into the folder."""

    name: str
    suffix: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    words: Sequence[bytes] = ()
    count: int = 1000


def _audio(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(3200)
    files = []
    for form, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("WAV", "PCM_24"),
        ("WAV", "ULAW"),
        ("WAV", "MS_ADPCM"),
        ("WAVEX", "PCM_16"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ):
        files.append(_written(noise, 16_000, form, subtype))
    for rate in (4_000, 8_000, 44_100, 192_000):
        files.append(_written(noise, rate, "WAV", "PCM_16"))
    for channels in (2, 5, 8):
        files.append(_written(np.stack([noise] * channels, axis=1), 16_000, "FLAC", "PCM_16"))
    for odd in (
        noise[:0],
        noise[:1],
        noise[:799],
        noise[:800],
        np.full(3200, np.nan),
        np.full(3200, 1e-40),
        np.full(3200, 1e30),
        np.zeros(3200),
        np.where(np.arange(3200) == 7, np.inf, noise),
    ):
        files.append(_written(odd, 16_000, "WAV", "FLOAT"))
    return files


def _written(samples: Any, rate: int, form: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def _read_audio(path: Path) -> object:
    from superb_eval.data import audio
    from superb_eval.data.audio import Clip

    header = audio.header(Clip(path))
    wave = audio.read(Clip(path))
    assert wave.dtype == np.float32 and np.isfinite(wave).all() and len(wave) >= 800
    assert abs(len(wave) / audio.SAMPLE_RATE - header.seconds) < 0.01
    return wave


def _recipes(folder: Path) -> list[bytes]:
    from superb_eval import recipe

    return [
        path.read_bytes() for profile in recipe.PROFILES for path in sorted((recipe.folder() / profile).glob("*.yaml"))
    ]


def _read_recipe(path: Path) -> object:
    from superb_eval import recipe

    return recipe.load(path)


YAML = (
    b"&a [",
    b"*a",
    b": ",
    b"- ",
    b"{",
    b"[" * 40,
    b"!!python/object/apply:os.system [id]",
    b"train:",
    b"null",
    b"|",
    b"2001-01-01",
    b"steps: 1",
    b"<<: *a",
    b"? ",
    b"---\n",
    b"0b11",
    b"features: {layer: 3}",
    b"\xe2\x80\xa8",
)


def _write_audio_files(folder: Path) -> None:
    (folder / "a").mkdir(exist_ok=True)
    for name in ("x", "y"):
        (folder / f"a/{name}.wav").write_bytes(_written(np.zeros(1600), 16_000, "WAV", "PCM_16"))
    if not (folder / "a/out.wav").is_symlink():
        (folder / "a/out.wav").symlink_to("/etc/hostname")


TABLE = [
    ("id", "path", "start", "end", "speaker", "keyword"),
    ("1", "a/x.wav", "", "", "s", "yes"),
    ("2", "a/y.wav", "0", "0.05", "s", "no"),
    ("3", "a/x.wav", "0.01", "0.1", "t", 'é, "quoted"'),
]


def _manifests(folder: Path) -> list[bytes]:
    _write_audio_files(folder)
    quoted = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in TABLE)
    plain = "\n".join(",".join(row) for row in TABLE[:3])
    return [quoted.encode(), plain.encode(), plain.replace("\n", "\r\n").encode(), "\ufeff".encode() + plain.encode()]


def _parquet(folder: Path) -> list[bytes]:
    import pandas

    _write_audio_files(folder)
    file = io.BytesIO()
    pandas.DataFrame(TABLE[1:], columns=list(TABLE[0])).to_parquet(file)
    return [file.getvalue()]


def _read_manifest(path: Path) -> object:
    from superb_eval.data import read_manifest

    renamed = path.rename(path.with_name(f"train{path.suffix}"))
    try:
        split = read_manifest.read_split(path.parent, "train", ("keyword",), path.parent)
    finally:
        renamed.rename(path)
    assert all(path.parent in u.clip.path.resolve().parents for u in split)
    return split


def _rttm(folder: Path) -> list[bytes]:
    lines = [
        "SPEAKER r1 1 0.00 1.50 <NA> <NA> a <NA> <NA>",
        "; a comment",
        "SPEAKER r1 1 1.25 2 <NA> <NA> b <NA> <NA>",
        "SPKR-INFO r1 1 <NA> <NA> <NA> unknown a <NA>",
        "SPEAKER\tr2\t1\t0\t3.5\t<NA>\t<NA>\tc\t<NA>\t<NA>",
    ]
    return ["\n".join(lines).encode()]


def _read_rttm(path: Path) -> object:
    from superb_eval.corpora import recordings
    from superb_eval.data import rttm

    lines, bad = rttm.read_rttm(path)
    by = rttm.group_by_recording(lines)
    parsed = [recordings.Recording(name, path, 4.0, turns) for name, turns in by.items()]
    bad += [problem for recording in parsed for problem in recordings.turn_problems(recording, False)]
    recordings.raise_if_bad(path, bad, "Fix these lines.")
    for recording in parsed:
        recordings.chunked_split("train", path, [recording], 2.0)
    return parsed


LEXICON = b"A\tA |\nAN\tA N |\nTEA\tT E A |\nEAT\tE A T |\n"
ARPA = b"""\\data\\
ngram 1=7
ngram 2=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.3
-1.0\t</s>
-1.0\tA\t-0.3
-1.0\tAN\t-0.3
-1.0\tTEA\t-0.3
-1.0\tEAT\t-0.3

\\2-grams:
-0.5\tA\tTEA
-0.5\tTEA\tEAT

\\end\\
"""


def _lexicons(folder: Path) -> list[bytes]:
    (folder / "lm.arpa").write_bytes(ARPA)
    return [LEXICON, LEXICON.replace(b"\t", b" "), LEXICON.replace(b"\n", b"\r\n")]


def _arpas(folder: Path) -> list[bytes]:
    (folder / "words.lst").write_bytes(LEXICON)
    return [ARPA]


def _beam_search(lm: Path, lexicon: Path) -> object:
    import torch

    from downstreams.text.beam_search import BeamSearch, LanguageModelSettings
    from downstreams.text.vocabulary import LETTER_SPECIALS, LETTERS

    settings = LanguageModelSettings(lm=str(lm), lexicon=str(lexicon))
    letters = [*LETTER_SPECIALS, *LETTERS]
    return BeamSearch(settings, letters).words(torch.randn(12, len(letters)).log_softmax(-1))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("audio", ".wav", _audio, _read_audio, (b"RIFF", b"data", b"fmt ", b"fLaC", b"OggS", b"LIST"), 10_000),
        Kind("recipe", ".yaml", _recipes, _read_recipe, YAML),
        Kind(
            "manifest", ".csv", _manifests, _read_manifest, (b'"', b",", b"a/x.wav", b"a/out.wav", b"../a/x.wav", b"id")
        ),
        Kind("parquet", ".parquet", _parquet, _read_manifest, (b"PAR1",)),
        Kind("rttm", ".rttm", _rttm, _read_rttm, (b"SPEAKER ", b"r1", b";")),
        Kind(
            "lexicon",
            ".lst",
            _lexicons,
            lambda path: _beam_search(path.with_name("lm.arpa"), path),
            (b"|", b"A", b"\t"),
        ),
        Kind(
            "arpa",
            ".arpa",
            _arpas,
            lambda path: _beam_search(path, path.with_name("words.lst")),
            (b"ngram 3=1", b"\\end\\"),
        ),
        Kind(
            "record",
            ".json",
            models.records,
            models.read_record,
            (b"null", b"[", b"{" * 2, b'"', b"1e999", b"NaN", b"true"),
        ),
        Kind(
            "checkpoint", ".pt", models.checkpoints, models.read_checkpoint, (b"PK", b"cposix\nsystem\n", b"ctorch\n")
        ),
        Kind("kaldi", ".scp", data_folders.kaldi, data_folders.read_kaldi, (b"r1", b"u1", b"|", b"-1", b"nan", b"..")),
        Kind(
            "lhotse", ".jsonl", data_folders.lhotse, data_folders.read_lhotse, (b"null", b"[", b"{}", b"1e999", b"NaN")
        ),
        Kind(
            "hugging face",
            ".table",
            data_folders.hugging_face,
            data_folders.read_hugging_face,
            (b"PAR1", b"null", b"{"),
        ),
        Kind("safetensors", ".safetensors", models.safetensors, models.read_checkpoint, (b'"dtype":"F64"', b"[0,1]")),
    )
}
