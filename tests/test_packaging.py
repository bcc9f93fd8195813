"""What is installed: wheel and source distribution hold all that a checkout does, and a copy without one works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import write_tones

ROOT = Path(__file__).parents[1]
PACKAGES = ("superb_eval", "upstreams", "downstreams", "recipes")
LEFT_OUT = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def shipped() -> set[str]:
    """Every file of the packages in this checkout, by its path in a wheel."""
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not LEFT_OUT & set(path.parts)
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and source distribution, made offline from a copy without anything that git ignores."""
    copy = tmp_path_factory.mktemp("source") / "superb-eval"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copytree(ROOT / "docs", copy / "docs")
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy / path.name)
    out = copy.parent / "dist"
    for kind in ("build_sdist", "build_wheel"):
        program = f"import setuptools.build_meta as b; print(b.{kind}({str(out)!r}))"
        done = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_the_wheel_holds_every_file_of_the_packages(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert "superb-eval = superb_eval.cli:main" in wheel.read(entry).decode()
    assert names == shipped()
    assert {"recipes/superb/ks.yaml", "recipes/rates.csv", "superb_eval/results/published.csv"} <= names
    assert {"upstreams/weights/hubert_mini/model.safetensors", "downstreams/gender.py"} <= names
    assert any(name.startswith("superb_eval/results/report/templates/") for name in names)


def test_the_source_distribution_holds_them_too_and_what_torch_hub_reads(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert shipped() <= names
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "hubconf.py",
        "CHANGELOG.md",
        "Makefile",
        "docs/index.md",
    } <= names


def test_only_versions_that_were_tested_are_declared() -> None:
    """CI runs one interpreter; the README says what was run with the others."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    said = (ROOT / "README.md").read_text(encoding="utf8")
    assert declared and all(version in said for version in declared)
    assert f'requires-python = ">={declared[0]}"' in project


@pytest.mark.slow
def test_an_installed_copy_does_what_a_checkout_does(built: Path, tmp_path: Path) -> None:
    place, away = tmp_path / "installed", tmp_path / "away"
    away.mkdir()
    install = ["-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--target", str(place)]
    wheel = str(next(built.glob("*.whl")))
    subprocess.run([sys.executable, *install, "--python", sys.executable, wheel], check=True, capture_output=True)
    corpus = write_tones(tmp_path / "corpus", {"train": 8, "dev": 4, "test": 4})

    def said(*words: str) -> str:
        # -I would leave PYTHONPATH out too; -P keeps the current folder from the path, and so the checkout.
        env = {**os.environ, "PYTHONPATH": str(place)}
        command = [sys.executable, "-P", "-m", "superb_eval", *words]
        done = subprocess.run(command, cwd=away, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-P", "-c", "import superb_eval, recipes; print(superb_eval.__file__, *recipes.__path__)"],
        cwd=away,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(ROOT) not in where.stdout and where.stdout.count(str(place)) == 2
    assert set(said("recipe", "list").split()) == {
        f"recipes/{path.parent.name}/{path.name}" for path in (ROOT / "recipes").glob("*/*.yaml")
    }
    assert {line.split()[0] for line in said("task", "list").splitlines()} >= {"ks", "gender", "qbe"}
    assert "distilhubert_mini" in said("upstream", "list")
    short = ["--profile", "nano", "-o", "train.steps=8", "-o", "train.eval_every=8", "--store", "store"]
    assert "ACC" in said("run", "ks", "-u", "distilhubert_mini", "--data", str(corpus), *short)
    assert "distilhubert_mini" in said("table", "results")
    said("report", "results", "-o", "report.html")
    assert (away / "report.html").stat().st_size > 10_000
