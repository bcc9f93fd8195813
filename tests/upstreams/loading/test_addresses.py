"""What people type for an upstream: opened by what it holds, or the address that they meant is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from superb_eval.errors import UserError
from tests.upstreams.configs import TINY
from upstreams import registry
from upstreams.loading import addresses

HUBERT = {"model_type": "hubert"}


def folder(path: str, *files: str, config: dict[str, Any] | None = None) -> None:
    """Make a folder of empty files, with a config.json."""
    Path(path).mkdir(parents=True)
    for name in files:
        Path(path, name).write_bytes(b"")
    if config is not None:
        Path(path, "config.json").write_text(json.dumps(config))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fill the current folder, which is the home folder too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder("whole", "model.safetensors", config=HUBERT)
    folder("sharded", "model-00001-of-00002.safetensors", "model.safetensors.index.json", config=HUBERT)
    folder("student", "model.safetensors", "heads.safetensors", config=HUBERT)
    folder("paper", "model.safetensors", config={**HUBERT, "feat_proj_layer_norm": False})
    folder("settings", config=HUBERT)
    folder("one", "checkpoint_best.pt", "optimizer.pt", "notes.txt")
    folder("unlike", "weights.pt", config={"lr": 1e-3})
    folder("two", "a.pt", "b.ckpt")
    folder("empty")
    folder("text", "notes.txt")
    folder("out/model", "model.safetensors", config=HUBERT)
    folder("runs/last", "step.ckpt")
    folder("a:b@c", "model.safetensors", config=HUBERT)
    folder("hubert_mini", "model.safetensors", config=HUBERT)
    for name in ("w.pt", "with@sign.pt", "my#1.pt", "w.safetensors", "recipe.yaml", "table.csv", "my_encoder.py"):
        Path(name).write_bytes(b"")
    torch.save({}, "checkpoint_last")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("facebook/hubert-base-ls960", "hf:facebook/hubert-base-ls960"),
        ("facebook/hubert-base-ls960@v2", "hf:facebook/hubert-base-ls960@v2"),
        ("facebook/hubert-base-ls960@random:0", "hf:facebook/hubert-base-ls960@random"),
        ("https://huggingface.co/facebook/hubert-base-ls960", "hf:facebook/hubert-base-ls960"),
        ("https://huggingface.co/facebook/x/tree/main", "hf:facebook/x@main"),
        ("whole", "hf:whole"),
        ("./whole/", "hf:whole"),
        ("~/whole", "hf:{here}/whole"),
        ("whole@random", "hf:whole@random"),
        ("whole/model.safetensors", "hf:whole"),
        ("whole/config.json", "hf:whole"),
        ("sharded", "hf:sharded"),
        ("sharded/model-00001-of-00002.safetensors", "hf:sharded"),
        ("student", "distilhubert@student"),
        ("paper", "distilhubert@paper"),
        ("paper@random:7", "hf:paper@random:7"),
        ("settings", "hf:settings"),
        ("a:b@c", "hf:a:b@c"),
        ("one", "checkpoint:one/checkpoint_best.pt"),
        ("unlike", "checkpoint:unlike/weights.pt"),
        ("w.pt", "checkpoint:w.pt"),
        ("./w.pt", "checkpoint:w.pt"),
        ("w.pt#ema", "checkpoint:w.pt#ema"),
        ("my#1.pt", "checkpoint:my#1.pt"),
        ("with@sign.pt", "checkpoint:with@sign.pt"),
        ("w.safetensors", "checkpoint:w.safetensors"),
        ("checkpoint_last", "checkpoint:checkpoint_last"),
        ("checkpoint:./w.pt#student", "checkpoint:w.pt#student"),
        ("checkpoint:one", "checkpoint:one/checkpoint_best.pt"),
        ("checkpoint:whole/model.safetensors", "hf:whole"),
        ("hf:./whole/", "hf:whole"),
        ("hf:whole@random:00", "hf:whole@random"),
        ("hf:org/model@v2", "hf:org/model@v2"),
        ("hubert@./w.pt", "hubert@w.pt"),
        ("hubert@~/whole/", "hubert@{here}/whole"),
        ("hubert@facebook/hubert-base-ls960", "hubert@facebook/hubert-base-ls960"),
        ("hubert@random:0", "hubert@random"),
        ("s3prl:hubert_local@./w.pt", "s3prl:hubert_local@w.pt"),
        ("s3prl:hubert_url@https://example.org/a.pt", "s3prl:hubert_url@https://example.org/a.pt"),
        ("./my_encoder.py:Encoder@./w.pt", "my_encoder.py:Encoder@w.pt"),
    ],
)
def test_what_is_typed_is_opened_by_what_it_holds(typed: str, address: str, here: Path) -> None:
    expected = address.format(here=here)
    assert registry.canonical(typed) == expected
    assert registry.canonical(expected) == expected


@pytest.mark.parametrize(
    "address",
    ["hubert_mini", "hubert_mini@random:7", "hubert", "fbank_nonorm", "s3prl:fbank", "torchaudio:HUBERT_BASE@w.pth"],
)
def test_addresses_of_before_are_unchanged(address: str) -> None:
    """Records and folders are named by them; a folder called as an upstream isn't meant."""
    assert registry.canonical(address) == address


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("two", r"two: holds 2 files of weights: a\.pt, b\.ckpt\. Give one of them"),
        (
            "empty",
            r"empty: holds nothing, and no weights\. Forms: hf:FOLDER .*, checkpoint:FILE or hubert@FILE .*s3prl:",
        ),
        ("text", r"text: holds notes\.txt, and no weights\. Forms: hf:FOLDER"),
        ("out", r"out: holds no network itself, but out/model does\. Write hf:out/model"),
        ("runs", r"runs: holds no weights itself, but runs/last/step\.ckpt is below\. Write checkpoint:runs/last"),
        ("whole@v2", "whole is a folder here, which has no revisions"),
        ("recipe.yaml", r"holds settings, no weights\. A recipe is run by `superb-eval run recipe\.yaml -u NAME`"),
        ("table.csv", r"table\.csv: isn't weights \(\.pt, "),
        ("hf:w.pt", r"is a file, and hf: opens folders and hub ids\. Write checkpoint:w\.pt"),
        ("w.ptt", r"no upstream is called|no such file"),
        ("v.pt", r"v\.pt: no such file or folder\. Did you mean 'w\.pt'\?"),
        ("./one/checkpoint_bets.pt", r"no such file or folder\. Did you mean 'checkpoint_best\.pt'\?"),
        ("/no-such-folder-at-all/a.pt", r"no such file or folder\. / has no 'no-such-folder-at-all'"),
        ("~/nothing", "no such file or folder"),
        (
            "out/modle",
            r"the folder out has no 'modle'\. Did you mean 'model'\? For a model on the hub write hf:out/modle",
        ),
        ("C:\\models\\hubert.pt", r"backslashes separate no folders .* Write /mnt/c/models/hubert\.pt"),
        ("hubert@C:\\models\\hubert.pt", r"Write hubert@/mnt/c/models/hubert\.pt"),
        ("one\\checkpoint_best.pt", r"Write one/checkpoint_best\.pt\."),
        ("https://example.org/hubert.pt", r"is a link\. Download the file and write checkpoint:FILE"),
        ("my_encoder.py", r"names a file but no class in it\. Write my_encoder\.py:Class"),
        ("HuBERT", r"no upstream is called 'HuBERT'\. Did you mean 'hubert'\?"),
        ("hubert-base", r"Did you mean 'hubert_base'\?"),
        ("hubert-base-ls960", r"Did you mean 'hf:facebook/hubert-base-ls960'\?"),
        ("hf:hubert-base-ls960", r"Write hf:facebook/hubert-base-ls960\."),
        ("wavlm_large", r"Did you mean 'hf:microsoft/wavlm-large' or 's3prl:wavlm_large'\?"),
        ("wav2vec2", r"Did you mean 's3prl:wav2vec2'\?"),
        ("wav2vec2_base_960", r"Did you mean 's3prl:wav2vec2_base_960'\?"),
        ("wav2vec2_base_690", r"Did you mean 's3prl:wav2vec2_base_960'\?"),
        ("mfcc", r"Did you mean 's3prl:mfcc'\?"),
        ("s3prl:HuBERT-base", r"s3prl has no upstream 'HuBERT-base'\. Did you mean 'hubert_base'\?"),
        ("torchaudio:hubert_base", r"Did you mean 'HUBERT_BASE'\?"),
    ],
)
def test_a_near_miss_names_the_address(typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.load(typed)


def test_two_spellings_of_a_path_are_one_place(here: Path) -> None:
    for address in ("hf:{}whole", "hubert@{}w.pt", "checkpoint:{}w.pt#ema", "{}my_encoder.py:Encoder@{}w.pt"):
        relative, whole = address.replace("{}", ""), address.replace("{}", f"{here}/")
        assert addresses.absolute(relative) == addresses.absolute(whole) == whole
    assert addresses.absolute("hubert_mini@random:7") == "hubert_mini@random:7"
    assert addresses.absolute("hf:org/model@v2") == "hf:org/model@v2"


def test_a_bare_folder_and_a_bare_file_are_opened(here: Path) -> None:
    torch.manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig(**TINY))
    model.save_pretrained(here / "tiny")
    torch.save(model.state_dict(), here / "tiny.pt")
    by_folder, by_file = registry.load("./tiny/"), registry.load("./tiny.pt#heads=2")
    assert (by_folder.card.name, by_file.card.name) == ("hf:tiny", "checkpoint:tiny.pt#heads=2")
    assert by_folder.fingerprint() == by_file.fingerprint() == registry.load("hubert@tiny").fingerprint()
    assert registry.card("tiny") == by_folder.card


