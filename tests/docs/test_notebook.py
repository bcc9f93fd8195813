"""The notebook runs from top to bottom as a reader would run it, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.docs.documents import ROOT

NOTEBOOK = ROOT / "docs" / "evaluate.ipynb"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs_and_linked(notebook: Any) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert "](evaluate.ipynb)" in (ROOT / "docs" / "run.md").read_text(encoding="utf8")


def test_the_notebook_runs(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    mine, fbank, frame, chart = shown
    assert mine["text/html"].count("python:MyEncoder") == 2 and fbank["text/html"].count("fbank_nonorm") == 2
    assert "mean" in frame["text/html"]
    assert "<svg" in chart["image/svg+xml"]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "python:MyEncoder" in printed and r"\toprule" in printed
    assert len(list((tmp_path / "results").glob("*/ks/*/result.json"))) == 4
