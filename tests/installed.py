"""The fast tests on another Python, in an empty environment with the wheel: `python -m tests.installed python3.13`.

A clean clone of HEAD is built; the wheel and the extras `synth`, `dev` and `abx` are installed into an empty
environment: in the locked versions, with `--oldest` each direct dependency in the lowest one that the others admit,
with `--newest` everything as an installation of today would be. `--with torch==2.15.0` takes the place of a locked
version. The installed command has to start, and the clone's tests run there (`tests/test_packaging.py` compares the
wheel with a checkout). Prints a row of the table in CONTRIBUTING.md. Needs git, uv and a registry of packages.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = (sys.executable, "-m", "uv")
VERSIONS = "import platform, torch; print(platform.python_version(), torch.__version__.replace('+cu', ' ').split()[0])"
LOWEST, LOCKED, NEWEST = "lowest", "locked", "newest"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program that has to succeed, without the caller's PYTHONPATH, and return its output."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def pins(clone: Path, python: Path, versions: str, others: Sequence[str]) -> Path:
    """Return a file of versions: the locked ones, the lowest of the direct dependencies, or none; without `others`."""
    texts = {LOCKED: (clone / "constraints.txt").read_text(encoding="utf8").splitlines(), NEWEST: []}
    lines = _lowest(clone, python) if versions == LOWEST else texts[versions]
    replaced = {_name(text) for text in others}
    path = clone.parent / "versions.txt"
    path.write_text("\n".join(line for line in lines if _name(line) not in replaced), encoding="utf8")
    return path


def _lowest(clone: Path, python: Path) -> list[str]:
    options = ["--quiet", "--no-annotate", "--resolution", "lowest-direct", "--python", python, "--extra", "synth"]
    resolved = run(*UV, "pip", "compile", *options, "pyproject.toml", cwd=clone).splitlines()
    direct = direct_dependencies()
    # What those depend on stays free: the newest, for which they were resolved, need not suit the tools of tests.
    return [line for line in resolved if _name(line) in direct]


def direct_dependencies() -> set[str]:
    """Return the names of the packages that the toolkit asks for without an extra."""
    stated = [text for text in metadata.requires("superb-eval") or () if "extra ==" not in text]
    return {_name(text) for text in stated}


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace(".", "-")


def install(clone: Path, python: str, versions: str, others: Sequence[str]) -> Path:
    """Install the wheel into an empty environment beside the clone; return its folder of programs."""
    programs, wheels = clone.parent / "environment/bin", clone.parent / "dist"
    run(*UV, "build", "--quiet", "--wheel", "--out-dir", wheels, cwd=clone)
    run(*UV, "venv", "--quiet", "--python", python, programs.parent, cwd=clone)
    constraints = pins(clone, programs / "python", versions, others)
    options = ["--quiet", "--python", programs / "python", "--constraint", constraints]
    run(*UV, "pip", "install", *options, f"{next(wheels.glob('*.whl'))}[synth,dev,abx]", *others, cwd=clone)
    return programs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests, print `| Python | torch | versions | outcome |`, and return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="an interpreter, such as python3.13")
    which = parser.add_mutually_exclusive_group()
    for flag, versions, text in (("--oldest", LOWEST, "the lowest versions admitted"), ("--newest", NEWEST, "today's")):
        which.add_argument(flag, dest="versions", action="store_const", const=versions, default=LOCKED, help=text)
    parser.add_argument("--with", dest="others", action="append", default=[], help="such as torch==2.15.0; repeatable")
    parser.add_argument("--jobs", default="auto", help="processes of pytest")
    parser.add_argument("tests", nargs="*", help="default: all")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        run("git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), clone, cwd=Path(folder))
        programs = install(clone, options.python, options.versions, options.others)
        run(programs / "superb-eval", "--version", cwd=Path(folder))
        about = run(programs / "python", "-c", VERSIONS, cwd=Path(folder)).split()
        code, outcome = run_tests(programs, clone, options.jobs, options.tests)
    sys.stdout.write(f"| {' | '.join((*about, ', '.join((options.versions, *options.others)), outcome))} |\n")
    return code


def run_tests(programs: Path, clone: Path, jobs: str, tests: Sequence[str]) -> tuple[int, str]:
    """Run the fast tests, passing on what pytest prints; return its exit code and last line."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    command = [str(programs / "python"), "-m", "pytest", "-n", jobs, "-m", "not slow", *tests]
    last = ""
    with subprocess.Popen(command, cwd=clone, env=env, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            last = line.strip() or last
    return process.returncode, last


if __name__ == "__main__":
    raise SystemExit(main())
