"""What the machine can do: the findings are plain, and the record's lines are cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from superb_eval.runtime import environment
from superb_eval.runtime.environment import EnvironmentFinding


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[EnvironmentFinding]:
    return environment.examine(tmp_path_factory.mktemp("store") / "not" / "yet")


def test_everything_that_runs_need_is_looked_at(findings: list[EnvironmentFinding]) -> None:
    looked_at = {finding.what for finding in findings}
    audio = {f"audio: {name}" for name in ("WAV", "FLAC", "OGG", "MP3")}
    assert {"Python", "torch and torchaudio", "CPU", "bfloat16", "s3prl", "transformers", "feature store"} <= looked_at
    assert audio <= looked_at
    assert any(what.startswith("CUDA") for what in looked_at)
    assert all(finding.detail for finding in findings)


def test_what_does_not_work_comes_with_a_remedy(findings: list[EnvironmentFinding]) -> None:
    assert all(finding.works or finding.remedy for finding in findings)


def test_codecs_work_here_and_leave_nothing_behind(findings: list[EnvironmentFinding], tmp_path: Path) -> None:
    assert all(finding.works for finding in findings if finding.what.startswith("audio"))
    environment.examine(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = environment.examine(tmp_path / "file" / "store")[-1]
    assert not finding.works
    assert "can't be written" in finding.detail
    assert "--store" in finding.remedy


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MIN_FREE_GB", 1e9)
    finding = environment.examine(tmp_path)[-1]
    assert not finding.works
    assert "free some space" in finding.remedy


def test_an_extra_that_is_missing_comes_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "EXTRAS", {"synth": ("no_such_module", "the corpus")})
    (finding,) = [f for f in environment.examine(tmp_path) if f.what == "extra synth"]
    assert not finding.works
    assert finding.remedy == "pip install 'superb-eval[synth]'"


def test_a_package_that_fails_to_import_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3prl", None)
    (finding,) = [f for f in environment.examine(tmp_path) if f.what == "s3prl"]
    assert not finding.works
    assert "pip install" in finding.remedy


def test_idle_threads_that_spin_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    (finding,) = [f for f in environment.examine(tmp_path) if f.what == "CPU"]
    assert not finding.works


def test_versions_are_those_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package"))
    import numpy

    assert environment.versions() == {"python": sys.version.split()[0], "numpy": numpy.__version__}


def test_the_hardware_has_a_name_and_a_size() -> None:
    hardware = environment.hardware()
    assert set(hardware) == {"cpu", "cores", "memory_gb", "gpu"}
    assert all(hardware[key] for key in hardware)
    assert isinstance(hardware["cores"], int)


def test_the_records_lines_import_nothing_heavy() -> None:
    code = (
        "import sys; from superb_eval import environment as e; e.versions(); e.hardware();"
        "print({'torch', 'numpy', 'transformers', 's3prl'} & set(sys.modules) or 'light')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "light"
