"""`export --hub` against a stand-in of the hub on this machine: what is pushed and kept, and errors in a sentence."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard

from superb_eval.cli import app
from superb_eval.errors import UserError
from superb_eval.export import hub
from superb_eval.results.folder import open_results
from tests.results.runs import answers, new_record, vary, write_run

ENCODER = "/home/me/my encoders/enc.py:Mine"
COMMAND = f"superb-eval run ks -u '{ENCODER}' --data '/mnt/my disk/ks' --seed 0"


class StandIn(ThreadingHTTPServer):
    """The hub's answers to what is used here; `files` are those of its one repository, `commits` their paths."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.commits: list[list[str]] = []
        self.status = 200

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
        assert self.headers["Authorization"] == "Bearer hf_token"
        if self.server.status != 200:
            self._answer({"error": "not yours"}, self.server.status)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/me/mine"}, 409 if len(self.server.created) > 1 else 200)
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        else:
            added = [json.loads(line)["value"] for line in body.splitlines()][1:]
            self.server.files |= {file["path"]: base64.b64decode(file["content"]) for file in added}
            self.server.commits.append([file["path"] for file in added])
            self._answer({"commitOid": "c" * 40, "commitUrl": f"{self.server.address}/me/mine/commit/{'c' * 40}"})

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.removeprefix("/me/mine/resolve/main/"))
        self.send_response(404 if content is None else 200)
        for name, value in {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "b" * 40, "ETag": '"e"'}.items():
            if content is None or name != "X-Error-Code":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _chunks(self) -> bytes:
        """The body of a request that is sent in chunks."""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in (0, 1):
        record = vary(new_record(ENCODER, "ks"), command=COMMAND, seed=seed, upstream__fingerprint="f-mine")
        write_run(tmp_path / "results", record, answers(0.8, seed, count=60))
    write_run(tmp_path / "results", new_record("other", "ks"), answers(0.9, 0, count=60))
    return tmp_path / "results"


def export(monkeypatch: pytest.MonkeyPatch, results: Path, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["superb-eval", "export", str(results), *words])
    app.app(standalone_mode=False)


def test_a_new_repository_gets_card_and_records_that_name_no_folder(
    stand_in: StandIn,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    export(monkeypatch, results, "--model-card", ENCODER, "--hub", "me/mine")
    assert capsys.readouterr().out == f"{stand_in.address}/me/mine/commit/{'c' * 40}\n"
    (created,) = stand_in.created
    assert (created["organization"], created["name"], created["visibility"]) == ("me", "mine", "private")
    (commit,) = stand_in.commits
    assert commit[0] == "README.md" and len(commit) == 3 and all(path.endswith("result.json") for path in commit[1:])
    for path, content in stand_in.files.items():
        found = [words for words in ("/home", "/mnt", "my disk", str(tmp_path)) if words in path + content.decode()]
        assert not found, (path, found)
        (tmp_path / "pulled" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pulled" / path).write_bytes(content)
    assert len(open_results(tmp_path / "pulled" / hub.FOLDER).runs) == 2, "a results folder"
    card = ModelCard(stand_in.files["README.md"].decode())
    (result,) = card.data.eval_results
    assert (card.data.model_name, result.metric_type) == ("enc.py:Mine", "accuracy")
    assert result.metric_args["command"] == "superb-eval run ks -u enc.py:Mine --data ks --seed 0"
    assert "    superb-eval run ks -u enc.py:Mine --data ks" in card.text
    (line,) = [line for line in card.text.splitlines() if line.startswith("| KS ACC % ↑ |")]
    assert f"| {result.metric_value:.2f}" in line and "(2 seeds)" in line
    assert "other" not in card.text


def test_an_existing_card_keeps_its_text_and_the_results_of_others(
    stand_in: StandIn, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {
        "task": {"type": "automatic-speech-recognition"},
        "dataset": {"type": "librispeech_asr", "name": "LibriSpeech"},
        "metrics": [{"type": "wer", "value": 3.4}],
    }
    metadata = {"license": "mit", "model-index": [{"name": "Mine", "results": [theirs]}], "widget": [{"text": "a"}]}
    text = f"---\n{yaml.safe_dump(metadata)}---\n\n# My encoder\n\nBefore.\n"
    stand_in.files["README.md"] = text.encode()
    export(monkeypatch, results, "--model-card", ENCODER, "--hub", "me/mine", "--public", "--predictions")
    assert stand_in.created[0]["visibility"] == "public"
    assert any(path.endswith("predictions.csv") for path in stand_in.commits[0])
    stand_in.files["README.md"] += b"\nAfter.\n"
    once = ModelCard(stand_in.files["README.md"].decode())
    export(monkeypatch, results, "--model-card", "other", "--hub", "me/mine")
    card = ModelCard(stand_in.files["README.md"].decode())
    assert (card.data.license, card.data.widget, card.data.model_name) == ("mit", [{"text": "a"}], "Mine")
    assert [result.metric_type for result in card.data.eval_results] == ["wer", "accuracy"]
    assert [card.text.count(mark) for mark in (hub.BEGIN, hub.END, "Before.", "After.", "My encoder")] == [1] * 5
    assert "-u other" in card.text and "-u other" not in once.text and "enc.py" not in card.text


def test_a_dry_run_needs_no_network(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    export(monkeypatch, results, "--model-card", "other", "--hub", "me/mine", "--dry-run")
    printed = capsys.readouterr().out
    assert "| KS ACC % ↑ |" in printed and "superb-eval/other/ks/" in printed and "predictions.csv" not in printed


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "hub refuses the token"),
        (403, "no right to write there. Use a token with write access, or another --hub"),
        (500, "the hub answered 500: not yours. Try again later."),
    ],
)
def test_refusals_of_the_hub_are_one_sentence(
    status: int, message: str, stand_in: StandIn, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.status = status
    with pytest.raises(UserError, match=message):
        export(monkeypatch, results, "--model-card", "other", "--hub", "me/mine")
    assert not stand_in.commits


def test_other_errors_are_one_sentence_too(stand_in: StandIn, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--hub needs --model-card NAME, one of: .*enc.py:Mine, other"):
        export(monkeypatch, results, "--hub", "me/mine")
    with pytest.raises(UserError, match="--dry-run are for --hub"):
        export(monkeypatch, results, "--model-card", "other", "--dry-run")
    with pytest.raises(UserError, match="a b/c: no name of a repository. Expected ORG/NAME"):
        export(monkeypatch, results, "--model-card", "other", "--hub", "a b/c")
    stand_in.files["README.md"] = b"---\nmodel-index: [{name: x}]\n---\n"
    with pytest.raises(UserError, match="metadata of README.md there can't be read"):
        export(monkeypatch, results, "--model-card", "other", "--hub", "me/mine")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the hub can't be reached .*--dry-run needs no network"):
        export(monkeypatch, results, "--model-card", "other", "--hub", "me/mine")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="no token of the Hugging Face Hub. `hf auth login` stores one"):
        export(monkeypatch, results, "--model-card", "other", "--hub", "me/mine")