def test_a_pickle_under_another_name_is_never_run(here: Path, malicious: tuple[Path, Path]) -> None:
    Path("named").mkdir()
    Path("named/config.json").write_text(json.dumps(HUBERT))
    malicious[0].rename("named/weights.bin")
    with pytest.raises(
        UserError, match=r"its weights are called weights\.bin, .* or write checkpoint:named/weights\.bin"
    ):
        registry.load("named")
    with pytest.raises(UserError, match="weights.bin: refused"):
        registry.load("named/weights.bin")
    assert not malicious[1].exists()


def test_the_files_behind_an_address_are_known_before_it_is_opened(here: Path) -> None:
    transformers.HubertModel(transformers.HubertConfig(**TINY)).save_pretrained(here / "tiny", max_shard_size="30KB")
    torch.save({}, here / "tiny/optimizer.pt")
    listed = registry.weight_files("tiny")
    assert listed is not None
    names = [path.name for path in listed]
    shards = sorted(path.name for path in (here / "tiny").glob("*.safetensors"))
    assert len(shards) > 2 and names == ["config.json", *shards, "model.safetensors.index.json"]
    assert [path.name for path in registry.weight_files("tiny@random") or []] == [names[0], names[-1]]
    assert registry.weight_files("./w.pt#ema") == registry.weight_files("hubert@w.pt#ema") == [Path("w.pt")]
    assert registry.weight_files("org/model") is None
