"""Lhotse's manifests, read as the JSON that they are: recordings with supervisions, or cuts.

Facts: Lhotse's documentation ("Representing a corpus", "Cuts") and the files that it writes. Audio is read as it lies
on disk: what a manifest would compute (commands, transforms, features, mixtures) is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from superb_eval.data.importers import json_lines, lhotse_files
from superb_eval.data.importers.audio_files import AudioFinder, near_folders
from superb_eval.data.importers.lhotse_files import LhotseSplit
from superb_eval.data.importers.lhotse_lines import (
    LhotseCut,
    LhotseRecording,
    LhotseSegment,
    LhotseSupervision,
    Parsed,
    parse,
)
from superb_eval.data.importers.source import SourceCorpus, SourceRow, raise_if_bad
from superb_eval.data.manifest import Turn

KIND = "Lhotse manifests"

MAX_OVERSHOOT = 0.5
"""Seconds by which a supervision may pass the end of its recording, where it is then cut."""

TOLERANCE = 0.01
"""Seconds by which rounded times may pass the end without a note."""


def split_names(root: Path) -> list[str]:
    """Return the names of the splits, [""] where it is undivided, and [] where there are no manifests of Lhotse.

    Raises:
        UserError: two manifests are of one kind and split.
    """
    return list(lhotse_files.splits(root))


def read(root: Path, names: Sequence[str], turns: bool) -> SourceCorpus:
    """Return the supervised segments of the splits `names`; with `turns`, recordings with a turn for each supervision.

    Where a split has recordings and cuts, cuts are left out. Labels are text, language, gender and what lies in
    `custom`.

    Raises:
        UserError: lines are bad, or ask for more than reading a file of one channel; all are named.
    """
    files, bad, notes = lhotse_files.splits(root), list[str](), list[str]()
    splits = {name: tuple(_Split(root, files[name], bad, notes).rows(turns)) for name in names}
    raise_if_bad(root, bad)
    return SourceCorpus(KIND, root, splits, tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class _Audio:
    """A recording's file and stated duration in seconds."""

    path: Path
    seconds: float
    location: str


@dataclass
class _Split:
    """Reads one split; sentences on bad lines and on what was decided are appended to `bad` and `notes`."""

    root: Path
    files: LhotseSplit
    bad: list[str]
    notes: list[str]
    refused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        listed = self.files.recordings or self.files.cuts
        self.finder = AudioFinder(near_folders(listed.parent if listed else self.root, self.root))

    def rows(self, turns: bool) -> Iterator[SourceRow]:
        """Yield the split's rows."""
        if self.files.recordings is None:
            yield from self._cuts(turns)
            return
        if self.files.cuts is not None:
            self.notes.append(f"{self.files.cuts.name} is left out: {self.files.recordings.name} is read")
        recordings = self._recordings(self.files.recordings)
        if self.files.supervisions is None:
            yield from (SourceRow(name, audio.path, audio.location) for name, audio in recordings.items())
        elif turns:
            yield from self._turns(recordings, self.files.supervisions)
        else:
            yield from self._supervised(recordings, self.files.supervisions)

    def _lines(self, path: Path, schema: type[Parsed]) -> Iterator[tuple[str, Parsed]]:
        """Yield each line of a schema with its place; ids that come twice are bad."""
        name = path.relative_to(self.root).as_posix()
        seen: dict[str, int] = {}
        for number, content in json_lines.read(path):
            location = f"{name}, line {number}"
            line = _not_mono(content) or parse(schema, content)
            if isinstance(line, str):
                self.bad.append(f"{location}: {line}")
                self.refused.add(str(content.get("id")))
                continue
            if line.id in seen:
                self.bad.append(f"{location}: id '{line.id}' is already that of line {seen[line.id]}")
            seen[line.id] = number
            yield location, line

    def _recordings(self, path: Path) -> dict[str, _Audio]:
        found = {}
        for location, recording in self._lines(path, LhotseRecording):
            audio = self._audio(recording, location)
            if audio is not None:
                found[recording.id] = audio
            else:
                self.refused.add(recording.id)
        return found

    def _audio(self, recording: LhotseRecording, location: str) -> _Audio | None:
        """Return a recording's file; None, and a sentence in `bad`, where more is asked for."""
        problem = _recording_problem(recording)
        if not problem:
            source = recording.sources[0].source
            path = self.finder.find(source)
            if path is not None:
                return _Audio(path, recording.duration, location)
            problem = f"has {self.finder.problem(source)}"
        self.bad.append(f"{location}: recording '{recording.id}' {problem}")
        return None

    def _supervised(self, recordings: Mapping[str, _Audio], path: Path) -> Iterator[SourceRow]:
        for location, supervision in self._lines(path, LhotseSupervision):
            audio = self._of_recording(recordings, supervision, location)
            bounds = self._bounds(supervision, audio.seconds, location) if audio else None
            if audio and bounds:
                yield _row(supervision.id, audio, location, bounds, supervision, {})

    def _of_recording(
        self, recordings: Mapping[str, _Audio], supervision: LhotseSupervision, location: str
    ) -> _Audio | None:
        name = supervision.recording_id
        if supervision.channel not in (0, [0], None):
            channel = supervision.channel
            self.bad.append(f"{location}: is of channel {channel}; files of one channel are read, channel 0")
        elif name in recordings:
            return recordings[name]
        elif name not in self.refused:
            self.bad.append(f"{location}: recording '{name}' is in no line of the recordings")
        return None

    def _bounds(self, segment: LhotseSegment, seconds: float, location: str) -> tuple[float, float | None] | None:
        """Return start and end in a file that lasts `seconds`; None, and a sentence in `bad`, where it is wrong."""
        start, end = segment.start, round(segment.start + segment.duration, 8)
        if not 0 <= start < min(end, seconds) or end > seconds + MAX_OVERSHOOT:
            self.bad.append(f"{location}: {start} s to {end} s lies outside its recording, which lasts {seconds:.3f} s")
            return None
        if end > seconds + TOLERANCE:
            self.notes.append("segments that pass the end of their recording end there")
        # A whole file is read to its end, whatever the rounding of its stated duration.
        return start, None if end > seconds - 1e-4 else end

    def _turns(self, recordings: Mapping[str, _Audio], path: Path) -> Iterator[SourceRow]:
        turns: dict[str, list[Turn]] = {name: [] for name in recordings}
        for location, supervision in self._lines(path, LhotseSupervision):
            audio = self._of_recording(recordings, supervision, location)
            turn = self._turn(supervision, audio.seconds, location) if audio else None
            if turn:
                turns[supervision.recording_id].append(turn)
        for name, audio in recordings.items():
            yield SourceRow(name, audio.path, audio.location, turns=tuple(turns[name]))

    def _turn(self, supervision: LhotseSupervision, seconds: float, location: str) -> Turn | None:
        bounds = self._bounds(supervision, seconds, location)
        if bounds and not supervision.speaker:
            self.bad.append(f"{location}: a speaker turn needs a speaker")
        if not bounds or not supervision.speaker:
            return None
        return Turn(bounds[0], seconds if bounds[1] is None else bounds[1], supervision.speaker)

    def _cuts(self, turns: bool) -> Iterator[SourceRow]:
        for location, cut in self._lines(self.files.cuts, LhotseCut) if self.files.cuts else ():
            problem = _cut_problem(cut, turns)
            if problem or cut.recording is None:
                self.bad.append(f"{location}: cut '{cut.id}' {problem}")
                continue
            audio = self._audio(cut.recording, location)
            bounds = self._bounds(cut, audio.seconds, location) if audio else None
            if audio is None or bounds is None:
                continue
            supervisions = cut.supervisions or []
            if turns:
                spoken = [self._turn(supervision, cut.duration, location) for supervision in supervisions]
                yield SourceRow(cut.id, audio.path, location, *bounds, turns=tuple(filter(None, spoken)))
            else:
                yield _row(cut.id, audio, location, bounds, next(iter(supervisions), None), cut.custom or {})


