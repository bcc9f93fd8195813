"""Data folders of Kaldi and ESPnet: `wav.scp` with `segments`, `text`, `utt2spk` and other tables of utterances.

Facts: Kaldi's "Data preparation" (kaldi-asr.org/doc/data_prep.html), `extract-segments`, and the layout of ESPnet's
`dump/raw`. Nothing in these files is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.data.importers.audio_files import AudioFinder, near_folders
from superb_eval.data.importers.kaldi_tables import KaldiTable
from superb_eval.data.importers.source import SourceCorpus, SourceRow, raise_if_bad
from superb_eval.data.manifest import Turn
from superb_eval.data.rttm import group_by_recording, read_rttm
from superb_eval.errors import UserError

KIND = "Kaldi data folder"

MAX_OVERSHOOT = 0.5
"""Seconds by which a segment may pass the end of its file, where it is then cut: as Kaldi's `extract-segments`."""

TOLERANCE = 0.01
"""Seconds by which `superb_eval.data.audio` lets a cut pass the end of its file: tables round their times."""

_NO_LABELS = frozenset(("utt2spk", "utt2dur", "utt2num_frames", "utt2num_samples", "utt2len"))

_ADVICE = "Fix these lines; Kaldi's utils/fix_data_dir.sh drops utterances that are not in all files."


def folders(root: Path) -> dict[str, Path]:
    """Return the data folders under `root` by their names: `root` itself (""), or those in it or in `root/data`."""
    if (root / "wav.scp").is_file():
        return {"": root}
    for base in (root, root / "data"):
        found = sorted(base.glob("*/wav.scp"))
        if found:
            return {path.parent.name: path.parent for path in found}
    return {}


def split_names(root: Path) -> list[str]:
    """Return the names of the data folders under `root`; [] where there is none."""
    return list(folders(root))


def read(root: Path, names: Sequence[str], turns: bool) -> SourceCorpus:
    """Return the utterances of the data folders `names`; with `turns`, whole recordings with their speaker turns.

    Turns are those of `rttm`, else the segments with the speakers of `utt2spk`. A folder that has `rttm` and no
    `segments` has them in either case.

    Raises:
        UserError: lines are bad (all are named), or audio is the output of a command or lies in an archive.
    """
    bad: list[str] = []
    notes: list[str] = []
    splits = {}
    present = folders(root)
    for name in names:
        parts = _Parts.read(present[name], root, name, bad)
        table = None if turns else parts.segments
        splits[name] = tuple(_recordings(parts, bad) if table is None else _segments(parts, table, bad))
        notes += _cut_note(name or parts.folder.name, splits[name], table) if table else []
    raise_if_bad(root, bad, _ADVICE)
    return SourceCorpus(KIND, root, splits, tuple(notes))


