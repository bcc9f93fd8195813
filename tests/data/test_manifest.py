"""Manifests: valid rows become utterances, and every bad row is named with its line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from superb_eval.data import manifest, read_manifest
from superb_eval.data.audio import Clip
from superb_eval.errors import UserError

HEADER = "id,path,speaker,keyword"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpus folder with three (empty) audio files and a folder for the task's manifests."""
    root = tmp_path / "corpus"
    (root / "ks").mkdir(parents=True)
    (root / "audio").mkdir()
    for name in ("a", "b", "c"):
        (root / "audio" / f"{name}.wav").touch()
    return root


def write(root: Path, *rows: str, split: str = "train", header: str = HEADER) -> Path:
    path = root / "ks" / f"{split}.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf8")
    return path


def read(root: Path, columns: tuple[str, ...] = ("keyword",)) -> manifest.Manifest:
    return read_manifest.read_split(root / "ks", "train", columns, root)


def refusal(root: Path, columns: tuple[str, ...] = ("keyword",)) -> str:
    with pytest.raises(UserError) as error:
        read(root, columns)
    return str(error.value)


def test_rows_become_utterances(root: Path) -> None:
    header = "id,path,start,end,speaker,keyword,duration_s,source"
    write(root, "x,audio/a.wav,,,anna,yes,1.0,lab", "y,audio/a.wav,0.5,1,ben,no,1.0,", header=header)
    first, second = read(root)
    assert first.clip == Clip(root / "audio" / "a.wav")
    assert (first.id, first.speaker, first.line) == ("x", "anna", 2)
    assert first.labels == {"keyword": "yes", "source": "lab"}
    assert second.clip == Clip(root / "audio" / "a.wav", 0.5, 1.0)
    assert second.labels == {"keyword": "no", "source": ""}


def test_the_speaker_is_a_label_where_the_task_needs_it(root: Path) -> None:
    write(root, "x,audio/a.wav,anna,yes")
    assert read(root, ("speaker",)).utterances[0].labels == {"speaker": "anna", "keyword": "yes"}


def test_every_bad_row_is_named_with_its_line(root: Path) -> None:
    path = write(
        root,
        "x,audio/a.wav,0,1,anna,yes",
        "y,audio/none.wav,0,1,anna,yes",
        "x,audio/b.wav,0,1,anna,yes",
        ",audio/b.wav,0,1,,",
        "z,audio/c.wav,1,0.5,anna,yes",
        "u,audio/c.wav,soon,1,anna,yes",
        "v,audio/c.wav,0,1,anna,yes,extra",
        "w,audio/c.wav",
        header="id,path,start,end,speaker,keyword",
    )
    assert refusal(root).splitlines() == [
        f"{path}: 7 bad row(s):",
        f"  line 3: no such file: {root}/audio/none.wav",
        "  line 4: id 'x' is already that of 2",
        "  line 5: empty id; empty speaker; empty keyword",
        "  line 6: start 1.0 s and end 0.5 s do not bound a segment of audio",
        "  line 7: start 'soon' and end '1' must be seconds, or empty",
        "  line 8: has 7 cells where there are 6 columns (quote cells that hold commas)",
        "  line 9: has 2 cells where there are 6 columns (quote cells that hold commas)",
    ]


def test_many_bad_rows_are_counted(root: Path) -> None:
    write(root, *(f"x{i},audio/none.wav,anna,yes" for i in range(100)))
    message = refusal(root)
    assert "100 bad row(s)" in message
    assert (message[-10:], message.count("no such file")) == ("(+80 more)", manifest.MAX_LISTED)


@pytest.mark.parametrize(
    ("start", "end"),
    [("nan", ""), ("", "nan"), ("inf", ""), ("", "inf"), ("-1", ""), ("1", "1"), ("", "0"), ("1e999", "")],
)
def test_times_in_the_wrong_order_are_refused(root: Path, start: str, end: str) -> None:
    write(root, f"x,audio/a.wav,{start},{end},anna,yes", header="id,path,start,end,speaker,keyword")
    assert "line 2: start" in refusal(root)


def test_spaces_around_cells_make_neither_a_new_id_nor_a_new_class(root: Path) -> None:
    write(root, "x, audio/a.wav , anna,yes ", header="id, path, speaker, keyword")
    assert read(root).utterances[0].labels == {"keyword": "yes"}
    write(root, "x,audio/a.wav,anna,yes", "x ,audio/b.wav,anna,yes", "X,audio/c.wav,anna,yes")
    assert refusal(root).splitlines()[1:] == ["  line 3: id 'x' is already that of 2"]


