"""Errors of transcripts, marked: what was inserted, left out and replaced, letter by letter or token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from markupsafe import Markup, escape
from rapidfuzz.distance import Levenshtein

from superb_eval.report.markup import clean

MOST_TOKENS = 300
"""Letters or tokens that are compared of a transcript; the rest is left out of the page."""

TOKENS: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "asr": (list, ""),
    "pr": (str.split, " "),
    "sf": (str.split, " "),
}
"""How a task's transcripts are split into what is compared, and what stands between: letters, phones, words."""


def mark_errors(task: str, truth: str, answer: str) -> Markup | None:
    """Return an answer with its edits from the truth marked; None for a task whose answers are no transcripts.

    `<ins>`: inserted; `<del>`: left out, as it is in the truth; `<mark>`: replaced, with the truth in its title.
    """
    if task not in TOKENS:
        return None
    split, between = TOKENS[task]
    wanted, found = split(clean(truth, 10_000))[:MOST_TOKENS], split(clean(answer, 10_000))[:MOST_TOKENS]
    return Markup(between).join(_marked(wanted, found, between))


def _marked(wanted: list[str], found: list[str], between: str) -> Iterator[Markup]:
    for edit in Levenshtein.opcodes(wanted, found):
        before, after = wanted[edit.src_start : edit.src_end], found[edit.dest_start : edit.dest_end]
        if edit.tag == "equal":
            yield escape(between.join(after))
        elif edit.tag == "insert":
            yield Markup("<ins>{}</ins>").format(_visible(between.join(after)))
        elif edit.tag == "delete":
            yield Markup("<del>{}</del>").format(_visible(between.join(before)))
        else:
            pairs = zip(before, after, strict=True)
            yield from (Markup('<mark title="for {}">{}</mark>').format(w, _visible(f)) for w, f in pairs)


def _visible(text: str) -> str:
    """Text in which a blank alone can be seen to be marked."""
    return text if text.strip() else "␣" * len(text)
