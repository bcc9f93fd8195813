"""PR: LibriSpeech's splits as ASR has them, the words looked up in pronunciation lexicons.

Source of the rules: s3prl `downstream/ctc/corpus/libriphone.py`, `libriphone.yaml`. A word's first pronunciation in the
order of the files is taken; phones follow one another without a sign between words.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from superb_eval.corpora.official import librispeech
from superb_eval.data.manifest import Corpus, Manifest, listing
from superb_eval.errors import UserError
from superb_eval.recipe import CorpusSettings

LEXICONS = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")

LAYOUT = f"{librispeech.LAYOUT}, and beside {librispeech.FOLDER} the lexicons {' and '.join(LEXICONS)}"
ORIGIN = "Both lexicons are handed out at no charge as huggingface.co/datasets/s3prl/g2p"

present = librispeech.present


def load(root: Path, settings: CorpusSettings) -> Corpus:
    """Return the three splits with the label columns `text` and `phones` (ARPAbet with stress, spaces between).

    Raises:
        UserError: see `librispeech.load`; a lexicon is missing or has a bad line, or a word is in neither.
    """
    lexicon = _lexicon(root)
    corpus = librispeech.load(root, settings)
    return replace(corpus, splits={name: _spoken(split, lexicon) for name, split in corpus.splits.items()})


def _lexicon(root: Path) -> dict[str, str]:
    """The phones of each word; files come in order, and the first pronunciation stays."""
    lexicon: dict[str, str] = {}
    for path in (root / name for name in LEXICONS):
        if not path.is_file():
            raise UserError(f"{path}: no such lexicon. PR needs {LAYOUT}. {ORIGIN}.")
        bad = []
        for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), start=1):
            word, _, phones = line.partition("\t")
            if not word or not phones.strip():
                bad.append(f"line {number}: '{line}' is not a word, a tab and its phones")
            lexicon.setdefault(word.upper(), " ".join(phones.split()))
        if bad:
            raise UserError(listing(path, bad))
    return lexicon


def _spoken(split: Manifest, lexicon: dict[str, str]) -> Manifest:
    """The split with the column `phones`."""
    utterances, bad = [], []
    for u in split:
        words = u.labels["text"].split()
        missing = [word for word in words if word not in lexicon]
        if missing:
            place = f"{librispeech.transcripts(u).name} line {u.line} ({u.id})"
            bad.append(f"{place}: in no lexicon: {', '.join(missing)}; add a line of the word, a tab and its phones")
        else:
            phones = " ".join(lexicon[word] for word in words)
            utterances.append(replace(u, labels={**u.labels, "phones": phones}))
    if bad:
        raise UserError(listing(split.source, bad))
    return replace(split, utterances=tuple(utterances))
