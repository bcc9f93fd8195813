"""A pickle's names are never imported or called, whatever its instructions; what state dicts need is read."""

from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import functools
import io
import os
import pathlib
import pickle
import re
import struct
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from superb_eval.errors import UserError
from upstreams import checkpoint
from upstreams.loading.checkpoint_file import read_checkpoint
from upstreams.loading.inert_pickle import InertUnpickler, RefusedNameError
from upstreams.loading.inert_values import ForeignName, InertObject

RAN: list[str] = []
"""What a pickle ran; nothing ever may."""


def run(*arguments: object) -> list[str]:
    """Stand for code of an attacker: it is importable, as `trap.run` is in every test."""
    RAN.append(str(arguments))
    return RAN


class TrapError(Exception):
    """A class whose construction and every method that unpickling calls is code of an attacker."""

    def __new__(cls, *arguments: object) -> TrapError:
        run("__new__")
        return super().__new__(cls)

    def __init__(self, *arguments: object) -> None:
        run("__init__")

    def __setstate__(self, state: object) -> None:
        run("__setstate__")

    def append(self, item: object) -> None:
        run("append")

    extend = add = __setitem__ = append  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def trap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of an attacker that is imported already, so that looking it up would find it."""
    module: Any = types.ModuleType("trap")
    module.run, module.Trap = run, TrapError
    monkeypatch.setitem(sys.modules, "trap", module)
    RAN.clear()
    yield
    assert RAN == []


def read(data: bytes) -> Any:
    return InertUnpickler(io.BytesIO(data), len(data)).load()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


GLOBAL = b"ctrap\nrun\n"
CLASS = b"ctrap\nTrap\n"
MINE = b"\x8c\x04trap\x8c\x03run\x93"
"""The same by STACK_GLOBAL."""

INSTRUCTIONS = {
    "REDUCE": GLOBAL + b"(tR.",
    "REDUCE with arguments": GLOBAL + b"(I1\ntR.",
    "STACK_GLOBAL": MINE + b")R.",
    "INST": b"(I1\nitrap\nrun\n.",
    "OBJ": b"(" + GLOBAL + b"I1\no.",
    "NEWOBJ": CLASS + b")\x81.",
    "NEWOBJ_EX": CLASS + b")}\x92.",
    "NEWOBJ, then BUILD": CLASS + b")\x81}" + text("a") + b"I1\nsb.",
    "BUILD of a class": CLASS + b"}" + text("__init__") + GLOBAL + b"sb.",
    "BUILD of a function": GLOBAL + b"}" + text("__defaults__") + b"(I1\ntsb.",
    "BUILD of a pair of states": CLASS + b")\x81(N}" + text("run") + b"I1\nstb.",
    "APPEND": CLASS + b")\x81I1\na.",
    "APPENDS": CLASS + b")\x81(I1\nI2\ne.",
    "ADDITEMS": CLASS + b")\x81(I1\n\x90.",
    "SETITEM": CLASS + b")\x81I1\nI2\ns.",
    "SETITEMS": CLASS + b")\x81(I1\nI2\nu.",
    "a call of what a call returned": GLOBAL + b")R)R.",
    "a call of a class's attribute": b"\x8c\x04trap\x8c\x0dTrap.__init__\x93)R.",
    "copyreg._reconstructor": b"ccopyreg\n_reconstructor\n(" + CLASS + b"c__builtin__\nobject\nNtR.",
    "copyreg._reconstructor of a list": b"ccopyreg\n_reconstructor\n(" + CLASS + b"c__builtin__\nlist\n]tR.",
    "copyreg.__newobj__": b"ccopyreg\n__newobj__\n(" + CLASS + b"tR.",
    "functools.partial": b"cfunctools\npartial\n(" + GLOBAL + b"tR(tR.",
    "a factory of defaults": b"ccollections\ndefaultdict\n(" + GLOBAL + b"tR.",
    "a tensor's class": b"ctorch._tensor\n_rebuild_from_type_v2\n(" + GLOBAL + CLASS + b")}tR.",
}


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_no_instruction_runs_or_changes_anything(instruction: str) -> None:
    defaults = run.__defaults__
    read(INSTRUCTIONS[instruction])
    assert RAN == []
    assert run.__defaults__ is defaults
    assert vars(TrapError)["__init__"].__qualname__ == "TrapError.__init__"


@pytest.mark.parametrize("name", ["REDUCE", "INST", "OBJ", "NEWOBJ", "APPEND", "BUILD of a pair of states"])
def test_the_same_in_pythons_own_unpickler_runs(name: str) -> None:
    """The instructions above do what they are meant to."""
    pickle.loads(INSTRUCTIONS[name])
    assert RAN
    RAN.clear()


@pytest.mark.parametrize("code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_extensions_are_refused(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg._inverted_registry, 1, ("trap", "run"))  # type: ignore[attr-defined]
    with pytest.raises(pickle.UnpicklingError, match="no checkpoint needs"):
        read(code + b")R.")


@pytest.mark.parametrize(
    ("name", "present"),
    [
        ("posix\nsystem", "posix.system"),
        ("nt\nsystem", "nt.system"),
        ("os\nsystem", "os.system"),
        ("subprocess\nPopen", "subprocess.Popen"),
        ("commands\ngetoutput", "subprocess.getoutput"),
        ("__builtin__\neval", "builtins.eval"),
        ("builtins\nexec", "builtins.exec"),
        ("builtins\ngetattr", "builtins.getattr"),
        ("builtins\n__import__", "builtins.__import__"),
        ("importlib\nimport_module", "importlib.import_module"),
        ("runpy\nrun_path", "runpy.run_path"),
        ("shutil\nrmtree", "shutil.rmtree"),
        ("socket\nsocket", "socket.socket"),
        ("sys\nmodules", "sys.modules"),
        ("pickle\nloads", "pickle.loads"),
        ("functools\nreduce", "functools.reduce"),
        ("operator\nattrgetter", "operator.attrgetter"),
        ("types\nFunctionType", "types.FunctionType"),
        ("pathlib\nos.system", "pathlib.os.system"),
        ("collections\n_sys", "collections._sys"),
        ("ctypes.util\nfind_library", "ctypes.util.find_library"),
    ],
)
def test_names_that_no_checkpoint_needs_are_refused(name: str, present: str) -> None:
    with pytest.raises(RefusedNameError, match=f"^{re.escape(present)}$"):
        read(f"c{name}\n.".encode())


@pytest.mark.parametrize(
    "name", ["torch.hub\nload", "torch\nload", "torch.serialization\nload", "torch._utils\n_import_dotted_name"]
)
def test_torchs_other_functions_are_inert(name: str) -> None:
    assert isinstance(read(f"c{name}\n.".encode()), ForeignName)
    assert isinstance(read(f"c{name}\n(X\x01\x00\x00\x00atR.".encode()), InertObject)


def test_plain_containers_are_read() -> None:
    value = collections.OrderedDict(a=[1, (2, 3), {4}, frozenset([5])], b=b"\xff", c={"d": None, "e": True, "f": 1.5})
    for protocol in range(6):
        assert read(pickle.dumps(value, protocol)) == value, protocol
    assert read(pickle.dumps(collections.defaultdict(list, a=[1]))) == {"a": [1]}
    assert read(pickle.dumps(collections.Counter("aab"))) == {"a": 2, "b": 1}
    assert read(pickle.dumps(collections.deque([1, 2], 3))) == [1, 2]
    assert read(pickle.dumps(bytearray(b"ab"), 5)) == b"ab"


def test_objects_keep_their_state_and_do_nothing() -> None:
    namespace = read(pickle.dumps(argparse.Namespace(a=1)))
    assert (namespace.name, namespace.state) == ("argparse.Namespace", {"a": 1})
    for value in (datetime.date(2020, 1, 2), pathlib.PurePosixPath("a"), functools.partial(run, 1)):
        assert isinstance(read(pickle.dumps(value)), InertObject)
    written_by_python_3_13 = b"cpathlib._local\nPosixPath\n(X\x01\x00\x00\x00atR."
    assert isinstance(read(written_by_python_3_13), InertObject)


def test_foreign_names_are_listed() -> None:
    data = CLASS + b"0" + GLOBAL + b"0" + pickle.dumps(collections.OrderedDict(a=argparse.Namespace()))
    unpickler = InertUnpickler(io.BytesIO(data), len(data))
    unpickler.load()
    assert unpickler.names == {"trap.Trap", "trap.run"}


def save(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def with_pickle(path: Path, data: bytes) -> Path:
    """Write an archive of torch with another pickle, and a storage `0` of 12 bytes."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(12))
        archive.writestr("archive/version", b"3\n")
    return path


