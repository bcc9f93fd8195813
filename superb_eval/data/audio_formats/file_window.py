"""A range of a file behind other bytes, as one file: how a header is replaced without copying what follows it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


class FileWindow(io.RawIOBase):
    """`prefix`, then the bytes of a file from `start` up to `stop` (None: its end)."""

    def __init__(self, path: Path, prefix: bytes = b"", start: int = 0, stop: int | None = None) -> None:
        self._file = path.open("rb")
        end = os.fstat(self._file.fileno()).st_size if stop is None else stop
        self._prefix, self._start = prefix, start
        self._size = len(prefix) + max(0, end - start)
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the window reaches, and return the number of bytes."""
        count = min(len(buffer), max(0, self._size - self._position))
        content = self._prefix[self._position : self._position + count]
        if len(content) < count:
            self._file.seek(self._start + self._position + len(content) - len(self._prefix))
            content += self._file.read(count - len(content))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
