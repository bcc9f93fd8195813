"""Untrusted files: no loader runs their code, no manifest leaves its corpus folder, no recipe exhausts memory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from superb_eval import recipe
from superb_eval.corpora import load_corpus
from superb_eval.data import links, read_manifest
from superb_eval.data.recipe_sections import CorpusSettings
from superb_eval.errors import UserError
from superb_eval.pretraining import checkpoints, sources


class Hostile:
    """Unpickling it creates a folder, which proves that a loader runs code of a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def hostile(tmp_path: Path, proof: Path) -> Path:
    path = tmp_path / "hostile.pt"
    torch.save({"weights": {}, "optimizer": {}, "seed": 0, "state": Hostile(proof)}, path)
    torch.load(path, weights_only=False)
    assert proof.is_dir(), "its code would run"
    proof.rmdir()
    return path


@pytest.mark.filterwarnings("ignore")
def test_the_state_of_a_training_of_an_encoder(hostile: Path, proof: Path) -> None:
    with pytest.raises(UserError, match="damaged"):
        checkpoints.saved_step(hostile)
    with pytest.raises(UserError, match="damaged"):
        checkpoints.read(hostile, torch.nn.Linear(1, 1), None, 0)
    assert not proof.exists()


def test_the_state_of_a_training_of_a_head(hostile: Path, proof: Path) -> None:
    from superb_eval.probing import probe_state

    with pytest.warns(UserWarning, match="damaged .*Weights only load failed.*starts over"):
        assert probe_state.resume(hostile, [], "engine 1, ks 1") == (0, [])
    assert not proof.exists()


@pytest.mark.parametrize(
    "address", ["{}", "checkpoint:{}", "checkpoint:{}#x", "checkpoint:{}@random", "hubert_nano@{}", "distilhubert@{}"]
)
def test_checkpoints_of_upstreams(address: str, hostile: Path, proof: Path) -> None:
    from upstreams import registry

    with pytest.raises(UserError, match=r"refused: its pickle names posix.mkdir, .*none of it was run"):
        registry.load(registry.canonical(address.format(hostile)))
    assert not proof.exists()


def test_a_description_of_a_checkpoint(hostile: Path, proof: Path) -> None:
    from upstreams import checkpoint

    with pytest.raises(UserError, match="refused: its pickle names posix.mkdir"):
        checkpoint.describe(str(hostile))
    assert not proof.exists()


@pytest.mark.parametrize("address", ["s3prl:hubert_local@{}", "torchaudio:HUBERT_BASE@{}"])
def test_checkpoints_of_other_libraries(address: str, hostile: Path, proof: Path) -> None:
    from upstreams import registry

    with pytest.raises(UserError, match="refused"):
        registry.load(address.format(hostile))
    assert not proof.exists()


@pytest.mark.filterwarnings("ignore")
def test_weights_of_heads_and_shards_of_the_store_are_no_pickles(hostile: Path, proof: Path, tmp_path: Path) -> None:
    from superb_eval.features.store import Store
    from superb_eval.probing.probe import load_weights

    for name in ("probe-1.safetensors", "shard.safetensors"):
        shutil.copy(hostile, tmp_path / name)
    with pytest.raises(Exception, match="(?i)header"):
        load_weights(tmp_path / "probe-1.safetensors", torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    assert Store(tmp_path).read(tmp_path / "shard.safetensors", 1) is None
    assert not proof.exists()


def test_labels_of_pretraining_are_read_without_pickles(tmp_path: Path, proof: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([Hostile(proof)], dtype=object), allow_pickle=True)
    for name in ("targets", "codebooks"):
        source = Path(__import__(f"superb_eval.pretraining.{name}", fromlist=["x"]).__file__).read_text()
        assert source.count("np.load(") == source.count("allow_pickle=False") > 0
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "x.npy", allow_pickle=False)
    assert not proof.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.mkdir", "!!python/module:os"])
def test_recipes_build_no_objects(tag: str, tmp_path: Path, proof: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"task: ks\nprofile: nano\nhead: {tag.format(proof)}\n")
    with pytest.raises(UserError, match="not valid YAML|can't be read"):
        recipe.load(path)
    with pytest.raises(UserError, match="YAML"):
        recipe.load(recipe.find("ks", "nano"), [f"head.x={tag.format(proof)}"])
    assert not proof.exists()


