"""Vocabularies: from text to the outputs of a CTC head, and back.

A vocabulary consists of plain lists and strings, which are saved in the run's `labels.json`, so that a trained head
can be used without its corpus.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Literal

import sentencepiece
from pydantic import Discriminator, Field, Tag

from downstreams.base import HeadSettings
from superb_eval.data.bounds import VocabularySize
from superb_eval.errors import UserError

PAD, EOS, UNK = 0, 1, 2
SPECIALS = ("<pad>", "<eos>", "<unk>")
"""The first outputs of PR and SF, and of any SentencePiece vocabulary; `<pad>` is CTC's blank (s3prl `ctc/text.py`)."""

LETTER_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
"""The first outputs of ASR with letters, as in fairseq; `<s>` is CTC's blank."""

LETTERS = tuple("|ETAONIHSRDLUMCWFGYPBVK'XJQZ")
"""The 28 symbols of LibriSpeech in fairseq's order, that of their frequency; `|` ends a word."""

CHARACTERS = tuple(" ABCDEFGHIJKLMNOPQRSTUVWXYZ'")
"""The 28 characters of SF."""

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_STOPS = ("B", "CH", "D", "G", "JH", "K", "P", "T")
_OTHERS = ("DH", "F", "HH", "L", "M", "N", "NG", "R", "S", "SH", "TH", "V", "W", "Y", "Z", "ZH")
CONSONANTS = (*_STOPS, *_OTHERS)
ARPABET = ("SIL", "SPN", *sorted((*(v + stress for v in VOWELS for stress in "012"), *CONSONANTS)))
"""The 71 symbols of PR: 69 phones, vowels with their stress, and two that LibriSpeech's lexicon never uses."""


class SentencePiece(HeadSettings):
    """`sentencepiece`: size of a vocabulary of subwords (BPE), trained on the training text."""

    sentencepiece: VocabularySize = Field(gt=len(SPECIALS), description="outputs, the three special ones included")


VocabularySettings = Annotated[
    Annotated[Literal["characters"], Tag("the letters")] | Annotated[SentencePiece, Tag("sentence pieces")],
    Discriminator(lambda value: "sentence pieces" if isinstance(value, dict | SentencePiece) else "the letters"),
]


class Tokens:
    """Tokens between spaces, such as phones; `<eos>` closes the target, unknown ones become `<unk>`."""

    blank, unknown = PAD, UNK

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self._index = {token: i for i, token in enumerate(self.tokens)}

    def encode(self, text: str) -> list[int]:
        """Return the outputs that spell `text`."""
        return [*(self._index.get(token, self.unknown) for token in text.split()), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the tokens, without `<pad>` and `<eos>`."""
        return " ".join(self.tokens[i] for i in ids if i not in (PAD, EOS))


class Letters:
    """Letters, `|` after each word, `</s>` after the last; unknown ones become `<unk>` (s3prl `asr/dataset.py`)."""

    blank, unknown = 0, LETTER_SPECIALS.index("<unk>")

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self._index = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def spell(text: str) -> str:
        """Return `AB C` as `AB|C|`."""
        return "|".join(text.upper().split()) + "|"

    @classmethod
    def learn(cls, texts: Iterable[str]) -> list[str]:
        """Return fairseq's tokens where they suffice, else those of the texts, the most frequent first."""
        seen = Counter(letter for text in texts for letter in cls.spell(text))
        own = sorted(seen, key=lambda letter: (-seen[letter], letter))
        return [*LETTER_SPECIALS, *(LETTERS if seen.keys() <= set(LETTERS) else own)]

    def encode(self, text: str) -> list[int]:
        """Return the outputs that spell `text`."""
        letters = (self._index.get(letter, self.unknown) for letter in self.spell(text))
        return [*letters, LETTER_SPECIALS.index("</s>")]

    def decode(self, ids: Iterable[int]) -> str:
        """Return words with one space between them."""
        spelled = "".join(self.tokens[i] for i in ids if self.tokens[i] not in ("<s>", "</s>"))
        return " ".join(spelled.replace("|", " ").split())


class Characters:
    """Characters of SF, spaces among them; unknown ones become `<unk>`."""

    blank = PAD
    between = (len(SPECIALS) + CHARACTERS.index(" "),)
    """Outputs between words."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self._index = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def word(self, word: str) -> list[int]:
        """Return the outputs that spell one word."""
        return [self._index.get(character, UNK) for character in word]

    def shown(self, output: int) -> str:
        """Return what an output prints."""
        return self.tokens[output]


class Pieces:
    """Subwords of a SentencePiece model, given as base64 of its file; `<eos>` closes the target."""

    blank, unknown = PAD, UNK
    between: tuple[int, ...] = ()

    def __init__(self, model: str) -> None:
        self.model = model

    @cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(self.model, validate=True))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"labels: the SentencePiece model of the head can't be read ({error}). Run it again."
            ) from error

    @staticmethod
    def learn(texts: Iterable[str], size: int) -> str:
        """Return a model of `size` pieces, trained on texts, as base64; deterministic.

        Raises:
            UserError: the texts have fewer pieces, or more characters than that.
        """
        file = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([" ".join(text.upper().split()) for text in texts]),
                model_writer=file,
                vocab_size=size,
                model_type="bpe",
                character_coverage=1.0,
                pad_id=PAD,
                eos_id=EOS,
                unk_id=UNK,
                bos_id=-1,
                eos_piece=SPECIALS[EOS],
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(
                f"head.vocabulary.sentencepiece: {size} doesn't suit the training text ({error}). Choose another."
            ) from error
        return base64.b64encode(file.getvalue()).decode()

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        """Return the outputs that spell `text`."""
        return [*self._processor.encode(text.upper()), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Return words with one space between them."""
        return " ".join("".join(self.shown(i) for i in ids if i not in (PAD, EOS)).split())

    def word(self, word: str) -> list[int]:
        """Return the outputs that spell one word."""
        return list(self._processor.encode(word))

    def shown(self, output: int) -> str:
        """Return what an output prints: a piece that begins a word prints a space before it."""
        return str(self._processor.id_to_piece(output)).replace("\u2581", " ")
