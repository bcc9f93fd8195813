"""Beam search with a word language model and a lexicon, as for SUPERB's column "ASR with LM".

torchaudio's CTC decoder, which is the flashlight decoder that s3prl's `asr/w2l_decoder.py` calls. The protocol takes
the official `4-gram.arpa.gz` of LibriSpeech (openslr.org/11), unpacked, and fairseq's `librispeech_lexicon.lst`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from downstreams.base import HeadSettings
from superb_eval.data.bounds import Hypotheses, Weight
from superb_eval.data.manifest import bad_rows_message
from superb_eval.errors import UserError
from superb_eval.runtime import outside_files

if TYPE_CHECKING:
    from torch import Tensor

BLANK, WORD_END = "<s>", "|"


class LanguageModelSettings(HeadSettings):
    """Weights are the protocol's; they are not tuned."""

    lm: str | None = Field(None, description="KenLM model, ARPA or binary; relative to the current folder")
    lexicon: str | None = Field(
        None, description="lines of a word, a tab and its letters with spaces between, | at last"
    )
    beam: Hypotheses = Field(5, description="hypotheses at each frame")
    beam_threshold: Weight = Field(25.0, gt=0, description="how much worse than the best they may score")
    lm_weight: Weight = Field(2.0, description="weight of the language model")
    word_score: Weight = Field(-1.0, description="added for each word")


class BeamSearch:
    """A decoder over letters; the language model is loaded with the first utterance."""

    def __init__(self, settings: LanguageModelSettings, letters: Sequence[str]) -> None:
        """Check files and packages, before hours of training.

        Raises:
            UserError: a file or a package is missing, or the lexicon has lines that can't be used.
        """
        self.settings, self.letters = settings, list(letters)
        self.lm, self.lexicon = (_file(name, getattr(settings, name)) for name in ("lm", "lexicon"))
        for module in ("flashlight.lib.text", "kenlm"):
            if not _installed(module):
                raise UserError(f"head.lm needs the package of {module}: pip install 'superb-eval[lm]'.")
        bad = list(self._bad_lines())
        if bad:
            raise UserError(bad_rows_message(self.lexicon, bad))

    def words(self, log_probabilities: Tensor) -> str | None:
        """Return the words of the best hypothesis for [frames, letters] on the CPU, or None where there is none."""
        (hypotheses,) = self._decoder(log_probabilities[None].contiguous())
        return " ".join(hypotheses[0].words) if hypotheses else None

    @cached_property
    def _decoder(self) -> Any:
        try:
            return self._build_decoder()
        except (RuntimeError, ValueError) as error:  # also where KenLM's message quotes binary data
            reason = "no text" if isinstance(error, UnicodeDecodeError) else str(error).strip().splitlines()[-1]
            message = "".join(letter for letter in reason if letter.isprintable())[:200]
            raise UserError(
                f"head.lm: {self.lm} can't be opened with {self.lexicon} ({message}). Is it complete?"
            ) from error

    def _build_decoder(self) -> Any:
        from torchaudio.models.decoder import ctc_decoder

        return ctc_decoder(
            lexicon=str(self.lexicon),
            tokens=self.letters,
            lm=str(self.lm),
            nbest=1,
            beam_size=self.settings.beam,
            beam_size_token=len(self.letters),
            beam_threshold=self.settings.beam_threshold,
            lm_weight=self.settings.lm_weight,
            word_score=self.settings.word_score,
            unk_score=float("-inf"),
            sil_score=0.0,
            log_add=False,
            blank_token=BLANK,
            sil_token=WORD_END,
        )

    def _bad_lines(self) -> Iterator[str]:
        for number, line in enumerate(outside_files.read_text(self.lexicon).splitlines(), start=1):
            spelling = line.split()[1:]
            strange = [letter for letter in spelling if letter not in self.letters]
            if strange:
                yield f"line {number}: '{' '.join(strange)}' is no output of the head ({' '.join(self.letters)})"
            elif spelling[-1:] != [WORD_END]:
                yield f"line {number}: '{line}' is not a word, its letters and {WORD_END}"


def _file(name: str, path: str | None) -> Path:
    if path is None:
        raise UserError(f"head.{name} is missing: a beam search needs both head.lm and head.lexicon.")
    if not Path(path).is_file():
        raise UserError(f"head.{name}: there is no file {path}. Give its place with -o head.{name}=FILE.")
    return Path(path)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
