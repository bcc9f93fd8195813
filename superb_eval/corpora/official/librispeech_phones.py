"""PR: LibriSpeech's splits as in ASR, with phones from two pronunciation lexicons next to the corpus folder.

Source of the rules: s3prl `downstream/ctc/corpus/libriphone.py`, `libriphone.yaml`. The first pronunciation of a
word counts, in the order of the files; nothing marks the boundary between words.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from superb_eval.corpora.official import librispeech
from superb_eval.data.manifest import Corpus, Manifest, bad_rows_message
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

LEXICONS = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")

LAYOUT = f"{librispeech.LAYOUT}, and next to {librispeech.FOLDER} the lexicons {' and '.join(LEXICONS)}"
ORIGIN = "Both lexicons are free of charge: huggingface.co/datasets/s3prl/g2p"

present = librispeech.present


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits with the label columns `text` and `phones` (ARPAbet with stress, spaces between).

    Raises:
        UserError: see `librispeech.load`; a lexicon is missing or has a bad line, or a word is in neither.
    """
    lexicon = _lexicon(root)
    corpus = librispeech.load(root, settings)
    return replace(corpus, splits={name: _with_phones(split, lexicon) for name, split in corpus.splits.items()})


def _lexicon(root: Path) -> dict[str, str]:
    """Return the phones of each word; the first pronunciation counts, in the order of the files."""
    lexicon: dict[str, str] = {}
    for path in (root / name for name in LEXICONS):
        if not path.is_file():
            raise UserError(f"{path}: no such lexicon. PR needs {LAYOUT}. {ORIGIN}.")
        bad = []
        for number, line in enumerate(outside_files.read_text(path).splitlines(), start=1):
            word, _, phones = line.partition("\t")
            if not word or not phones.strip():
                bad.append(f"line {number}: '{line}' is not a word, a tab and its phones")
            lexicon.setdefault(word.upper(), " ".join(phones.split()))
        if bad:
            raise UserError(bad_rows_message(path, bad))
    return lexicon


def _with_phones(split: Manifest, lexicon: dict[str, str]) -> Manifest:
    """Return the split with the label column `phones`."""
    utterances, bad = [], []
    for u in split:
        words = u.labels["text"].split()
        missing = [word for word in words if word not in lexicon]
        if missing:
            row_name = f"{librispeech.transcripts(u).name} line {u.line} ({u.id})"
            bad.append(f"{row_name}: in no lexicon: {', '.join(missing)}; add a line of the word, a tab and its phones")
        else:
            phones = " ".join(lexicon[word] for word in words)
            utterances.append(replace(u, labels={**u.labels, "phones": phones}))
    if bad:
        raise UserError(bad_rows_message(split.source, bad))
    return replace(split, utterances=tuple(utterances))
