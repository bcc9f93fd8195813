"""An upstream's predictions in the files that the SUPERB leaderboard takes (s3prl `submit/submit.py` and each task's
`expert.py`, commit ec8064b)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from downstreams import qbe
from downstreams.base import Prediction
from superb_eval.errors import UserError
from superb_eval.export.model_card import cells_of
from superb_eval.results.folder import Protocol, Run, open_results
from superb_eval.results.stats import scoring
from superb_eval.runtime import atomic_files

SAMPLE_RATE = 16_000
"""Hz, of what upstreams hear."""

Written = tuple[str, Callable[[Path], object]]
"""A file's place in the submission, and what writes it."""


def write(results: Path, name: str, protocol: Protocol, out: Path) -> list[Path]:
    """Write the files of every task that the upstream `name` was run on officially; return their paths.

    Raises:
        UserError: the upstream has no official run, or a file can't be written.
    """
    cells = cells_of(open_results(results), name)
    official = [cell for cell in cells if cell.record.corpus.official and cell.record.profile == "superb"]
    if not official:
        raise UserError(
            f"{results}: no run of '{name}' follows the official protocol on a complete official corpus, "
            "and the leaderboard takes no other. Run it with --data CORPORA --profile superb."
        )
    paths = []
    for cell in official:
        run = cell.runs[0]
        for place, save in files_of(run, scoring.rows_of(run.folder, protocol == "historical")):
            atomic_files.write(out / run.record.task / place, save)
            paths.append(out / run.record.task / place)
    return paths


def files_of(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    """Yield the files of one task.

    Raises:
        UserError: the task is none of the leaderboard's.
    """
    if run.record.task not in FORMS:
        raise UserError(f"{run.folder}: the leaderboard has no task '{run.record.task}'.")
    yield from FORMS[run.record.task](run, rows)


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf8")


def _lines(pairs: Sequence[tuple[str, str]]) -> Callable[[Path], object]:
    """`ID ANSWER`, a line each; a line break inside would forge a line, so that it becomes a space."""
    return _text("".join(f"{' '.join(name.splitlines())} {' '.join(answer.splitlines())}\n" for name, answer in pairs))


def _hypotheses(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    yield "test-hyp.ark", _lines([(row.id, row.answer) for row in rows])


def _transcripts(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    heard = [(row.id, row.answer.split("\t")) for row in rows]
    yield "test-clean-noLM-hyp.ark", _lines([(name, answers[0]) for name, answers in heard])
    if all(len(answers) > 1 for _, answers in heard):
        yield "test-clean-LM-hyp.ark", _lines([(name, answers[1]) for name, answers in heard])


def _answers(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    yield "test_predict.txt", _lines([(row.id, row.answer) for row in rows])


def _keywords(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    # s3prl `speech_commands/dataset.py` names a clip by its folder and file, joined by a hyphen.
    yield "test_predict.txt", _lines([(f"{row.id.replace('/', '-')}.wav", row.answer) for row in rows])


def _trials(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    pairs = [("_".join(map(_trial_side, row.id.split(" "))), row.answer) for row in rows]
    yield "test_predict.txt", _lines(pairs)


def _trial_side(utterance: str) -> str:
    """`id10270/5r0dWxy17C8/00001.wav` as s3prl's `sv_voxceleb1/expert.py` writes it: `id10270-5r0dWxy17C8-00001`."""
    return "-".join(utterance.split("/")[-3:]).split(".")[0]


def _intents(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([row.id.rpartition("/")[2], *json.loads(row.answer).values()] for row in rows)
    yield "test_predict.csv", _text(text.getvalue())


def _emotions(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    for fold in sorted({row.fold for row in rows}):
        yield f"test_fold{fold}_predict.txt", _lines([(row.id, row.answer) for row in rows if row.fold == fold])


def _detections(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    del run
    yield "benchmark.stdlist.xml", _text(qbe.as_stdlist(rows))


def _turns(run: Run, rows: Sequence[Prediction]) -> Iterator[Written]:
    """`T_hat` [frames, 2] is 1 where a speaker was found and 0 elsewhere: the threshold has been applied already."""
    stride = run.record.upstream.stride
    yield "scoring/frame_shift", _text(f"{stride}\n")
    for row in rows:
        name = Path(row.id).name  # an id from outside must not lead out of the folder
        yield f"scoring/predictions/{name}.h5", _activity(json.loads(row.answer), json.loads(row.truth), stride)


def _activity(found: Sequence[Any], truth: Sequence[Any], stride: int) -> Callable[[Path], object]:
    import numpy as np

    end = max((turn[1] for turn in (*found, *truth)), default=0.0)
    active = np.zeros((round(end * SAMPLE_RATE / stride), 2), dtype=np.float32)
    for start, stop, speaker in found:
        first, last = (round(edge * SAMPLE_RATE / stride) for edge in (start, stop))
        active[first:last, int(speaker)] = 1.0
    return lambda path: _save_h5(path, active)


def _save_h5(path: Path, active: Any) -> None:
    try:
        import h5py
    except ImportError as error:
        raise UserError("export --submission: SD's files need h5py: pip install 'superb-eval[submission]'.") from error
    with h5py.File(path, "w") as file:
        file.create_dataset("T_hat", data=active)


FORMS: Mapping[str, Callable[[Run, Sequence[Prediction]], Iterator[Written]]] = {
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
"""How the files of each task are written."""
