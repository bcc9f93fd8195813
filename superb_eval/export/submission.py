"""An upstream's predictions in the files that the SUPERB leaderboard takes (s3prl `submit/submit.py` and each task's
`expert.py`, commit ec8064b)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from downstreams import qbe
from downstreams.base import Prediction
from downstreams.metrics import diarization
from superb_eval.data.manifest import Turn
from superb_eval.errors import UserError
from superb_eval.export.model_card import run_groups_of
from superb_eval.results.folder import Protocol, Run, open_results
from superb_eval.results.stats import scoring
from superb_eval.runtime import atomic_files, own_folder

SAMPLE_RATE = 16_000
"""Hz, of the audio that upstreams process."""

KIND = "submission"
"""Of the output folder (`own_folder`)."""

_SLOTS = TypeAdapter(dict[str, str])

MOST_FRAMES = 10_000_000
"""Of a recording: a day of them."""

SubmissionFile = tuple[str, Callable[[Path], object]]
"""A file's path in the submission, and the function that writes it."""


def write(results: Path, name: str, protocol: Protocol, out: Path) -> list[Path]:
    """Write the files of every task that the upstream `name` was run on officially; return their paths.

    Raises:
        UserError: the upstream has no official run, `out` holds something else, or a file can't be written.
    """
    groups = run_groups_of(open_results(results), name)
    official = [group for group in groups if group.record.corpus.official and group.record.profile == "superb"]
    if not official:
        raise UserError(
            f"{results}: no run of '{name}' follows the official protocol on a complete official corpus, "
            "which the leaderboard requires. Run it with --data CORPORA --profile superb."
        )
    own_folder.check(out, KIND)
    files = [
        (out / group.record.task / path_in_task, save)
        for group in official
        for path_in_task, save in _files_of_run(group.runs[0], protocol)
    ]
    own_folder.claim(out, KIND)
    for path, save in files:
        atomic_files.write(path, save)
    return [path for path, _ in files]


def _files_of_run(run: Run, protocol: Protocol) -> list[SubmissionFile]:
    """Return the files of a run's predictions, which may have been edited since.

    Raises:
        UserError: they can't be scored, or hold what the leaderboard's files can't.
    """
    rows = scoring.run_predictions(run.folder, protocol == "historical")
    try:
        scoring.scores(scoring.load_task(run.record, run.folder), rows)
        return list(files_of(run, rows))
    except UserError as error:
        raise UserError(f"{run.folder}: {error}") from error
    except (ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{run.folder}: its predictions are none for the leaderboard ({reason}).") from error


def files_of(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    """Yield the files of one task.

    Raises:
        UserError: the leaderboard has no such task.
    """
    if run.record.task not in FORMS:
        raise UserError(f"{run.folder}: the leaderboard has no task '{run.record.task}'.")
    yield from FORMS[run.record.task](run, rows)


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf8")


def _lines(pairs: Sequence[tuple[str, str]]) -> Callable[[Path], object]:
    """`ID ANSWER`, a line each; a line break inside an answer would begin another line, so it becomes a space."""
    return _text("".join(f"{' '.join(name.splitlines())} {' '.join(answer.splitlines())}\n" for name, answer in pairs))


def _hypotheses(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    yield "test-hyp.ark", _lines([(row.id, row.answer) for row in rows])


def _transcripts(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    transcripts = [(row.id, row.answer.split("\t")) for row in rows]
    yield "test-clean-noLM-hyp.ark", _lines([(name, answers[0]) for name, answers in transcripts])
    if all(len(answers) > 1 for _, answers in transcripts):
        yield "test-clean-LM-hyp.ark", _lines([(name, answers[1]) for name, answers in transcripts])


def _answers(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    yield "test_predict.txt", _lines([(row.id, row.answer) for row in rows])


def _keywords(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    # s3prl `speech_commands/dataset.py` names a clip by its folder and file, joined by a hyphen.
    yield "test_predict.txt", _lines([(f"{row.id.replace('/', '-')}.wav", row.answer) for row in rows])


def _trials(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    pairs = [("_".join(map(_trial_side, row.id.split(" "))), row.answer) for row in rows]
    yield "test_predict.txt", _lines(pairs)


def _trial_side(utterance: str) -> str:
    """`id10270/5r0dWxy17C8/00001.wav` as s3prl's `sv_voxceleb1/expert.py` writes it: `id10270-5r0dWxy17C8-00001`."""
    return "-".join(utterance.split("/")[-3:]).split(".")[0]


def _intents(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([row.id.rpartition("/")[2], *_SLOTS.validate_json(row.answer).values()] for row in rows)
    yield "test_predict.csv", _text(text.getvalue())


def _emotions(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    for fold in sorted({row.fold for row in rows}):
        yield f"test_fold{fold}_predict.txt", _lines([(row.id, row.answer) for row in rows if row.fold == fold])


def _detections(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    del run
    yield "benchmark.stdlist.xml", _text(qbe.as_stdlist(rows))


def _turns(run: Run, rows: Sequence[Prediction]) -> Iterator[SubmissionFile]:
    """`T_hat` [frames, 2] is 1 where a speaker was detected and 0 elsewhere: the threshold has been applied already."""
    stride = run.record.upstream.stride
    yield "scoring/frame_shift", _text(f"{stride}\n")
    for row in rows:
        name = Path(row.id).name  # an id must not lead out of the folder
        detected, truth = (diarization.turns_from_json(text) for text in (row.answer, row.truth))
        yield f"scoring/predictions/{name}.h5", _activity(detected, truth, stride)


def _activity(detected: Sequence[Turn], truth: Sequence[Turn], stride: int) -> Callable[[Path], object]:
    """Return what writes which of two speakers is active in each frame.

    Raises:
        ValueError: a turn is of another speaker, or the recording is longer than any.
    """
    frames = round(max((turn.end for turn in (*detected, *truth)), default=0.0) * SAMPLE_RATE / stride)
    if frames > MOST_FRAMES or not {turn.speaker for turn in detected} <= {"0", "1"}:
        raise ValueError(f"{frames} frames, expected {MOST_FRAMES} at most, of the speakers 0 and 1")
    return lambda path: _save_h5(path, detected, frames, stride)


def _save_h5(path: Path, detected: Sequence[Turn], frames: int, stride: int) -> None:
    import numpy as np

    active = np.zeros((frames, 2), dtype=np.float32)
    for start, stop, speaker in detected:
        first, last = (round(edge * SAMPLE_RATE / stride) for edge in (start, stop))
        active[first:last, int(speaker)] = 1.0
    try:
        import h5py
    except ImportError as error:
        raise UserError("export --submission: SD's files need h5py: pip install 'superb-eval[submission]'.") from error
    with h5py.File(path, "w") as file:
        file.create_dataset("T_hat", data=active)


FORMS: Mapping[str, Callable[[Run, Sequence[Prediction]], Iterator[SubmissionFile]]] = {
    "pr": _hypotheses,
    "asr": _transcripts,
    "ks": _keywords,
    "qbe": _detections,
    "sid": _answers,
    "asv": _trials,
    "sd": _turns,
    "ic": _intents,
    "sf": _hypotheses,
    "er": _emotions,
}
"""The function that writes the files of each task."""
