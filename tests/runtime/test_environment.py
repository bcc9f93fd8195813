"""The environment: every finding has a remedy, and what the record needs is cheap."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchaudio

from superb_eval.runtime import environment, user_cache
from superb_eval.runtime.environment import EnvironmentFinding
from superb_eval.runtime.user_cache import CacheFolder
from tests.runtime.test_user_cache import without_home


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[EnvironmentFinding]:
    with pytest.MonkeyPatch.context() as patch:
        for cache in (user_cache.FEATURES, user_cache.CORPORA):
            patch.setenv(cache.variable, str(tmp_path_factory.mktemp(cache.name) / "not" / "yet"))
        return environment.check()


def test_everything_that_runs_need_is_checked(findings: list[EnvironmentFinding]) -> None:
    checked = {finding.name for finding in findings}
    audio = {f"audio: {name}" for name in ("WAV", "FLAC", "OGG", "MP3")}
    assert {"Python", "torch and torchaudio", "CPU", "bfloat16", "s3prl", "transformers", "altair"} <= checked
    assert {"feature store", "embedded corpora"} <= checked
    assert audio <= checked
    assert any(what.startswith("CUDA") for what in checked)
    assert all(finding.detail for finding in findings)


def test_what_does_not_work_comes_with_a_remedy(findings: list[EnvironmentFinding]) -> None:
    assert all(finding.works or finding.remedy for finding in findings)


def test_codecs_work_here_and_leave_nothing_behind(
    findings: list[EnvironmentFinding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(finding.works for finding in findings if finding.name.startswith("audio"))
    monkeypatch.setenv("SUPERB_EVAL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SUPERB_EVAL_CORPORA", str(tmp_path / "corpora"))
    environment.check()
    assert list(tmp_path.iterdir()) == []


def found(name: str) -> EnvironmentFinding:
    return next(finding for finding in environment.check() if finding.name == name)


@pytest.mark.parametrize("cache", [user_cache.FEATURES, user_cache.CORPORA], ids=lambda cache: cache.name)
def test_a_cache_that_cannot_be_written_is_reported(
    cache: CacheFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.variable, str(tmp_path / "file" / "store"))
    finding = found(cache.content)
    assert not finding.works
    assert "can't be written" in finding.detail
    assert cache.variable in finding.remedy


def test_a_user_without_a_home_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    without_home(monkeypatch)
    finding = found("feature store")
    assert not finding.works
    assert finding.detail == "the feature store: no home folder was found for its cache."
    assert "SUPERB_EVAL_STORE" in finding.remedy


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MIN_FREE_GB", 1e9)
    monkeypatch.setenv("SUPERB_EVAL_STORE", str(tmp_path))
    finding = found("feature store")
    assert not finding.works
    assert "free some space" in finding.remedy


def test_a_missing_extra_comes_with_its_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "EXTRAS", {"synth": ("no_such_module", "the corpus")})
    (finding,) = [f for f in environment.check() if f.name == "extra synth"]
    assert not finding.works
    assert finding.remedy == "pip install 'superb-eval[synth]'"


def test_a_package_that_fails_to_import_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3prl", None)
    (finding,) = [f for f in environment.check() if f.name == "s3prl"]
    assert not finding.works
    assert "pip install" in finding.remedy


PAIRS = [
    ("2.11.0+cu130", "2.11.0", "fits"),
    ("2.15.0+cu132", "2.11.1", "fits"),  # built on torch's stable ABI
    ("2.10.0", "2.11.0", "pip install torchaudio==2.10.0"),
    ("2.12.0", "2.10.0", "pip install --upgrade torchaudio"),
]


@pytest.mark.parametrize(("of_torch", "of_torchaudio", "outcome"), PAIRS)
def test_which_torchaudio_fits_a_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_torch: str, of_torchaudio: str, outcome: str
) -> None:
    monkeypatch.setattr(torch, "__version__", of_torch)
    monkeypatch.setattr(torchaudio, "__version__", of_torchaudio)
    finding = next(f for f in environment.check() if f.name == "torch and torchaudio")
    assert (finding.remedy or "fits") == outcome and finding.works == (outcome == "fits")


@pytest.mark.parametrize(("cuda", "remedy"), [("13.2", "pip install"), (None, "CPU-only build, from the index")])
def test_a_torchaudio_that_fails_to_import_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    findings = {finding.name: finding for finding in environment.check()}
    assert remedy in findings["torch and torchaudio"].remedy and "s3prl" in findings


def test_spinning_idle_threads_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    (finding,) = [f for f in environment.check() if f.name == "CPU"]
    assert not finding.works


def test_versions_are_those_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package"))
    import numpy

    assert environment.versions() == {"python": sys.version.split()[0], "numpy": numpy.__version__}


def test_the_hardware_has_a_name_and_a_size() -> None:
    hardware = environment.hardware()
    assert set(hardware) == {"cpu", "cores", "memory_gb", "gpu"}
    assert all(hardware[key] for key in hardware)
    assert isinstance(hardware["cores"], int)


def test_vector_instructions_and_what_limits_them_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.ARITHMETIC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (found,) = environment.vector_instructions().items()
    assert found == ("cpu_capability", torch.backends.cpu.get_cpu_capability())
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert environment.vector_instructions()["MKL_CBWR"] == "COMPATIBLE"
    (cpu,) = [finding for finding in environment.check() if finding.name == "CPU"]
    assert found[1] in cpu.detail and "MKL_CBWR=COMPATIBLE" in cpu.detail


def test_torch_uses_the_vector_instructions_that_the_record_names() -> None:
    code = "from superb_eval.runtime import environment as e; print(e.vector_instructions())"
    limited = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=limited)
    assert "'cpu_capability': 'DEFAULT'" in done.stdout and "'ATEN_CPU_CAPABILITY': 'default'" in done.stdout


def test_versions_and_hardware_import_nothing_heavy() -> None:
    code = (
        "import sys; from superb_eval.runtime import environment as e; e.versions(); e.hardware();"
        "print({'torch', 'numpy', 'transformers', 's3prl'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "light"