def test_lines_are_counted_through_quoted_line_breaks_and_blank_lines(root: Path) -> None:
    write(root, 'x,audio/a.wav,anna,"yes\nyes"', "", "y,audio/b.wav,anna,no", "z,audio/none.wav,anna,no")
    assert refusal(root).splitlines()[1:] == [f"  line 6: no such file: {root}/audio/none.wav"]
    write(root, 'x,audio/a.wav,anna,"yes\nyes"', "", "y,audio/b.wav,anna,no")
    assert [(u.line, u.labels["keyword"]) for u in read(root)] == [(2, "yes\nyes"), (5, "no")]


def test_an_open_quote_is_refused_with_its_line(root: Path) -> None:
    path = write(root, "x,audio/a.wav,anna,yes", 'y,audio/b.wav,anna,"no', "z,audio/c.wav,anna,no")
    assert refusal(root).startswith(f"{path}: line 3: not CSV")


def test_missing_columns_are_named_with_what_was_found(root: Path) -> None:
    path = write(root, "x,audio/a.wav,anna,yes", header="id,path,talker,keywrod")
    message = refusal(root)
    assert message.startswith(f"{path}: missing column(s) speaker, keyword (found: id, path, talker, keywrod).")
    assert "Did you mean 'keywrod'?" in message


def test_a_duplicate_column_is_refused(root: Path) -> None:
    write(root, "x,audio/a.wav,anna,yes,no", header="id,path,speaker,keyword,keyword")
    assert "column(s) keyword appear twice" in refusal(root)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators_are_recognised(root: Path, mark: str) -> None:
    write(root, "x,audio/a.wav,anna,yes".replace(",", mark), header=HEADER.replace(",", mark))
    assert "Separate the columns with commas" in refusal(root)


def test_paths_that_lead_out_of_the_folder_are_refused_and_links_on_request(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "s.wav").touch()
    (root / "link.wav").symlink_to(outside / "s.wav")
    write(root, "x,link.wav,anna,yes", "y,../outside/s.wav,anna,yes")
    assert "line 3: path '../outside/s.wav' leads out of the corpus folder; it must be relative" in refusal(root)
    write(root, "x,link.wav,anna,yes")
    assert len(read_manifest.read_split(root / "ks", "train", ("keyword",), root)) == 1
    with pytest.raises(UserError, match="line 2: path 'link.wav' leads out of the corpus folder, by a link"):
        read_manifest.read_split(root / "ks", "train", ("keyword",), root, allow_links=False)


def test_text_in_another_encoding_is_refused_with_its_line(root: Path) -> None:
    path = root / "ks" / "train.csv"
    path.write_bytes(f"{HEADER}\nx,audio/a.wav,anna,yes\ny,audio/b.wav,Zo\xe9,no\n".encode("latin1"))
    assert refusal(root).startswith(f"{path}: line 3: not UTF-8 (byte 0xe9)")


def test_a_byte_order_mark_is_no_part_of_the_first_column(root: Path) -> None:
    (root / "ks" / "train.csv").write_text(f"{HEADER}\r\nx,audio/a.wav,Zoé,yes\r\n", encoding="utf-8-sig")
    assert read(root).utterances[0].speaker == "Zoé"


def test_empty_files_are_refused(root: Path) -> None:
    path = root / "ks" / "train.csv"
    for content in ("", "\n\n"):
        path.write_text(content)
        assert "is empty; expected a line of column names" in refusal(root)
    path.write_text(HEADER)
    assert "has column names but no rows" in refusal(root)


