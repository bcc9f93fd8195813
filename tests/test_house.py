"""The house keeps its order: imports never run backwards, there are no circles, and every file is in its room."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("superb_eval", "upstreams", "downstreams")
GROUND_FLOOR = {f"superb_eval.{name}" for name in ("audio", "errors", "lazily", "manifest", "rows")}
"""All that upstreams and downstreams may know of the engine."""


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of ours that a module imports; the package's face, which only hands on entry points, imports none."""
    if module == "superb_eval":
        return frozenset()
    tree = ast.parse(modules()[module].read_text(encoding="utf8"))
    typing_only = {
        n
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for n in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
            base = node.module or "" if not node.level else ".".join(filter(None, [package, node.module]))
            names |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base for alias in node.names}
    return frozenset(names & modules().keys()) - {module}


@pytest.mark.parametrize("module", sorted(m for m in modules() if m.startswith("upstreams")))
def test_upstreams_know_only_the_ground_floor(module: str) -> None:
    assert all(name.startswith("upstreams") or name in GROUND_FLOOR for name in imports(module))


@pytest.mark.parametrize("module", sorted(m for m in modules() if m.startswith("downstreams")))
def test_downstreams_know_only_the_ground_floor(module: str) -> None:
    assert all(name.startswith("downstreams") or name in GROUND_FLOOR for name in imports(module))


def test_there_are_no_circles() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in imports(module):
                visit(name, (*path, module))
            done.add(module)

    for module in modules():
        visit(module, ())


STAGES = (
    "__main__",
    "cli",
    "commands",
    "quick",
    "scaffold",
    "checking",
    "onnx_export",
    "cost",
    "pretraining",
    "suite",
    "layers",
    "cell",
    "predicting",
    "recording",
    "results",
    "projection",
    "probing",
    "order",
    "features",
    "corpora",
    "rates",
    "recipe",
)
"""The engine's rooms, from the last to use the others to the first."""


def test_data_flows_one_way() -> None:
    def stage(module: str) -> int:
        room = module.split(".")[1] if module.startswith("superb_eval.") else ""
        return STAGES.index(room) if room in STAGES else len(STAGES)

    for module in modules():
        for name in imports(module):
            assert stage(name) >= stage(module), f"{module} imports {name}, which uses it"


COMMANDS = [ROOT / "superb_eval/cli.py", *sorted((ROOT / "superb_eval/commands").glob("*.py"))]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_the_command_line_imports_nothing_heavy(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf8"))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            ours = node.module == "superb_eval"
            names |= {f"superb_eval.{alias.name}" for alias in node.names} if ours else {node.module or ""}
    light = {"__future__", "json", "sys", "pathlib", "typing", "typer", "superb_eval.errors"}
    assert all(name in light or name.startswith("superb_eval.commands") for name in names)


def test_no_host_and_no_local_path_is_named() -> None:
    for path in [*ROOT.glob("*.txt"), *ROOT.glob("*.toml"), ROOT / "Makefile", *(ROOT / ".ci").iterdir()]:
        text = path.read_text(encoding="utf8")
        assert "://" not in text, f"{path.name} names a host"
        assert str(ROOT) not in text
