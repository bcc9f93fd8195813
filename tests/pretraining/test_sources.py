from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from superb_eval.data.audio import Clip
from superb_eval.errors import UserError
from superb_eval.pretraining import sources
from superb_eval.pretraining.recipe import DataSettings
from superb_eval.runtime.progress import NoProgress


def find(paths: dict[str, Path], *source: dict[str, object], **settings: object) -> list[Clip]:
    recipe = DataSettings.model_validate({"sources": source, **settings})
    return sources.find_clips(recipe, paths, 0, NoProgress())


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf8")
    return path


@pytest.fixture
def corpus(tmp_path: Path, speech: Path) -> Path:
    """Two tasks; `a` holds out 01, of which 05 is a copy by another name, and `qbe` holds out 02 and 03."""
    root = tmp_path / "corpus"
    shutil.copytree(speech, root / "audio")
    shutil.copy(root / "audio/01.flac", root / "audio/05.flac")
    write(root / "a/train.csv", "id,path", *(f"{k},audio/0{k}.flac" for k in (0, 2, 4, 5, 6)))
    write(root / "a/dev.csv", "id,path", "1,audio/01.flac")
    write(root / "qbe/docs.csv", "split,id,path", "dev,2,audio/02.flac")
    write(root / "qbe/queries.csv", "split,id,path", "test,3,audio/03.flac")
    write(root / "qbe/pairs.csv", "split,query,doc,label", "dev,1,2,1")
    return root


def test_a_corpus_gives_training_rows_that_no_task_holds_out_by_content(corpus: Path) -> None:
    assert [clip.path.stem for clip in find({"c": corpus}, {"corpus": "c"})] == ["00", "04", "06"]


def test_other_sources_lose_what_a_corpus_or_an_excluded_manifest_holds_out(corpus: Path, speech: Path) -> None:
    paths = {"c": corpus, "s": speech, "held": corpus / "a/train.csv"}
    both = find(paths, {"folder": "s"}, {"corpus": "c"})
    assert not {"01", "02", "03"} & {clip.path.stem for clip in both}
    without = find(paths, {"folder": "s"}, exclude=["held"])
    # 01 goes too: row 05 of the manifest has its content; the folder's own 05 is another recording.
    assert {clip.path.stem for clip in without} == {p.stem for p in speech.iterdir()} - {"00", "01", "02", "04", "06"}


def test_manifests_cut_their_files(speech: Path, tmp_path: Path) -> None:
    path = write(
        speech.parent / "m.csv", "path,start,end", f"{speech.name}/00.flac,0.1,0.4", f"{speech.name}/00.flac,,"
    )
    assert find({"m": path}, {"manifest": "m"}) == [
        Clip(speech.parent / speech.name / "00.flac", 0.1, 0.4),
        Clip(speech.parent / speech.name / "00.flac"),
    ]


def test_librispeech_gives_its_training_folders(tmp_path: Path, speech: Path) -> None:
    for part in ("train-clean-100", "train-other-500", "dev-clean"):
        shutil.copytree(speech, tmp_path / "LibriSpeech" / part / "1" / "2")
    assert len(find({"l": tmp_path}, {"librispeech": "l"})) == 48
    assert len(find({"l": tmp_path}, {"librispeech": "l", "parts": ["train-clean-100"]})) == 24
    with pytest.raises(UserError, match="has no train-clean-360"):
        find({"l": tmp_path}, {"librispeech": "l", "parts": ["train-clean-360"]})


def test_a_smaller_share_lies_within_a_larger_one(speech: Path) -> None:
    half, most = (set(find({"s": speech}, {"folder": "s"}, share=share)) for share in (0.5, 0.75))
    assert len(half) == 12 and len(most) == 18 and half < most


def test_missing_sources_are_explained(tmp_path: Path, speech: Path) -> None:
    with pytest.raises(UserError, match="no such source of audio. Give its path: --data nowhere=PATH"):
        find({}, {"folder": "nowhere"})
    with pytest.raises(UserError, match="holds no audio"):
        find({"s": tmp_path}, {"folder": "s"})
    bad = write(tmp_path / "bad.csv", "path,start", "a.flac,soon")
    with pytest.raises(UserError, match="line 2: no path, or start and end are no seconds"):
        find({"m": bad}, {"manifest": "m"})
    with pytest.raises(UserError, match="expected nano or mini"):
        find({}, {"synthetic": "huge"})
    with pytest.raises(UserError, match="has no column 'path'"):
        find({"m": write(tmp_path / "other.csv", "file", "a")}, {"manifest": "m"})