def test_parquet_is_read_like_csv_and_its_rows_are_numbered(root: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = {"id": ["x", "y"], "path": ["audio/a.wav", "audio/b.wav"], "speaker": [7, 8], "keyword": ["yes", "NA"]}
    path = root / "ks" / "train.parquet"
    pandas.DataFrame(table | {"start": [0.0, None], "end": [0.25, None]}).to_parquet(path)
    first, second = read(root)
    assert (first.speaker, first.clip.end, first.line) == ("7", 0.25, 1)
    assert (second.labels["keyword"], second.clip.end, second.line) == ("NA", None, 2)
    pandas.DataFrame(table | {"path": ["audio/a.wav", "none.wav"]}).to_parquet(path)
    assert "row 2: no such file" in refusal(root)
    path.write_bytes(b"PAR1")
    assert "can't be read as Parquet" in refusal(root)


def test_labels_absent_from_training_are_named_with_their_lines(root: Path) -> None:
    write(root, "x,audio/a.wav,anna,yes", "y,audio/b.wav,anna,no")
    path = write(root, "x,audio/a.wav,anna,yes", "y,audio/b.wav,anna,maybe", split="dev")
    dev = read_manifest.read_split(root / "ks", "dev", ("keyword",), root)
    manifest.check_labels(read(root), read(root), "keyword")
    with pytest.raises(UserError) as error:
        manifest.check_labels(read(root), dev, "keyword")
    message = str(error.value)
    assert message.startswith(f"{path}: 1 bad row(s):")
    assert "line 3: keyword 'maybe' is never seen in train (known: no, yes)" in message


def test_a_corpus_is_its_three_splits_and_its_description(root: Path) -> None:
    for split in manifest.SPLITS:
        write(root, "x,audio/a.wav,anna,yes", split=split)
    assert read_manifest.read(root, "ks", ("keyword",)).name == "corpus"
    (root / "corpus.json").write_text(json.dumps({"name": "mine", "synthetic": True}))
    corpus = read_manifest.read(root, "ks", ("keyword",))
    assert (corpus.name, corpus.synthetic, list(corpus.splits)) == ("mine", True, ["train", "dev", "test"])
    for broken in ("{", "[]"):
        (root / "corpus.json").write_text(broken)
        with pytest.raises(UserError, match=r"corpus\.json: "):
            read_manifest.read(root, "ks", ("keyword",))


def test_missing_folders_and_splits_are_refused(root: Path) -> None:
    write(root, "x,audio/a.wav,anna,yes")
    with pytest.raises(UserError, match="no such corpus folder"):
        read_manifest.read(root / "none", "ks", ())
    with pytest.raises(UserError, match=rf"Did you mean '{root.name}'\?"):
        read_manifest.read(root.with_name(root.name + "s"), "ks", ())
    with pytest.raises(UserError, match=r"has no folder 'sid' with manifests \(tasks there: ks\)"):
        read_manifest.read(root, "sid", ())
    with pytest.raises(UserError, match=r"has no dev\.csv"):
        read_manifest.read(root, "ks", ())


def test_the_digest_depends_on_rows_but_not_on_the_folder(root: Path) -> None:
    write(root, "x,audio/a.wav,anna,yes")
    before = read(root).digest()
    moved = root.rename(root.parent / "moved")
    assert read(moved).digest() == before
    for changed in (
        "y,audio/a.wav,anna,yes",
        "x,audio/b.wav,anna,yes",
        "x,audio/a.wav,ben,yes",
        "x,audio/a.wav,anna,no",
    ):
        write(moved, changed)
        assert read(moved).digest() != before


cells = st.text("ab \",;'\n\r\té日#", min_size=1, max_size=8).map(str.strip).filter(bool)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(cells, min_size=1, max_size=5))
def test_any_label_that_csv_can_quote_is_read_back(root: Path, labels: list[str]) -> None:
    with (root / "ks" / "train.csv").open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.split(","))
        writer.writerows([i, "audio/a.wav", "anna", label] for i, label in enumerate(labels))
    assert [u.labels["keyword"] for u in read(root)] == labels


def test_a_column_is_read_under_its_other_name_where_it_is_missing(root: Path) -> None:
    aliases = {"keyword": "word"}
    write(root, "x,audio/a.wav,anna,yes", header="id,path,speaker,word")
    split = read_manifest.read_split(root / "ks", "train", ("keyword",), root, aliases=aliases)
    assert split.utterances[0].labels == {"keyword": "yes"}
    write(root, "x,audio/a.wav,anna,yes,no", header="id,path,speaker,word,keyword")
    split = read_manifest.read_split(root / "ks", "train", ("keyword",), root, aliases=aliases)
    assert split.utterances[0].labels == {"word": "yes", "keyword": "no"}


def test_advice_on_a_missing_column_names_no_column_of_other_use(root: Path) -> None:
    """Once, `action` was answered by "Did you mean 'duration_s'?"."""
    write(root, "x,audio/a.wav,anna,1.0,small", header="id,path,speaker,duration_s,size")
    with pytest.raises(manifest.MissingColumnsError, match=r"missing column\(s\) action .*size\)\.$") as error:
        read(root, ("action",))
    assert error.value.present == ("size",)
