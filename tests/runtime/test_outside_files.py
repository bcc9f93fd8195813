"""Files from outside: whatever lies under the name, its reader gets the content or one sentence."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from superb_eval.errors import UserError
from superb_eval.runtime import outside_files, system_errors

READERS = (
    outside_files.open_regular,
    outside_files.check_regular,
    outside_files.read_bytes,
    outside_files.read_text,
    outside_files.read_json,
)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)  # the address of a socket is short
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


IRREGULAR: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "no such file"),
    "folder": (Path.mkdir, "is a folder"),
    "pipe": (os.mkfifo, "is a pipe"),
    "socket": (_socket, "pipe"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a pipe, a socket or a device"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), "device|without another end"),
    "loop": (_loop, "lead in a circle"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "no such file"),
}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_not_regular_is_refused_at_once(kind: str, reader: Callable[[Path], object], tmp_path: Path) -> None:
    make, reason = IRREGULAR[kind]
    make(tmp_path / "file")
    with pytest.raises(UserError, match=f"file: .*({reason})"):
        reader(tmp_path / "file")


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "file/below"])
def test_impossible_names_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError):
        outside_files.read_text(tmp_path / name)


def test_regular_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes('{"naïve":\r\n 1}'.encode())
    (tmp_path / "link").symlink_to("file")
    assert outside_files.read_text(tmp_path / "link") == '{"naïve":\n 1}'
    assert outside_files.read_json(tmp_path / "link") == {"naïve": 1}
    with outside_files.open_regular(tmp_path / "link") as file:
        assert file.read(1) == b"{"


def test_a_file_is_no_larger_than_its_reader_allows(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert outside_files.read_bytes(tmp_path / "file", most=5) == b"12345"
    with pytest.raises(UserError, match="holds 5 bytes or more, at most 4"):
        outside_files.read_bytes(tmp_path / "file", most=4)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(UserError, match="holds 1099511627776 bytes"):
        outside_files.read_json(tmp_path / "sparse")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"ok\nna\xefve", "line 2: is no UTF-8"),
        (b'{"a":\n}', "line 2: is no JSON"),
        (b"", "line 1: is no JSON"),
        (b"[" * 10**5, "nested too deeply"),
        (b"9" * 10**4, "too many digits"),
    ],
)
def test_what_json_is_not_is_one_sentence(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"file\.json: {reason}|file\.json: .*{reason}"):
        outside_files.read_json(tmp_path / "file.json")


def test_errors_of_the_system_are_sentences_that_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        (tmp_path / ("n" * 300)).stat()
    assert "longer than the file system allows" in (system_errors.sentence(caught.value) or "")
    assert system_errors.sentence(OSError(errno.ENOSPC, "x"), "out") == f"out: the disk is full. {system_errors.AGAIN}"
    assert "memory ran out" in (system_errors.sentence(MemoryError()) or "")
    assert system_errors.sentence(OSError(errno.ENOTTY, "x", "file")) is None
    assert system_errors.sentence(KeyError("file")) is None
