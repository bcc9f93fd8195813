from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.results import record as records
from superb_eval.results.record import RunRecord


def test_every_key_is_described_and_the_document_is_up_to_date() -> None:
    document = Path(records.__file__).parent / "README.md"
    assert records.describe_keys() in document.read_text(encoding="utf8"), "paste describe_keys() into it"
    assert all(line.partition(": ")[2] for line in records.describe_keys().splitlines())


def test_records_survive_the_disk(a_record: RunRecord, tmp_path: Path) -> None:
    records.write(a_record, tmp_path)
    assert records.read(tmp_path / "result.json") == a_record
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"], "no temporary file is left"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff"])
def test_what_is_no_record_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"result\.json"):
        records.read(path)