def _row(
    name: str,
    audio: _Audio,
    location: str,
    bounds: tuple[float, float | None],
    supervision: LhotseSupervision | None,
    custom: Mapping[str, Any],
) -> SourceRow:
    """Return a row; `custom` is that of the cut."""
    if supervision is None:
        return SourceRow(name, audio.path, location, *bounds, labels=_custom_labels(custom))
    labels = _custom_labels({**custom, **(supervision.custom or {})})
    stated = {"text": supervision.text, "language": supervision.language, "gender": supervision.gender}
    labels |= {key: value.strip() for key, value in stated.items() if value is not None}
    return SourceRow(name, audio.path, location, *bounds, (supervision.speaker or "").strip(), labels)


def _custom_labels(custom: Mapping[str, Any]) -> dict[str, str]:
    return {key: json_lines.text(value) for key, value in custom.items() if not isinstance(value, dict)}


def _recording_problem(recording: LhotseRecording) -> str:
    """Return what a recording asks for beyond reading a file of one channel; empty where nothing."""
    kinds = sorted({source.type for source in recording.sources} - {"file"})
    if kinds:
        return f"has a source of type {', '.join(kinds)}; only files are read. Write its audio to a file first"
    channels = [channel for source in recording.sources for channel in source.channels]
    if channels != [0]:
        return f"has the channels {channels}; files of one channel are read. Write each channel to a file first"
    if recording.transforms:
        names = ", ".join(str(t.get("name") if isinstance(t, dict) else t) for t in recording.transforms)
        return f"is to be transformed ({names}), which isn't done. Write its audio to a file first"
    return ""


def _not_mono(content: Mapping[str, Any]) -> str:
    """Return a sentence on a line that is a cut of another kind than MonoCut; empty for others."""
    kind = content.get("type", "MonoCut")
    if kind == "MonoCut":
        return ""
    return f"cut '{content.get('id')}' is a {kind}; only MonoCut is read. Write its audio to a file first"


def _cut_problem(cut: LhotseCut, turns: bool) -> str:
    """Return what a cut asks for beyond reading a segment of a file; empty where nothing."""
    if cut.recording is None:
        return "has no recording: features alone are no audio"
    if cut.channel not in (0, [0], None):
        return f"is of channel {cut.channel}; files of one channel are read"
    count = len(cut.supervisions or [])
    if count > 1 and not turns:
        return f"has {count} supervisions; one is read. Cut it by them first: lhotse cut trim-to-supervisions"
    return ""
