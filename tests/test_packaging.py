"""What is installed: wheel and source distribution hold all that a checkout does, and a copy without one works."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from superb_eval import recipe
from superb_eval.errors import UserError
from superb_eval.runtime import environment
from tests.conftest import write_tones

ROOT = Path(__file__).parents[1]
PACKAGES = ("superb_eval", "upstreams", "downstreams")
FOLDERS = (*PACKAGES, "recipes")
OLDEST, OF_CI = "3.10", "3.11"
"""Versions of Python: the oldest that the package imports on, and the one that CI runs."""

MOST_BYTES = 30 * 2**20
"""Of the wheel, which has 24 MB; the released pair of encoders takes 23 of them."""

LEFT_OUT = {"__pycache__", ".mypy_cache", ".ruff_cache"}
FIND_RECIPES = """
import json, sys
from superb_eval import recipe
sys.stdout.write(json.dumps([str(recipe.folder()), str(recipe.find("recipes/mini/ks.yaml", "mini")), recipe.shipped()]))
"""


def shipped(source: Path) -> set[str]:
    """Every file of the packages and of the recipes in a copy of the checkout, by its path in it."""
    return {
        str(path.relative_to(source))
        for folder in FOLDERS
        for path in (source / folder).rglob("*")
        if path.is_file() and not LEFT_OUT & set(path.parts)
    }


def expected_in_wheel(source: Path) -> set[str]:
    """The same files by their paths in a wheel: recipes are data of superb_eval there."""
    return {f"superb_eval/{path}" if path.startswith("recipes/") else path for path in shipped(source)}


def files_of(wheel: Path) -> set[str]:
    """The files of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def build(kind: str, source: Path, out: Path) -> None:
    """Call one hook of the build backend, offline: `build_sdist`, `build_wheel` or `build_editable`."""
    program = f"import setuptools.build_meta as b; b.{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def python(program: str, *site_folders: Path, cwd: Path, first_on_path: Path | None = None) -> str:
    """Run a program that sees these site folders alone, in this order, their .pth files included; return its output."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if first_on_path is not None:
        env["PYTHONPATH"] = str(first_on_path)
    # Python 3.10 has no -P, which keeps the current folder from the path.
    start = "import site, sys\nsys.path = [folder for folder in sys.path if folder]\n"
    sites = f"for folder in {[str(folder) for folder in site_folders]}: site.addsitedir(folder)\n"
    command = [sys.executable, "-S", "-c", f"{start}{sites}{program}"]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def write_other_recipes(folder: Path) -> Path:
    """Write what torchtune installs beside itself: a package `recipes` that refuses to be imported."""
    (folder / "recipes/mini").mkdir(parents=True)
    (folder / "recipes/__init__.py").write_text("raise ModuleNotFoundError('this directory is no package')\n")
    (folder / "recipes/mini/ks.yaml").write_text("model: llama\n")
    return folder


def copy_checkout(copy: Path) -> Path:
    """Copy this checkout without anything that git ignores."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copytree(ROOT / "docs", copy / "docs")
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy / path.name)
    return copy


