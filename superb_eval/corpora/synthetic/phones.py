"""espeak-ng's phone mnemonics in CMUdict's 39 phones, without stress."""

from __future__ import annotations

from collections.abc import Iterable

from superb_eval.corpora.synthetic.espeak import Phone

# The mnemonics of en-us: a vowel with its r is two phones, as in CMUdict; pauses and linking glides are none.
_TABLE = """
0 AA|0# AA|3 ER|3: ER|@ AH|@2 AH|@5 UH|@L AH L|A: AA|A@ AA R|E EH|E2 EH|I IH|I# IH|I2 IH|O AO|O2 AO|O: AO|O@ AO R|
OI OY|U UH|U@ UH R|V AH|a AE|a# AH|aa AE|aI AY|aI3 AY ER|aI@ AY AH|aU AW|aU@ AW ER|e@ EH R|eI EY|i IY|i: IY|i@ IY AH|
i@3 IH R|o@ AO R|oU OW|u: UW|D DH|N NG|S SH|T TH|Z ZH|b B|d D|dZ JH|f F|g G|h HH|j Y|k K|l L|m M|n N|n- AH N|p P|
r R|r- R|s S|t T|t# T|t2 T|? T|tS CH|v V|w W|z Z|_|_:|;
"""
CMU = {name: tuple(phones) for name, *phones in (row.split() for row in _TABLE.replace("\n", "").split("|"))}
"""The CMU phones (none, one or two) of each of espeak-ng's, whose stress mark is dropped."""


def to_cmu(espeak_phones: Iterable[Phone]) -> list[str]:
    """Return the CMU phones; an r that belongs to the vowel before it is not counted again.

    Raises:
        KeyError: the table lacks a phone; add it.
    """
    cmu_phones: list[str] = []
    for phone in espeak_phones:
        phones = CMU[phone.label.lstrip("',")]
        cmu_phones += phones[1:] if phones == ("R",) and cmu_phones[-1:] == ["R"] else phones
    return cmu_phones
