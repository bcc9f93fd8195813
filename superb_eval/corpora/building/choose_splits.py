"""Puts rows into train, dev and test: by the source's own splits, or divided by speakers, and checks the result."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from superb_eval.corpora.building.label_rows import LeftOut, TaskNeeds
from superb_eval.corpora.building.new_row import DIVIDED, NewRow
from superb_eval.corpora.building.request import CorpusRequest
from superb_eval.corpora.building.split_plan import SplitPlan
from superb_eval.corpora.building.splitting import divide, divide_each_speaker, units_of
from superb_eval.errors import UserError

CUT = 0.1
"""The share of train that becomes dev or test where a source has only the other."""

Divided = dict[str, list[NewRow]]


def choose_splits(
    rows: Sequence[NewRow], plan: SplitPlan, needs: TaskNeeds, request: CorpusRequest, left_out: LeftOut
) -> tuple[Divided, list[str]]:
    """Return the rows of train, dev and test, and sentences on how they were chosen; add to `left_out`.

    Raises:
        UserError: the rows can't be divided so that the task can be run; the message names the options that help.
    """
    if any(row.labels.get("fold") for row in rows):
        return _by_fold(rows)
    notes: list[str] = []
    if not plan.parts:
        splits, notes = _divided(rows, request.divided_shares(), needs, request, left_out)
    else:
        splits = {name: [row for row in rows if row.split in parts] for name, parts in plan.parts.items()}
        for name in DIVIDED:
            if name not in splits:
                cut, cut_notes = _divided(splits["train"], {"train": 1 - CUT, name: CUT}, needs, request, left_out)
                splits |= cut
                notes += [f"{name} is {CUT:.0%} of the source's train: {note}" for note in cut_notes]
        _check_own(splits, needs)
    empty = [name for name in DIVIDED if not splits[name]]
    if empty:
        raise UserError(
            f"{request.source}: no row of {', '.join(empty)} can be used. Divide all anew: --shares 80,10,10"
        )
    if not needs.turns:
        _check_classes(splits, plan)
    order = {row.id: number for number, row in enumerate(rows)}
    splits = {name: sorted(splits[name], key=lambda row: order[row.id]) for name in DIVIDED}
    return splits, [*notes, *_shared_speakers(splits, needs)]


def _divided(
    rows: Sequence[NewRow], shares: Mapping[str, float], needs: TaskNeeds, request: CorpusRequest, left_out: LeftOut
) -> tuple[Divided, list[str]]:
    stated = ",".join(f"{share:g}" for share in request.divided_shares().values())
    how = f"seed {request.seed}" if len(shares) == 2 else f"shares {stated}, seed {request.seed}"
    if needs.speaker_classes:
        splits, few = divide_each_speaker(rows, shares, request.seed)
        dropped = [row.row.location for row in rows if row.speaker in few]
        if dropped:
            left_out[f"of a speaker with fewer than {len(shares)} utterances"] = dropped
        if not any(splits.values()):
            raise UserError(f"{request.source}: no speaker has {len(shares)} utterances, one for each split.")
        return splits, [f"each speaker's utterances divided, {how}"]
    known = sum(bool(row.speakers) for row in rows)
    by_speaker = bool(known) and request.split_by == "speaker"
    if needs.kind.trials and not by_speaker:
        raise UserError(f"{needs.kind.title} needs other speakers in each split: leave out --split-by utterance.")
    units = units_of(rows, by_speaker)
    notes = []
    if needs.turns and by_speaker and len(units) < len(shares):
        # Meetings of the same people: whole speakers would leave one group.
        notes, by_speaker = ["recordings share speakers, and so do the splits"], False
        units = units_of(rows, by_speaker)
    least = 2 if needs.kind.trials else 1  # a trial of two speakers needs two
    if len(units) < least * len(shares):
        raise UserError(_too_few(request, len(units), least * len(shares), by_speaker, needs))
    if by_speaker:
        own = "" if known == len(rows) else ", utterances without a speaker each on its own"
        notes.append(f"divided by whole speakers{own}, {how}")
    else:
        notes.append(f"divided by utterances, {how}")
    return divide(units, shares, request.seed, least), notes


def _too_few(request: CorpusRequest, found: int, needed: int, by_speaker: bool, needs: TaskNeeds) -> str:
    what = "speaker(s)" if by_speaker else "utterance(s)"
    advice = "Divide each speaker's utterances instead: --split-by utterance"
    return (
        f"{request.source}: has {found} {what} to divide, those that share audio as one, and the splits need {needed}. "
        f"{advice if by_speaker and not needs.kind.trials else 'Add some.'}"
    )


def _by_fold(rows: Sequence[NewRow]) -> tuple[Divided, list[str]]:
    """Return rows listed by fold: the task divides them for each fold anew, and reads them from three files."""
    folds: dict[str, list[NewRow]] = defaultdict(list)
    for row in rows:
        folds[row.labels["fold"]].append(row)
    names = sorted(folds)
    if len(names) < 2 or (len(names) == 2 and len(folds[names[0]]) < 2):
        raise UserError(
            f"every row is of fold '{names[0]}'; two at least are needed. Choose another column: --column fold=NAME"
        )
    if len(names) == 2:
        first = folds[names[0]]
        splits = {"train": first[1:], "dev": first[:1], "test": folds[names[1]]}
    else:
        splits = {
            "train": [row for name in names[:-2] for row in folds[name]],
            "dev": folds[names[-2]],
            "test": folds[names[-1]],
        }
    spoken = Counter(speaker for part in folds.values() for speaker in {s for row in part for s in row.speakers})
    shared = sum(number > 1 for number in spoken.values())
    notes = [f"cross-validation over {len(names)} folds ({', '.join(names)}); the three files only list rows"]
    return splits, [*notes, *([f"folds share {shared} speaker(s)"] if shared else [])]


def _check_own(splits: Divided, needs: TaskNeeds) -> None:
    """Refuse a source's own splits where the task can't be run on them."""
    speakers = {name: {row.speaker for row in rows} for name, rows in splits.items()}
    for name in DIVIDED[1:]:
        unseen, shared = sorted(speakers[name] - speakers["train"]), sorted(speakers[name] & speakers["train"])
        advice = "Divide all rows anew: --shares 80,10,10"
        if needs.speaker_classes and unseen:
            raise UserError(
                f"{len(unseen)} speaker(s) of {name} are not in train, such as {unseen[0]}, and {needs.kind.title} "
                f"needs the same speakers in every split. {advice}"
            )
        if needs.kind.trials and shared:
            raise UserError(
                f"{len(shared)} speaker(s) of {name} are in train too, such as {shared[0]}, and {needs.kind.title} "
                f"needs other ones. {advice}"
            )


def _check_classes(splits: Divided, plan: SplitPlan) -> None:
    trained = {label for row in splits["train"] for label in row.classes}
    unseen = Counter(
        label for name in DIVIDED[1:] for row in splits[name] for label in row.classes if label not in trained
    )
    if unseen:
        count = f"{len(unseen)} class(es) of dev and test are not in train, such as {min(unseen)}"
        advice = (
            "Divide all rows anew: --shares 80,10,10" if plan.parts else "Divide by utterances: --split-by utterance"
        )
        raise UserError(f"{count}: there would be no output for them. {advice}")


def _shared_speakers(splits: Divided, needs: TaskNeeds) -> list[str]:
    speakers = {name: {speaker for row in rows for speaker in row.speakers} for name, rows in splits.items()}
    if not any(speakers.values()):
        return ["speakers are unknown, so that splits may share them (--speaker finds them in file names)"]
    total, without = sum(map(len, splits.values())), sum(not row.speakers for rows in splits.values() for row in rows)
    notes = [f"{without} of {total} utterances have no speaker"] if without else []
    pairs = [(a, b, len(speakers[a] & speakers[b])) for a, b in itertools.combinations(DIVIDED, 2)]
    return notes + [f"{a} and {b} share {n} speaker(s)" for a, b, n in pairs if n and not needs.speaker_classes]