@dataclass(frozen=True)
class _Parts:
    """The tables of one data folder; `labels` are those of utterances by the label's name."""

    folder: Path
    wavs: KaldiTable
    segments: KaldiTable | None
    speakers: Mapping[str, str]
    labels: Mapping[str, KaldiTable]
    speaker_labels: Mapping[str, KaldiTable]
    finder: AudioFinder

    @classmethod
    def read(cls, folder: Path, root: Path, name: str, bad: list[str]) -> _Parts:
        """Read the tables; their problems are appended to `bad`."""

        def table(file: str, valued: bool = True) -> KaldiTable:
            return KaldiTable(folder / file, f"{name}/{file}" if name else file, bad, valued)

        def optional(file: str, valued: bool = True) -> KaldiTable | None:
            return table(file, valued) if (folder / file).is_file() else None

        wavs = table("wav.scp")
        _check_files(wavs)
        segments, text = optional("segments"), optional("text", valued=False)
        labels = {"text": text} if text else {}
        for path in sorted(folder.glob("utt2*")):
            if re.fullmatch(r"utt2\w+", path.name) and path.name not in _NO_LABELS:
                labels[path.name.removeprefix("utt2")] = table(path.name, valued=False)
        of_speakers = {
            path.name.removeprefix("spk2"): table(path.name)
            for path in sorted(folder.glob("spk2*"))
            if re.fullmatch(r"spk2\w+", path.name) and path.name != "spk2utt"
        }
        utt2spk = optional("utt2spk")
        complete = [*([text] if text else []), *([utt2spk] if utt2spk else [])]
        _check_utterances(segments or wavs, complete, list(labels.values()), bad)
        speakers = _speakers(utt2spk, optional("spk2utt"), bad)
        finder = AudioFinder(near_folders(folder, root))
        parts = cls(folder, wavs, segments, speakers, labels, of_speakers, finder)
        channels = optional("reco2file_and_channel")
        if channels:
            parts.check_channels(channels, bad)
        return parts

    def row(self, table: KaldiTable, key: str, path: Path, start: float, end: float | None) -> SourceRow:
        """Return an utterance with its speaker and labels; `table` lists it."""
        speaker = self.speakers.get(key, "")
        labels = {name: values.value(speaker) for name, values in self.speaker_labels.items()}
        labels |= {name: values.value(key) for name, values in self.labels.items()}
        return SourceRow(key, path, table.location(table.lines[key].number), start, end, speaker, labels)

    def file(self, recording: str, bad: list[str]) -> Path | None:
        """Return the audio file of a recording; None, and a sentence in `bad`, where there is none."""
        line = self.wavs.lines[recording]
        path = self.finder.find(line.value)
        if path is None:
            bad.append(f"{self.wavs.location(line.number)}: {self.finder.problem(line.value)}")
        return path

    def check_channels(self, channels: KaldiTable, bad: list[str]) -> None:
        """Append a sentence for each line of `reco2file_and_channel` that names another than a file's only channel."""
        for recording, line in channels.lines.items():
            path = self.finder.find(self.wavs.value(recording)) if recording in self.wavs.lines else None
            channel, count = line.value.split()[-1], _channels(path) if path else 1
            if path and (channel not in ("1", "A", "a") or count > 1):
                bad.append(
                    f"{channels.location(line.number)}: '{recording}' is channel {channel} of {path.name}, which has "
                    f"{count}; write that channel to a file of its own"
                )


def _channels(path: Path) -> int:
    """Return how many channels a file has; 1 where it can't be read, which is reported where it is."""
    try:
        return audio.header(Clip(path)).channels
    except UserError:
        return 1


def _check_files(wavs: KaldiTable) -> None:
    """Refuse commands, which are never run, and archives."""
    commands = [line for line in wavs.lines.values() if line.value.startswith("|") or line.value.endswith("|")]
    archived = [line for line in wavs.lines.values() if re.search(r"\.ark:\d+(\[.*\])?$", line.value)]
    for lines, what in ((commands, "commands, which are never run"), (archived, "places in archives")):
        if lines:
            raise UserError(
                f"{wavs.path}: {len(lines)} of {len(wavs.lines)} lines are {what} (line {lines[0].number}: "
                f"'{lines[0].value[:80]}'). Write their audio to files first, such as with ESPnet's "
                "scripts/audio/format_wav_scp.sh --audio-format wav, and list the files."
            )


def _check_utterances(listed: KaldiTable, complete: list[KaldiTable], tables: list[KaldiTable], bad: list[str]) -> None:
    """Check that tables name utterances that have audio, and that the `complete` ones name all of them."""
    for table in dict.fromkeys((*complete, *tables)):
        bad += [
            f"{table.location(line.number)}: utterance '{key}' has no audio: {listed.name} doesn't list it"
            for key, line in table.lines.items()
            if key not in listed.lines
        ]
    for table in complete:
        bad += [
            f"{listed.location(line.number)}: '{key}' has no line in {table.name}"
            for key, line in listed.lines.items()
            if key not in table.lines
        ]


def _speakers(utt2spk: KaldiTable | None, spk2utt: KaldiTable | None, bad: list[str]) -> dict[str, str]:
    """Return the speaker of each utterance."""
    if utt2spk is not None:
        return {utterance: line.value for utterance, line in utt2spk.lines.items()}
    speakers: dict[str, str] = {}
    for speaker, line in spk2utt.lines.items() if spk2utt else ():
        for utterance in line.value.split():
            if speakers.setdefault(utterance, speaker) != speaker and spk2utt:
                bad.append(
                    f"{spk2utt.location(line.number)}: '{utterance}' is already an utterance of {speakers[utterance]}"
                )
    return speakers


