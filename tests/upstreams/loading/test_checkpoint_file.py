"""Files of `torch.save` with objects of other libraries: the same tensors as torch reads, in both formats."""

from __future__ import annotations

import argparse
import collections
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from superb_eval.errors import UserError
from tests.upstreams.fairseq import fairseq_package
from upstreams.loading.checkpoint_file import read_checkpoint
from upstreams.loading.inert_values import InertObject

OLD = {"_use_new_zipfile_serialization": False}
FORMATS: dict[str, dict[str, Any]] = {
    "zip": {},
    "old": OLD,
    "protocol 4": {"pickle_protocol": 4},
    "old, protocol 5": {**OLD, "pickle_protocol": 5},
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    float32 = torch.randn(3, 4, generator=generator)
    return {
        "transposed": float32.t(),
        "shared": float32[1:, ::2],
        "half": torch.randn(5, generator=generator).half(),
        "bfloat16": torch.randn(5, generator=generator).bfloat16(),
        "double": torch.randn(2, 2, generator=generator).double(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "integer": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(4),
    }


def save(path: Path, **options: Any) -> Path:
    with fairseq_package() as package:
        content = {"model": collections.OrderedDict(tensors()), "dictionary": package.Dictionary()}
        torch.save({**content, "args": argparse.Namespace(x=1)}, path, **options)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_are_as_torch_reads_them(form: str, tmp_path: Path) -> None:
    stored = read_checkpoint(save(tmp_path / "x.pt", **FORMATS[form]))
    assert stored.foreign == ("fairseq.data.dictionary.Dictionary",)
    assert isinstance(stored.content["dictionary"], InertObject)
    for name, expected in tensors().items():
        found = stored.content["model"][name]
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected.detach()), name


@pytest.mark.parametrize("form", ["zip", "old"])
def test_files_cut_short_are_refused(form: str, tmp_path: Path) -> None:
    data = save(tmp_path / "x.pt", **FORMATS[form]).read_bytes()
    path = tmp_path / "cut.pt"
    for size in (10, len(data) // 3, len(data) // 2, len(data) - 20, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match=r"cut.pt: (not readable as weights|is a pickle)"):
            read_checkpoint(path)


def test_a_changed_byte_of_the_weights_is_found(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "x.pt").read_bytes())
    begin = data.index(tensors()["double"].numpy().tobytes())
    data[begin] ^= 1
    (tmp_path / "changed.pt").write_bytes(data)
    with pytest.raises(UserError, match="not readable as weights"):
        read_checkpoint(tmp_path / "changed.pt")


def test_a_compressed_record_is_refused(tmp_path: Path) -> None:
    """It could be of any size in memory."""
    save(tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as source, zipfile.ZipFile(tmp_path / "y.pt", "w") as target:
        for info in source.infolist():
            kind = zipfile.ZIP_DEFLATED if info.filename.endswith("/data/0") else zipfile.ZIP_STORED
            target.writestr(info.filename, source.read(info), compress_type=kind)
    with pytest.raises(UserError, match="not readable as weights.*larger than the file"):
        read_checkpoint(tmp_path / "y.pt")


def test_the_other_byte_order_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as source, zipfile.ZipFile(tmp_path / "y.pt", "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else source.read(info))
    with pytest.raises(UserError, match="other byte order"):
        read_checkpoint(tmp_path / "y.pt")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x.pt: refused: TorchScript holds code. Save `model.state_dict\(\)` alone"):
        read_checkpoint(tmp_path / "x.pt")


def test_archives_of_tar_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch extracts files of the oldest format."""
    with tarfile.open(tmp_path / "x.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle", "../escaped"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda *_, **__: pytest.fail("it was extracted"))
    with pytest.raises(UserError, match="x.pt: refused: an archive of tar"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (b"", "not readable as weights"),
        (b"PK\x03\x04", "not readable as weights"),
    ],
)
def test_what_is_downloaded_in_place_of_weights_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=f"x.pt: .*{message}"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_plain_pickle_is_no_file_of_torch(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": argparse.Namespace()}) * 3)
    with pytest.raises(UserError, match="not readable as weights|none of `torch.save`"):
        read_checkpoint(tmp_path / "x.pkl")


def test_a_whole_module_of_the_old_format_leaves_no_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch compares the stored source text of a module with the present one, and writes a patch where they differ."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.nn.Linear, "dump_patches", True)
    torch.save({"a": torch.nn.Linear(2, 2)}, "x.pt", **OLD)
    data = Path("x.pt").read_bytes().replace(b"Applies an affine", b"Applies another  ")
    Path("x.pt").write_bytes(data)
    stored = read_checkpoint(Path("x.pt"))
    assert stored.foreign == ("torch.nn.modules.linear.Linear",)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