def tensor(offset: str = "I0\n", size: str = "(I3\nt", stride: str = "(I1\nt", key: str = "0", count: int = 3) -> bytes:
    """Return a pickle of a dictionary with one tensor, and a foreign class so that torch's own reader refuses it."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + f"I{count}\ntQ".encode()
    view = f"{offset}{size}{stride}I00\nccollections\nOrderedDict\n)RtR".encode()
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view
    return b"\x80\x02}(" + text("w") + rebuilt + text("x") + CLASS + b")\x81u."


def test_a_tensor_is_a_view_of_its_storage(tmp_path: Path) -> None:
    stored = read_checkpoint(with_pickle(tmp_path / "a.pt", tensor()))
    assert torch.equal(stored.content["w"], torch.zeros(3))
    assert stored.foreign == ("trap.Trap",)


@pytest.mark.parametrize(
    "changed",
    [
        {"offset": "I1\n"},
        {"offset": "I-1\n"},
        {"size": "(I4\nt"},
        {"size": "(I-1\nt"},
        {"stride": "(I2\nt"},
        {"stride": "(I-1\nt"},
        {"size": "(I1000000000000\nt", "stride": "(I0\nt"},
        {"size": "(I1\nI1\nt"},
        {"size": "(" + "I1\n" * 65 + "t", "stride": "(" + "I1\n" * 65 + "t"},
        {"key": "1"},
        {"key": "../version"},
        {"count": 4},
        {"count": 10**15},
        {"count": -1},
    ],
)
def test_tensors_beyond_their_storage_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", tensor(**changed))
    with pytest.raises(UserError, match="a.pt: not readable as weights"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"}q\x00" + b"0h\x00ccollections\nOrderedDict\nh\x00\x85R" * 3, id="no end"),
        pytest.param(b"(" + b"]" * 100 + b"l", id="no stop"),
        pytest.param(b"\x96" + struct.pack("<Q", 2**62) + b".", id="bytes that are absent"),
        pytest.param(b"\x8e" + struct.pack("<Q", 2**62) + b".", id="more bytes"),
        pytest.param(b"Vabc\np0\n0" + b"c_codecs\nencode\n(g0\nV rot13\ntR.", id="an encoding"),
        pytest.param(b"Pforeign\n.", id="a persistent identifier"),
        pytest.param(b"I1\nI2\nR.", id="a call of a number"),
        pytest.param(b"I1\nI2\na.", id="an item of a number"),
        pytest.param(b"I1\nI2\nI3\ns.", id="a key of a number"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_damaged_pickles_are_refused(data: bytes, tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", b"\x80\x02" + CLASS + b"0" + data)
    with pytest.raises(UserError, match="a.pt: not readable as weights"):
        read_checkpoint(path)


def test_copies_are_bounded_by_the_file() -> None:
    """A list of n entries, copied n times, would take n squared."""
    copies = b"(" + b"c_codecs\nencode\n(g0\nV latin1\ntR".replace(b"V ", b"V") * 100 + b"l."
    with pytest.raises(pickle.UnpicklingError, match="copies more than it holds"):
        read(b"V" + b"a" * 5_000 + b"\np0\n0" + copies)


NESTED_TUPLES = b")" + b"".join(b"q\x010h\x01h\x01\x86" for _ in range(60))
"""Of 2 to the power of 60 entries for whoever hashes or prints it."""


@pytest.mark.parametrize(
    "data",
    [
        b"}" + NESTED_TUPLES + b"I1\ns.",
        b"}(" + NESTED_TUPLES + b"I1\nu.",
        b"(" + NESTED_TUPLES + b"I1\nd.",
        b"\x8f(" + NESTED_TUPLES + b"\x90.",
        b"(" + NESTED_TUPLES + b"\x91.",
        b"c__builtin__\nset\n((" + NESTED_TUPLES + b"ltR.",
        b"c__builtin__\nfrozenset\n((" + NESTED_TUPLES + b"ltR.",
        b"ccollections\nOrderedDict\n(((" + NESTED_TUPLES + b"I1\ntltR.",
    ],
)
def test_keys_that_take_forever_are_refused(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="a tuple as a key"):
        read(data)


def test_what_would_be_endless_as_text_is_read(tmp_path: Path) -> None:
    data = b"\x80\x02}(" + text("x") + CLASS + NESTED_TUPLES + b"\x81" + text("n") + NESTED_TUPLES + b"u."
    stored = read_checkpoint(with_pickle(tmp_path / "a.pt", data))
    assert str(stored.content["x"])
    with pytest.raises(UserError, match="holds no tensors"):
        checkpoint.describe(str(stored.path))


def test_names_are_printable(tmp_path: Path) -> None:
    body = b"\x80\x02}" + text("x") + b"\x8c\x06a\x1b[2Jb\x8c\x01c\x93s."
    assert read_checkpoint(with_pickle(tmp_path / "a.pt", body)).foreign == ("a?[2Jb.c",)


def test_a_large_memo_index_takes_no_memory() -> None:
    assert read(b"I7\nr\xff\xff\xff\x7f.") == 7


def test_what_holds_itself_and_what_is_nested_deeply_is_read(tmp_path: Path) -> None:
    data = b"\x80\x02}(" + text("x") + CLASS + b")\x81" + text("n") + b"]" * 50_000 + b"a" * 49_999 + b"u."
    assert read_checkpoint(with_pickle(tmp_path / "a.pt", data)).content["n"]
    cyclic = read(b"}q\x00" + text("self") + b"h\x00s.")
    assert cyclic["self"] is cyclic


LAYOUTS: dict[str, Callable[[object], object]] = {
    "a bare state dict": lambda item: {"encoder.weight": torch.ones(2), "more": item},
    "fairseq": lambda item: {
        "cfg": {"model": {}},
        "model": {"w": torch.ones(2)},
        "task_state": {"dictionaries": [item]},
    },
    "fairseq's settings": lambda item: {"cfg": {"model": {"x": item}}, "args": argparse.Namespace(y=item), "model": {}},
    "the distiller": lambda item: {"Config": {}, "Distiller": {}, "Optimizer": item},
    "Lightning": lambda item: {"state_dict": {"w": torch.ones(2)}, "callbacks": {"x": item}, "hyper_parameters": {}},
    "a list": lambda item: [item],
}


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_code_in_every_layout_is_refused_in_a_sentence(
    layout: str, old_format: bool, tmp_path: Path, malicious_object: tuple[object, Path]
) -> None:
    item, proof = malicious_object
    path = save(tmp_path / "x.pt", LAYOUTS[layout](item), _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == (
        f"{path}: refused: its pickle names posix.mkdir, which weights don't need and which could run code; none of it "
        "was run. Ask for the weights as .safetensors."
    )
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists(), "it would have run"


def test_code_of_other_libraries_is_read_past(tmp_path: Path) -> None:
    for data in (INSTRUCTIONS["REDUCE"], INSTRUCTIONS["NEWOBJ, then BUILD"]):
        body = b"\x80\x02}(" + text("a") + text("b") + text("x") + data[:-1] + b"u."
        assert read_checkpoint(with_pickle(tmp_path / "a.pt", body)).foreign in {("trap.run",), ("trap.Trap",)}


@pytest.mark.skipif(os.name != "posix", reason="the name of the module")
def test_a_switch_of_torch_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, malicious_object: tuple[object, Path]
) -> None:
    path = save(tmp_path / "x.pt", {"a": malicious_object[0]})
    for switch in ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
        with monkeypatch.context() as context:
            context.setenv(switch, "1")
            with pytest.raises(UserError, match="refused: its pickle names posix.mkdir"):
                read_checkpoint(path)
    assert not malicious_object[1].exists()