def _segments(parts: _Parts, table: KaldiTable, bad: list[str]) -> Iterator[SourceRow]:
    """Yield the utterances that `table`, the file `segments`, cuts out of recordings."""
    files: dict[str, tuple[Path, float] | None] = {}
    for utterance, line in table.lines.items():
        location = table.location(line.number)
        bounds = _bounds(line.value)
        if bounds is None:
            bad.append(f"{location}: '{line.value[:80]}' is not 'recording start end' in seconds, end -1: at the end")
            continue
        recording, start, end = bounds
        if recording not in parts.wavs.lines:
            bad.append(f"{location}: recording '{recording}' has no line in {parts.wavs.name}")
            continue
        if recording not in files:
            files[recording] = _file_and_seconds(parts, recording, bad)
        found = files[recording]
        if found is None:
            continue
        path, seconds = found
        if start >= seconds or (end is not None and end > seconds + MAX_OVERSHOOT):
            stop = "the end" if end is None else f"{end} s"
            bad.append(f"{location}: {start} s to {stop} lies outside {path.name}, which lasts {seconds:.3f} s")
        else:
            passes = end is not None and end > seconds + TOLERANCE
            yield parts.row(table, utterance, path, start, seconds if passes else end)


def _file_and_seconds(parts: _Parts, recording: str, bad: list[str]) -> tuple[Path, float] | None:
    path = parts.file(recording, bad)
    if path is None:
        return None
    try:
        return path, audio.seconds(Clip(path))
    except UserError as error:
        bad.append(f"{parts.wavs.location(parts.wavs.lines[recording].number)}: {error}")
        return None


def _bounds(value: str) -> tuple[str, float, float | None] | None:
    """Return recording, start and end of a line of `segments`; None where it is malformed."""
    fields = value.split()
    try:
        start, end = float(fields[1]), float(fields[2])
    except (ValueError, IndexError):
        return None
    # Written so that NaN is refused. A fifth field would be a channel of a file of several.
    valid = 0 <= start < float("inf") and (end == -1 or start < end < float("inf")) and len(fields) == 3
    return (fields[0], start, None if end == -1 else end) if valid else None


def _recordings(parts: _Parts, bad: list[str]) -> Iterator[SourceRow]:
    """Yield whole recordings with their turns, where these are known."""
    turns = _turns(parts, bad)
    for recording in parts.wavs.lines:
        path = parts.file(recording, bad)
        if path is not None:
            row = parts.row(parts.wavs, recording, path, 0.0, None)
            # Where there are segments, labels and speakers are theirs.
            row = row if parts.segments is None else replace(row, speaker="", labels={})
            yield replace(row, turns=turns.get(recording, ()))


def _turns(parts: _Parts, bad: list[str]) -> dict[str, tuple[Turn, ...]]:
    path = parts.folder / "rttm"
    if path.is_file():
        name = parts.wavs.name.removesuffix("wav.scp") + "rttm"
        lines, wrong = read_rttm(path)
        wrong += [
            f"line {line.number}: recording '{line.recording}' has no line in wav.scp"
            for line in lines
            if line.recording not in parts.wavs.lines
        ]
        bad += [f"{name}, {problem}" for problem in wrong]
        return {key: tuple(line.turn for line in group) for key, group in group_by_recording(lines).items()}
    return _segment_turns(parts, parts.segments, bad) if parts.segments else {}


def _segment_turns(parts: _Parts, table: KaldiTable, bad: list[str]) -> dict[str, tuple[Turn, ...]]:
    """Return each recording's turns: its segments, with their speakers."""
    turns: dict[str, list[Turn]] = {}
    for row in _segments(parts, table, bad):
        recording = table.value(row.id).split()[0]
        if row.speaker:
            end = audio.seconds(Clip(Path(str(row.audio)))) if row.end is None else row.end
            turns.setdefault(recording, []).append(Turn(row.start, end, row.speaker))
        else:
            bad.append(f"{row.location}: a speaker turn needs a speaker, in utt2spk")
    return {recording: tuple(group) for recording, group in turns.items()}


def _cut_note(name: str, rows: tuple[SourceRow, ...], table: KaldiTable) -> list[str]:
    """Return a note of how many segments were cut at the end of their file."""
    stated = {key: _bounds(line.value) for key, line in table.lines.items()}
    count = sum(bounds is not None and bounds[2] != row.end for row in rows if (bounds := stated.get(row.id)))
    return [f"{name}: {count} segment(s) cut at the end of their file"] if count else []