def billion_laughs() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [billion_laughs(), "head: " + "[" * 3_000, "{a: " * 3_000, "train: &x {steps: *x}", "? &x [*x]\n: 1"]
)
def test_a_recipe_exhausts_neither_memory_nor_time(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"task: ks\nprofile: nano\n{text}\n")
    with pytest.raises(UserError) as caught:
        recipe.load(path)
    assert len(str(caught.value)) < 1000


def test_small_aliases_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("task: ks\nprofile: nano\ntrain: {steps: &n 7, eval_every: *n}\n")
    assert recipe.load(path).train.eval_every == 7  # type: ignore[union-attr]


@pytest.fixture
def linked(tones: Path, tmp_path: Path) -> Path:
    """The corpus of tones with its audio behind a link."""
    root = tmp_path / "corpus"
    root.mkdir()
    shutil.copytree(tones / "ks", root / "ks")
    (root / "audio").symlink_to(tones / "audio")
    return root


def test_links_out_of_a_corpus_are_followed_unless_refused(linked: Path) -> None:
    for overrides in ([], ["corpus.allow_links=true"]):
        chosen = recipe.load(recipe.find("ks", "nano"), overrides)
        assert len(load_corpus.open_corpus("ks", linked, ("keyword",), chosen.corpus).clips()) == 72
    chosen = recipe.load(recipe.find("ks", "nano"), ["corpus.allow_links=false"])
    with pytest.raises(UserError, match=r"leads out of the corpus folder, by a link.*corpus\.allow_links=false out"):
        load_corpus.open_corpus("ks", linked, ("keyword",), chosen.corpus)


def test_no_option_lets_paths_leave_the_corpus(tones: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(tones / "ks", root / "ks")
    for table in (root / "ks").glob("*.csv"):
        table.write_text(table.read_text().replace("audio/", f"../{tones.name}/audio/"))
    with pytest.raises(UserError, match="leads out of the corpus folder"):
        load_corpus.open_corpus("ks", root, ("keyword",), CorpusSettings(allow_links=True))


NUL_IN_A_CELL = "path" if sys.version_info >= (3, 11) else "not CSV"
"""Python 3.10's csv refuses it by itself."""


@pytest.mark.parametrize(
    ("path", "refused"), [("../outside.wav", "path"), ("/etc/hostname", "path"), ("a\0b", NUL_IN_A_CELL)]
)
def test_manifests_of_unlabelled_audio_stay_inside_too(path: str, refused: str, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    (tmp_path / "outside.wav").touch()
    (root / "list.csv").write_text(f"path\n{path}\n")
    with pytest.raises(UserError, match=f"line 2: {refused}"):
        list(sources._rows(root / "list.csv", root))


def test_cyclic_links_end_and_each_file_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.wav").touch()
    (tmp_path / "a/again").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [path.name for path in links.files_below(tmp_path)] == ["x.wav"]


def test_a_cyclic_link_in_a_manifest_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "ks").mkdir()
    (tmp_path / "round.wav").symlink_to(tmp_path / "round.wav")
    (tmp_path / "ks/train.csv").write_text("id,path,speaker,keyword\n1,round.wav,a,yes\n")
    with pytest.raises(UserError, match=r"line 2: no such file"):
        read_manifest.read_split(tmp_path / "ks", "train", ("keyword",), tmp_path)


ROOT = Path(__file__).parents[2]


def test_no_code_evaluates_strings_or_starts_a_shell() -> None:
    import ast

    violations = []
    for path in [p for package in ("superb_eval", "upstreams", "downstreams") for p in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords)
                if shell or name in (
                    "eval",
                    "exec",
                    "os.system",
                    "os.popen",
                    "pickle.load",
                    "pickle.loads",
                    "yaml.load",
                ):
                    violations.append(f"{path.name}: {name}")
                safe = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if name == "torch.load" and safe.get("weights_only") != "True":
                    violations.append(f"{path.name}: {name}")
                if name == "np.load" and safe.get("allow_pickle") != "False":
                    violations.append(f"{path.name}: {name}")
    assert violations == []