def install(wheel: Path, place: Path) -> Path:
    """Install a wheel, and nothing else, into a folder for PYTHONPATH."""
    command = ["-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--target", str(place)]
    subprocess.run([sys.executable, *command, "--python", sys.executable, str(wheel)], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout."""
    return copy_checkout(tmp_path_factory.mktemp("source") / "superb-eval")


@pytest.fixture(scope="module")
def built(source: Path) -> Path:
    """A folder with the wheel and the source distribution of the copy."""
    out = source.parent / "dist"
    build("build_sdist", source, out)
    build("build_wheel", source, out)
    return out


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Path:
    """A site folder that holds the wheel, and nothing else."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def editable(source: Path, tmp_path: Path) -> Path:
    """A site folder that holds an editable install of the copy."""
    build("build_editable", source, tmp_path / "editable")
    with zipfile.ZipFile(next((tmp_path / "editable").glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    return tmp_path / "site"


def test_the_wheel_holds_every_file_of_the_packages(source: Path, built: Path) -> None:
    names = files_of(next(built.glob("*.whl")))
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert "superb-eval = superb_eval.cli.app:main" in wheel.read(entry).decode()
    assert names == expected_in_wheel(source)
    assert {"superb_eval/recipes/superb/ks.yaml", "superb_eval/recipes/rates.csv"} <= names
    assert {"superb_eval/results/published.csv", "downstreams/gender.py"} <= names
    assert "upstreams/weights/hubert_mini/model.safetensors" in names
    assert any(name.startswith("superb_eval/report/templates/") for name in names)


def test_the_wheel_is_small_and_states_the_licences_of_what_it_includes(built: Path) -> None:
    path = next(built.glob("*.whl"))
    assert path.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(path) as wheel:
        licences = {Path(n).name: wheel.read(n).decode() for n in wheel.namelist() if ".dist-info/licenses/" in n}
        card = wheel.read("upstreams/weights/hubert_mini/README.md").decode()
    assert licences.keys() == {"LICENSE", "NOTICE"}
    for source in re.findall(r"CC BY(?:-SA)? \d\.\d|CC0|Apache-2\.0", card.replace("Apache 2.0", "Apache-2.0")):
        assert source in licences["NOTICE"], f"the card of hubert_mini names {source}"
    assert not any("espeak" in name and not name.startswith("superb_eval/") for name in files_of(path))


def test_a_wheel_made_from_the_source_distribution_holds_the_same(source: Path, built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    build("build_wheel", next(tmp_path.iterdir()), tmp_path / "dist")
    assert files_of(next((tmp_path / "dist").glob("*.whl"))) == expected_in_wheel(source)


def test_the_wheel_installs_no_package_called_recipes(source: Path, installed: Path, tmp_path: Path) -> None:
    assert {name.partition("/")[0] for name in expected_in_wheel(source)} == set(PACKAGES)
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == set(PACKAGES)
    program = """
import superb_eval
try:
    import recipes
except ModuleNotFoundError as error:
    print(error)
"""
    assert python(program, installed, cwd=tmp_path) == "No module named 'recipes'\n"


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        *itertools.product(("checkout", "editable", "wheel"), ("none", "first on the path")),
        ("editable", "beside superb_eval"),
        ("wheel", "beside superb_eval"),
    ],
)
def test_recipes_are_found_whatever_else_is_called_recipes(
    kind: str, other: str, source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """torchtune's package of that name lies beside superb_eval where both are installed."""
    dependencies = Path(sysconfig.get_path("purelib"))
    if kind == "editable" and (dependencies / "superb_eval").is_dir():
        pytest.skip("this environment holds a wheel, which an editable install would replace")
    site = source if kind == "checkout" else request.getfixturevalue({"wheel": "installed"}.get(kind, kind))
    expected = site / "superb_eval/recipes" if kind == "wheel" else source / "recipes"
    if other == "beside superb_eval":
        write_other_recipes(site)
    first = write_other_recipes(tmp_path / "other") if other == "first on the path" else None
    (tmp_path / "away").mkdir()
    printed = python(FIND_RECIPES, site, dependencies, cwd=tmp_path / "away", first_on_path=first)
    names = sorted(
        f"recipes/{p.parent.name}/{p.name}" for k in recipe.PROFILES for p in (ROOT / "recipes" / k).glob("*.yaml")
    )
    assert json.loads(printed) == [str(expected), str(expected / "mini/ks.yaml"), names]


def test_recipes_of_another_distribution_are_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_other_recipes(tmp_path)
    monkeypatch.setattr(recipe, "__file__", str(tmp_path / "superb_eval/recipe.py"))
    with pytest.raises(UserError, match=r"rates\.csv is neither in .*superb_eval/recipes nor in .*Install superb-eval"):
        recipe.folder()


def test_the_source_distribution_holds_them_too_and_what_torch_hub_reads(source: Path, built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert shipped(source) <= names
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
    """CONTRIBUTING.md has what passed on other versions than CI's, by `python -m tests.installed`."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    declared = set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project))
    row = re.compile(r"^\| (3\.\d+)\.\d+ \| [\d.]+ \| locked \| \d+ passed, \d+ skipped", re.MULTILINE)
    passed = set(row.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")))
    assert declared == passed | {OF_CI}
    limits = (ROOT / "README.md").read_text(encoding="utf8")
    assert all(version in limits for version in declared) and f'requires-python = ">={OLDEST}"' in project


def test_each_extra_is_in_the_quickstart_and_reported_by_doctor() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf8").partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^(\w+) = \[", project.partition("\n[")[0], re.MULTILINE)) - {"dev"}
    assert environment.EXTRAS.keys() == extras - {"docs"}
    rows = (ROOT / "docs/quickstart.md").read_text(encoding="utf8").partition("| extra | for |")[2].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", rows)) == extras


@pytest.mark.slow
def test_an_installed_copy_lists_and_runs_what_a_checkout_does(built: Path, tmp_path: Path) -> None:
    place, away = install(next(built.glob("*.whl")), tmp_path / "installed"), tmp_path / "away"
    away.mkdir()
    corpus = write_tones(tmp_path / "corpus", {"train": 8, "dev": 4, "test": 4})

    def call(*words: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(place)}
        done = subprocess.run([sys.executable, *words], cwd=away, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = call("-c", "from superb_eval import recipe; print(recipe.__file__, recipe.folder())")
    assert str(ROOT) not in where and where.count(str(place)) == 2
    assert {line.split()[0] for line in call("-m", "superb_eval", "recipe", "list").splitlines()} == {
        f"recipes/{path.parent.name}/{path.name}" for path in (ROOT / "recipes").glob("*/*.yaml")
    }
    assert {line.split()[0] for line in call("-m", "superb_eval", "task", "list").splitlines()} >= {
        "ks",
        "gender",
        "qbe",
    }
    assert "distilhubert_mini" in call("-m", "superb_eval", "upstream", "list")
    options = ["--data", str(corpus), "-o", "train.steps=8", "-o", "train.eval_every=8", "--store", "store"]
    assert "ACC" in call("-m", "superb_eval", "run", "recipes/nano/ks.yaml", "-u", "distilhubert_mini", *options)
    assert "distilhubert_mini" in call("-m", "superb_eval", "table", "results")
    call("-m", "superb_eval", "report", "results", "-o", "report.html")
    assert (away / "report.html").stat().st_size > 10_000
