"""What people type for an upstream, as an address: hub ids, folders and files, opened by what they hold.

| typed | address |
| --- | --- |
| `ORG/MODEL`, `ORG/MODEL@REVISION` | `hf:ORG/MODEL`, `hf:ORG/MODEL@REVISION` |
| a folder with transformers' config.json | `hf:FOLDER` |
| the same, of a student (heads.safetensors, or no norm before the projection) | `distilhubert@FOLDER` |
| a folder with one file of weights, or that file | `checkpoint:FILE` |

Paths are tidied (`~`, `./`, a final `/`), so that one upstream has one address. Nothing is loaded here, not even torch.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import outside_files

WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
"""Suffixes of files of weights, in any layout."""

FORMS = "hf:FOLDER (transformers), checkpoint:FILE or hubert@FILE (weights), s3prl:NAME, FILE.py:Class (your own code)"

HUB_IDS = (
    *(f"facebook/hubert-{size}" for size in ("base-ls960", "large-ll60k", "xlarge-ll60k", "large-ls960-ft")),
    *(f"facebook/wav2vec2-{size}" for size in ("base", "base-960h", "large", "large-960h", "large-lv60")),
    *(f"facebook/wav2vec2-{size}" for size in ("large-xlsr-53", "xls-r-300m", "xls-r-1b")),
    *(f"facebook/data2vec-audio-{size}" for size in ("base", "large")),
    *(f"microsoft/wavlm-{size}" for size in ("base", "base-plus", "large")),
    *(f"microsoft/unispeech-sat-{size}" for size in ("base", "base-plus", "large")),
    *(f"openai/whisper-{size}" for size in ("tiny", "base", "small", "medium", "large-v3")),
    "utter-project/mHuBERT-147",
)
"""Known models, for those who leave the first half of their ids out."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LINK = re.compile(r"\w+://")
_HUB_LINK = re.compile(r"https?://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+?)(?:/tree/([\w.-]+))?/?")
_PATH_SCHEMES = ("hf", "checkpoint", "units")
_WINDOWS = re.compile(r"([A-Za-z]):\\(.*)")
_FIRST_BYTES = (b"PK\x03\x04", b"\x80")
"""How torch's files begin: an archive, or a pickle."""
_TRAINING_FILES = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args)")
"""Files beside the weights that the trainer of transformers saves."""
_MOST_ENTRIES = 10_000
"""Looked at below a folder that holds no network itself: it may be a corpus."""
_PARTS_OF_FOLDERS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
"""transformers' names of weights, whose settings are in the config.json beside them."""


def canonical(text: str, is_name: Callable[[str], bool]) -> str:
    """Return the address that a text is opened as; an address, with its path tidied.

    Args:
        text: what was typed.
        is_name: whether an upstream has a name; a name comes before a folder that is called so.

    Raises:
        UserError: there is no such file or folder, or it holds nothing that can be opened.
    """
    _refuse_controls(text)
    _refuse_backslashes(text)
    if _LINK.match(text):
        return _of_link(text)
    head, at, checkpoint = text.partition("@")
    scheme, rest = split_scheme(head)
    if scheme is not None and not _exists(text):
        if scheme in _PATH_SCHEMES:
            return _with_scheme(scheme, text[len(scheme) + 1 :])
        return f"{tidy(scheme) if scheme.endswith('.py') else scheme}:{rest}{at}{tidy(checkpoint)}"
    if head.endswith(".py") or not head:  # `registry.parse` names what is missing
        return text
    return _of_existing(text, is_name) or _of_absent(head, at + tidy(checkpoint))


def split_scheme(head: str) -> tuple[str | None, str]:
    """Split `SCHEME:REST` or `FILE.py:Class`, whose path may hold a colon of its own; None: there is no scheme."""
    scheme, colon, rest = head.partition(":")
    if not colon or len(scheme) < 2 or not scheme.isidentifier():
        scheme, colon, rest = head.rpartition(":")
    return (scheme, rest) if colon else (None, head)


def tidy(path: str) -> str:
    """Return a path without `~`, `./`, `//` and a final `/`, and `random:0` as `random`; other texts as they are.

    `FILE#PREFIX` is tidied before the `#`.
    """
    if re.fullmatch("random:0+", path):
        return "random"
    if not path or path.startswith("random:") or _LINK.match(path):
        return path
    file, hash_sign, selection = (path, "", "") if _exists(path) else path.partition("#")
    return os.path.normpath(os.path.expanduser(file)) + hash_sign + selection


