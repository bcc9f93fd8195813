"""What the operating system refuses, or a library that does not load, as one sentence that names what to do."""

from __future__ import annotations

import errno
import os
import traceback

from superb_eval.runtime import out_of_memory

AGAIN = "Free some space and run the same command again: finished runs are not repeated."

_REMEDIES = {
    errno.ENOENT: "no such file or folder.",
    errno.ENOSPC: f"the disk is full. {AGAIN}",
    errno.EDQUOT: f"the disk quota is used up. {AGAIN}",
    errno.EFBIG: "files may not grow that large here (`ulimit -f`). Raise the limit and run the same command again.",
    errno.EACCES: "you don't have the permission. Choose another file or folder, or ask its owner.",
    errno.EPERM: "you don't have the permission. Choose another file or folder, or ask its owner.",
    errno.ENOTDIR: "there is a file where a folder should be. Choose another folder.",
    errno.EISDIR: "is a folder. Name a file in it.",
    errno.EEXIST: "there is a file where a folder should be. Choose another folder.",
    errno.EROFS: "the file system is read-only. Choose another folder.",
    errno.ENAMETOOLONG: "the name is longer than the file system allows. Choose a shorter one.",
    errno.ELOOP: "its links lead in a circle. Name the file itself.",
    errno.EMFILE: "too many files are open (`ulimit -n`). Raise the limit and run the same command again.",
    errno.ENFILE: "too many files are open on this machine. Run the same command again later.",
    errno.ENOMEM: "the machine's memory ran out. Run the same command again with more, or beside less.",
    errno.EIO: "the disk doesn't read or write it (input/output error). Check the disk.",
    errno.ESTALE: "the network file system lost it. Mount it anew and run the same command again.",
    errno.ENXIO: "is a pipe or a device without another end. Name a regular file.",
    errno.EINVAL: "the file system refuses the name or the operation. Choose another folder.",
    errno.EILSEQ: "the file system refuses the letters of the name. Choose another one.",
}

_WITHOUT_MEMORY = ("Cannot allocate memory", "can't start new thread", "failed to map segment")
"""Texts of errors, of libraries that are loaded or threads that are started, where memory is limited."""

_LIBRARIES = ("torch", "torchaudio", "transformers", "altair")
"""Libraries that fail to load where another version of one is installed, or the user has no home folder."""


def sentence(error: BaseException, path: str | os.PathLike[str] | None = None) -> str | None:
    """Return an error of the operating system, or of a library's import, as a sentence; None: see another in full.

    `path` is the file where the error names none.
    """
    if out_of_memory.is_out_of_memory(error) or any(text in str(error) for text in _WITHOUT_MEMORY):
        return (
            f"memory ran out ({out_of_memory.first_line(error)}). "
            "Allow more (`ulimit -v`), or make features.batch_seconds, train.batch_size or --workers smaller."
        )
    if reason := _failed_import(error):
        return f"{reason}. `superb-eval doctor` checks the installation and names what fits."
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):  # pathlib's, of a circle of links
        error = error.__context__
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    name = path if isinstance(error.filename, int | None) else error.filename  # int: a descriptor
    return None if name is None else f"{os.fsdecode(name)}: {_REMEDIES[error.errno]}"


def _failed_import(error: BaseException) -> str | None:
    """Return which library's import raised the error, or what caused it, and the first cause."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    why = f"{type(causes[-1]).__name__}: {out_of_memory.first_line(causes[-1])}".rstrip(".")
    for each in reversed(causes):
        for frame, _ in reversed(list(traceback.walk_tb(each.__traceback__))):
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if frame.f_code.co_name == "<module>" and package in _LIBRARIES:
                return f"{package} can't be imported ({why})"
    return None
