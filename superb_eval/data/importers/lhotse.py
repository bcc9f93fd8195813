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
from superb_eval.data.importers.source import SourceCorpus, SourceRow
from superb_eval.data.manifest import Turn, bad_rows_message
from superb_eval.errors import UserError

KIND = "Lhotse manifests"

MAX_OVERSHOOT = 0.5
"""Seconds by which a supervision may pass the end of its recording, where it is then cut."""

TOLERANCE = 0.01
"""Seconds by which rounded times may pass the end without a note."""

_FIELDS = ("text", "language", "gender")


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
    if bad:
        raise UserError(bad_rows_message(root, bad))
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
    seen: dict[str, str] = field(default_factory=dict)
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

    def _lines(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each object with its place; ids that come twice are bad."""
        name = path.relative_to(self.root).as_posix()
        for number, content in json_lines.read(path):
            location, key = f"{name}, line {number}", f"{name} {content.get('id')}"
            if key in self.seen:
                self.bad.append(f"{location}: id '{content.get('id')}' is already that of {self.seen[key]}")
            self.seen[key] = location
            yield location, content

    def _recordings(self, path: Path) -> dict[str, _Audio]:
        found = {}
        for location, content in self._lines(path):
            audio = self._audio(content, location)
            if audio is not None:
                found[str(content.get("id"))] = audio
            else:
                self.refused.add(str(content.get("id")))
        return found

    def _audio(self, recording: Mapping[str, Any], location: str) -> _Audio | None:
        """Return a recording's file; None, and a sentence in `bad`, where more is asked for."""
        problem = _recording_problem(recording)
        if not problem:
            source = str(recording["sources"][0].get("source", ""))
            path = self.finder.find(source)
            if path is not None:
                return _Audio(path, float(recording["duration"]), location)
            problem = f"has {self.finder.problem(source)}"
        self.bad.append(f"{location}: recording '{recording.get('id')}' {problem}")
        return None

    def _supervised(self, recordings: Mapping[str, _Audio], path: Path) -> Iterator[SourceRow]:
        for location, content in self._lines(path):
            audio = self._of_recording(recordings, content, location)
            bounds = self._bounds(content, audio.seconds, location) if audio else None
            if audio and bounds:
                yield _row(str(content.get("id")), audio, location, bounds, content)

    def _of_recording(
        self, recordings: Mapping[str, _Audio], supervision: Mapping[str, Any], location: str
    ) -> _Audio | None:
        name = str(supervision.get("recording_id"))
        channel = supervision.get("channel", 0)
        if channel not in (0, [0], None):
            self.bad.append(f"{location}: is of channel {channel}; files of one channel are read, channel 0")
        elif name in recordings:
            return recordings[name]
        elif name not in self.refused:
            self.bad.append(f"{location}: recording '{name}' is in no line of the recordings")
        return None

    def _bounds(self, segment: Mapping[str, Any], seconds: float, location: str) -> tuple[float, float | None] | None:
        """Return start and end in a file that lasts `seconds`; None, and a sentence in `bad`, where it is wrong."""
        try:
            start, end = float(segment["start"]), round(float(segment["start"]) + float(segment["duration"]), 8)
        except (KeyError, TypeError, ValueError):
            self.bad.append(f"{location}: needs start and duration in seconds")
            return None
        if not 0 <= start < min(end, seconds) or end > seconds + MAX_OVERSHOOT:
            self.bad.append(f"{location}: {start} s to {end} s lies outside its recording, which lasts {seconds:.3f} s")
            return None
        if end > seconds + TOLERANCE:
            self.notes.append("segments that pass the end of their recording end there")
        # A whole file is read to its end, whatever the rounding of its stated duration.
        return start, None if end > seconds - 1e-4 else end

    def _turns(self, recordings: Mapping[str, _Audio], path: Path) -> Iterator[SourceRow]:
        turns: dict[str, list[Turn]] = {name: [] for name in recordings}
        for location, content in self._lines(path):
            audio = self._of_recording(recordings, content, location)
            turn = self._turn(content, audio.seconds, location) if audio else None
            if turn:
                turns[str(content["recording_id"])].append(turn)
        for name, audio in recordings.items():
            yield SourceRow(name, audio.path, audio.location, turns=tuple(turns[name]))

    def _turn(self, supervision: Mapping[str, Any], seconds: float, location: str) -> Turn | None:
        bounds = self._bounds(supervision, seconds, location)
        if bounds and not supervision.get("speaker"):
            self.bad.append(f"{location}: a speaker turn needs a speaker")
            return None
        return (
            Turn(bounds[0], seconds if bounds[1] is None else bounds[1], str(supervision["speaker"]))
            if bounds
            else None
        )

    def _cuts(self, turns: bool) -> Iterator[SourceRow]:
        path = self.files.cuts
        for location, cut in self._lines(path) if path else ():
            problem = _cut_problem(cut, turns)
            if problem:
                self.bad.append(f"{location}: cut '{cut.get('id')}' {problem}")
                continue
            audio = self._audio(cut["recording"], location)
            bounds = self._bounds(cut, audio.seconds, location) if audio else None
            if audio is None or bounds is None:
                continue
            supervisions = cut.get("supervisions") or []
            row = _row(str(cut.get("id")), audio, location, bounds, {} if turns else _merged(cut, supervisions))
            length = float(cut["duration"])
            spoken = [self._turn(supervision, length, location) for supervision in supervisions] if turns else []
            yield SourceRow(
                row.id, row.audio, location, row.start, row.end, row.speaker, row.labels, tuple(filter(None, spoken))
            )


def _merged(cut: Mapping[str, Any], supervisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a cut's supervision with what the cut itself has in `custom`."""
    supervision = dict(supervisions[0]) if supervisions else {}
    return {**supervision, "custom": {**(cut.get("custom") or {}), **(supervision.get("custom") or {})}}


def _row(
    name: str, audio: _Audio, location: str, bounds: tuple[float, float | None], supervision: Mapping[str, Any]
) -> SourceRow:
    custom = supervision.get("custom") or {}
    labels = {str(key): json_lines.text(value) for key, value in custom.items() if not isinstance(value, dict)}
    labels |= {key: json_lines.text(supervision[key]) for key in _FIELDS if supervision.get(key) is not None}
    return SourceRow(name, audio.path, location, *bounds, json_lines.text(supervision.get("speaker")), labels)


def _recording_problem(recording: Mapping[str, Any]) -> str:
    """Return what a recording asks for beyond reading a file of one channel; empty where nothing."""
    sources = recording.get("sources")
    if not isinstance(sources, list) or not sources or not all(isinstance(source, dict) for source in sources):
        return "states no sources"
    kinds = sorted({str(source.get("type")) for source in sources} - {"file"})
    if kinds:
        return f"has a source of type {', '.join(kinds)}; only files are read. Write its audio to a file first"
    channels = [channel for source in sources for channel in source.get("channels") or [0]]
    if channels != [0]:
        return f"has the channels {channels}; files of one channel are read. Write each channel to a file first"
    transforms = recording.get("transforms") or []
    if transforms:
        names = ", ".join(str(t.get("name") if isinstance(t, dict) else t) for t in transforms)
        return f"is to be transformed ({names}), which isn't done. Write its audio to a file first"
    seconds = recording.get("duration")
    return "" if isinstance(seconds, int | float) and seconds > 0 else "states no duration"


def _cut_problem(cut: Mapping[str, Any], turns: bool) -> str:
    """Return what a cut asks for beyond reading a segment of a file; empty where nothing."""
    kind = cut.get("type", "MonoCut")
    if kind != "MonoCut":
        return f"is a {kind}; only MonoCut is read. Write its audio to a file first"
    if not isinstance(cut.get("recording"), dict):
        return "has no recording: features alone are no audio"
    if cut.get("channel", 0) not in (0, [0]):
        return f"is of channel {cut['channel']}; files of one channel are read"
    count = len(cut.get("supervisions") or [])
    if count > 1 and not turns:
        return f"has {count} supervisions; one is read. Cut it by them first: lhotse cut trim-to-supervisions"
    return ""