def of_path(path: str) -> str:
    """Return the address of a file or folder, by what it holds.

    Raises:
        UserError: it holds nothing that can be opened.
    """
    return _of_folder(Path(path)) if os.path.isdir(path) else _of_file(Path(path))


def absolute(address: str) -> str:
    """Return an address with the paths in it made absolute: two addresses of one file are then equal."""
    head, at, checkpoint = address.partition("@")
    scheme, rest = split_scheme(head)
    if scheme in _PATH_SCHEMES:
        return f"{scheme}:{_absolute_path(address[len(scheme) + 1 :])}"
    if scheme is not None and scheme.endswith(".py"):
        head = f"{_absolute_path(scheme)}:{rest}"
    return head + at + _absolute_path(checkpoint)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's config.json; empty where there is none, or it isn't a JSON object.

    Raises:
        UserError: it can't be read.
    """
    path = folder / "config.json"
    content = outside_files.read_json(path) if os.path.lexists(path) else {}
    return content if isinstance(content, dict) else {}


def _of_folder(folder: Path) -> str:
    config = read_config(folder)
    if config.get("model_type"):
        is_student = config["model_type"] == "hubert" and config.get("feat_proj_layer_norm") is False
        return f"distilhubert@{folder}" if is_student or (folder / "heads.safetensors").is_file() else f"hf:{folder}"
    checkpoints = _checkpoints(folder)
    if len(checkpoints) == 1:
        return f"checkpoint:{checkpoints[0]}"
    if checkpoints:
        names = ", ".join(path.name for path in checkpoints[:5])
        raise UserError(f"{folder}: holds {len(checkpoints)} files of weights: {names}. Give one of them.")
    below = list(itertools.islice(itertools.chain(folder.glob("*/*"), folder.glob("*/*/*")), _MOST_ENTRIES))
    networks = sorted(path.parent for path in below if path.name == "config.json")
    if networks and read_config(networks[0]).get("model_type"):
        raise UserError(f"{folder}: holds no network itself, but {networks[0]} does. Write hf:{networks[0]}.")
    if files := sorted(path for path in below if path.suffix in WEIGHT_SUFFIXES):
        raise UserError(f"{folder}: holds no weights itself, but {files[0]} is below. Write checkpoint:{files[0]}.")
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    raise UserError(f"{folder}: holds {found}, and no weights. Forms: {FORMS}.")


def _of_file(path: Path) -> str:
    if path.suffix in {".yaml", ".yml"}:
        raise UserError(
            f"{path}: holds settings, no weights. A recipe is run by `superb-eval run {path} -u NAME`; settings of an "
            f"s3prl entry are given as s3prl:NAME@{path}."
        )
    if _is_part_of_folder(path):
        return _of_folder(path.parent)
    if path.suffix in WEIGHT_SUFFIXES or _begins_as_torchs(path):
        return f"checkpoint:{path}"
    raise UserError(f"{path}: isn't weights ({', '.join(WEIGHT_SUFFIXES)}). Forms: {FORMS}.")


def _is_part_of_folder(path: Path) -> bool:
    """Return whether a file belongs to a folder in transformers' layout, whose config.json it needs."""
    name = path.name
    is_part = _PARTS_OF_FOLDERS.fullmatch(name) or name.endswith(".index.json") or name == "config.json"
    return bool(is_part and path.is_file() and read_config(path.parent).get("model_type"))


def _begins_as_torchs(path: Path) -> bool:
    with outside_files.open_regular(path) as file:
        return file.read(4).startswith(_FIRST_BYTES) and path.suffix not in {".zip", ".npz", ".pkl", ".whl"}


def _checkpoints(folder: Path) -> list[Path]:
    """Return the files of weights in a folder, but for the states of a trainer."""
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())
    return [path for path in files if not _TRAINING_FILES.match(path.name)]


def _of_existing(text: str, is_name: Callable[[str], bool]) -> str | None:
    """Return the address of a file or folder that is here, perhaps with a selection in it or a seed; else None."""
    head, at, checkpoint = text.partition("@")
    for path, rest in ((text, ""), (head, at + checkpoint)):
        if _exists(path):
            return text if is_name(path) else _with_rest(tidy(path), rest)
        file, hash_sign, selection = path.partition("#")
        if hash_sign and os.path.isfile(os.path.expanduser(file)):
            return f"checkpoint:{tidy(file)}#{selection}{rest}"
    return None


