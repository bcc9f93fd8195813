"""A short form of the fuzzing campaign: every file is accepted, or refused with a `UserError`."""

from __future__ import annotations

from pathlib import Path

import pytest

from superb_eval.errors import UserError
from tests.campaigns import fuzz, inputs

COUNTS = {"audio": 400, "recipe": 80, "lexicon": 60, "arpa": 60, "checkpoint": 30, "safetensors": 30}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", inputs.KINDS)
def test_damaged_files_are_refused_with_a_user_error(name: str, tmp_path: Path) -> None:
    if name in ("lexicon", "arpa"):
        pytest.importorskip("flashlight.lib.text")
        pytest.importorskip("kenlm")
    tally = fuzz.run(inputs.KINDS[name], COUNTS.get(name, 150), tmp_path, seed=1)
    assert set(tally.counts) == {"accepted", "refused"}, tally.others


def test_the_campaign_counts_other_errors(tmp_path: Path) -> None:
    def read(path: Path) -> object:
        content = path.read_bytes()
        if len(content) % 3 == 0:
            raise KeyError("not a user error")
        return bytearray(10**12) if len(content) % 3 == 1 else None

    kind = inputs.Kind("fake", ".bin", lambda folder: [b"1", b"22", b"333"], read)
    tally = fuzz.run(kind, 40, tmp_path)
    assert tally.counts["MemoryError: "] and tally.counts["KeyError: 'not a user error'"] and tally.counts["accepted"]
    assert tally.others["KeyError: 'not a user error'"] is not None and "other" in str(tally)


def test_a_kind_whose_undamaged_file_is_refused_is_no_campaign(tmp_path: Path) -> None:
    def read(path: Path) -> object:
        raise UserError(f"{path.name}: needs a package")

    tally = fuzz.run(inputs.Kind("fake", ".bin", lambda folder: [b"1"], read), 40, tmp_path)
    assert tally.counts == {"the undamaged file is refused: fuzzed.bin: needs a package": 1}