def _with_rest(path: str, rest: str) -> str:
    """Return the address of a path, of which a seed is asked for, or nothing more."""
    if not rest or not os.path.isdir(path):
        return of_path(path) + rest
    if not rest.startswith("@random"):
        raise UserError(f"{path}{rest}: {path} is a folder here, which has no revisions. Write {path} alone.")
    return f"hf:{path}@{tidy(rest[1:])}"


def _with_scheme(scheme: str, rest: str) -> str:
    """Return `hf:` or `checkpoint:` with a path tidied.

    Raises:
        UserError: `hf:` names a file.
    """
    path = os.path.expanduser(rest)
    if scheme == "hf" and os.path.isfile(path):
        raise UserError(f"hf:{rest}: is a file, and hf: opens folders and hub ids. Write {of_path(tidy(rest))}.")
    if scheme == "checkpoint" and (os.path.isdir(path) or _is_part_of_folder(Path(path))):
        return of_path(tidy(rest))
    if os.path.exists(path):
        return f"{scheme}:{tidy(rest)}"
    source, at, checkpoint = rest.partition("@")
    return f"{scheme}:{tidy(source)}{at}{tidy(checkpoint)}"


def _of_link(text: str) -> str:
    if match := _HUB_LINK.fullmatch(text):
        return f"hf:{match[1]}" + (f"@{match[2]}" if match[2] else "")
    raise UserError(f"'{text}': is a link. Download the file and write checkpoint:FILE; of a hub, write hf:ORG/MODEL.")


def _of_absent(head: str, rest: str) -> str:
    """Return the address of a hub id, or of a name; a path that isn't there is refused."""
    file = head.partition("#")[0]
    if _HUB_ID.fullmatch(head) and not head.endswith((*WEIGHT_SUFFIXES, ".yaml", ".yml")):
        _refuse_misspelt_path(head)
        return f"hf:{head}{rest}"
    if "/" in file or file.startswith("~") or file.endswith(WEIGHT_SUFFIXES):
        raise UserError(f"{file}: no such file or folder.{_near_path(file)} Forms: {FORMS}.")
    return head + rest


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _absolute_path(path: str) -> str:
    file, hash_sign, selection = (path, "", "") if _exists(path) else path.partition("#")
    return os.path.abspath(file) + hash_sign + selection if _exists(file) else path


def _refuse_controls(text: str) -> None:
    """Refuse bytes that are no text, and control characters: neither records nor folders of results can hold them."""
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        shown = "".join(char if char.isprintable() else "?" for char in text)
        raise UserError(f"'{shown}': holds a control character, or bytes that are no UTF-8. Rename the file.")


def _refuse_backslashes(text: str) -> None:
    """Refuse a path with backslashes where they are no separators, by the address with slashes."""
    path = text.rpartition("@")[2]
    if os.sep == "\\" or "\\" not in path or _exists(path):
        return
    match = _WINDOWS.fullmatch(path)
    slashes = f"/mnt/{match[1].lower()}/{match[2]}" if match else path
    address = text[: len(text) - len(path)] + slashes.replace("\\", "/")
    hint = "" if match is None else " (where Windows' drives are mounted under /mnt)"
    raise UserError(f"'{text}': backslashes separate no folders on this system. Write {address}{hint}.")


def _refuse_misspelt_path(name: str) -> None:
    """Refuse `FOLDER/NAME` where the folder is here and NAME isn't in it."""
    folder, _, last = name.partition("/")
    if os.path.isdir(folder):
        hint = near_miss(last, os.listdir(folder))
        raise UserError(f"{name}: the folder {folder} has no '{last}'.{hint} For a model on the hub write hf:{name}.")


def _near_path(path: str) -> str:
    """Return what is called alike where a path stops to exist, or where that is."""
    parent, wanted = os.path.split(os.path.expanduser(path))
    while parent and not os.path.isdir(parent):
        parent, wanted = os.path.split(parent)
    here = f" {parent} has no '{wanted}'." if parent else ""
    return near_miss(wanted, os.listdir(parent or ".")) or here
