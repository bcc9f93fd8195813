"""The structure holds: imports never run upwards, there are no circles, and names are the field's."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("superb_eval", "upstreams", "downstreams")

ORDER = (
    ("version",),
    ("errors",),
    ("runtime",),
    ("data",),
    ("upstreams", "downstreams"),
    ("recipe",),
    ("corpora",),
    ("features",),
    ("probing",),
    ("results",),
    ("runs",),
    ("report", "pretraining", "analysis", "export"),
    ("suite",),
    ("cli",),
    ("__main__",),
)
"""The packages from the bottom to the top. None imports one above it; those of one row don't import one another."""

OPEN_TO_ALL = {
    *("superb_eval.errors", "superb_eval.runtime.lazy_torch", "superb_eval.runtime.outside_files"),
    "superb_eval.runtime.out_of_memory",
}
"""What upstreams and downstreams may import besides `superb_eval.data`."""


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
    """Return the modules of ours that a module imports; `superb_eval` itself only exports entry points lazily."""
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


def package_of(module: str) -> str:
    """Return the package that a module belongs to, by its name in `ORDER`."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "superb_eval" else top


def test_every_package_has_its_place() -> None:
    assert {package_of(module) for module in modules()} - {""} == set(chain(*ORDER))


def test_no_package_imports_upwards() -> None:
    rank = {name: number for number, row in enumerate(ORDER) for name in row}
    for module in modules():
        for name in imports(module) - {"superb_eval"}:
            own, other = package_of(module), package_of(name)
            assert own == other or rank[own] > rank[other], f"{module} imports {name}, which lies no lower"


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


@pytest.mark.parametrize("module", sorted(m for m in modules() if not m.startswith("superb_eval")))
def test_upstreams_and_downstreams_know_audio_and_manifests_alone(module: str) -> None:
    own = module.partition(".")[0]
    for name in imports(module):
        allowed = name.partition(".")[0] == own or name.startswith("superb_eval.data") or name in OPEN_TO_ALL
        assert allowed, f"{module} imports {name}"


def test_the_ground_level_is_small() -> None:
    assert len(list((ROOT / "superb_eval").glob("*.py"))) <= 6


COMMANDS = sorted((ROOT / "superb_eval/cli").glob("*.py"))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_the_command_line_imports_nothing_heavy(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf8"))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            package = node.module == "superb_eval.runtime"
            names |= {f"{node.module}.{alias.name}" if package else node.module or "" for alias in node.names}
    light = {
        "__future__",
        "collections.abc",
        "copy",
        "json",
        "re",
        "shlex",
        "string",
        "sys",
        "textwrap",
        "pathlib",
        "typing",
        "typer",
    }
    light |= {"typer.core", "superb_eval.errors", "superb_eval.version"}
    light |= {
        "os",
        "functools",
        "superb_eval.runtime.allocator",
        "superb_eval.runtime.screen",
        "superb_eval.runtime.supervision",
        "superb_eval.runtime.system_errors",
    }
    assert all(name in light or name.startswith("superb_eval.cli") for name in names), names


def test_no_host_and_no_local_path_is_named() -> None:
    for path in [*ROOT.glob("*.txt"), *ROOT.glob("*.toml"), ROOT / "Makefile", *(ROOT / ".ci").iterdir()]:
        text = path.read_text(encoding="utf8")
        assert "://" not in text, f"{path.name} names a host"
        assert str(ROOT) not in text


WORDS = re.compile(
    r"\b(hear|hears|heard|hearing|told|tells?|telling|foretells?|mend(s|ed|ing|able)?|tak(e|es|en|ing) up|took up"
    r"|says?|said|strangers?|aliens?|libert(y|ies)|flatters?|judged|by heart|none the wiser|boards?"
    r"|homeward|onward|reporter)\b",
    re.IGNORECASE,
)
"""Words of the private language that this project spoke once; the field has others (CONTRIBUTING.md)."""

ENDINGS = {".py", ".md", ".yaml", ".j2", ".template"}

ALLOWED = {
    "downstreams/nets/recurrent.py": {"onward", "homeward"},  # names in heads saved before
    "superb_eval/suite/state_files.py": {"mendable"},  # a key in folders written before
    "superb_eval/corpora/synthetic/lexicon.py": {"said"},  # a word of the corpus
    "superb_eval/suite/executors/slurm.py": {"board"},  # the command
    "superb_eval/cli/suite.py": {"board"},
    "docs/compare.md": {"board"},
}

CELLS = re.compile(r"\bcells?\b")
TABLES = ("superb_eval/results", "superb_eval/report", "superb_eval/data", "superb_eval/corpora", "docs", "recipes")
CELLS_OF_TABLES = {"superb_eval/pretraining/sources.py", "superb_eval/cli/report.py", "README.md", "CONTRIBUTING.md"}
"""Where a cell is that of a table or of a manifest; anywhere else it would be a run."""


def documents() -> list[str]:
    """Return every text that users read, by its path from the root."""
    folders = [*PACKAGES, "recipes", "docs"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in ENDINGS]
    files = ("README.md", "CONTRIBUTING.md", "hubconf.py", "setup.py")
    return sorted(str(path.relative_to(ROOT)) for path in (*paths, *(ROOT / name for name in files)))


def test_words_are_those_of_the_field() -> None:
    wrong = []
    for name in documents():
        tabular = name.startswith(TABLES) or name in CELLS_OF_TABLES
        for number, line in enumerate((ROOT / name).read_text(encoding="utf8").splitlines(), start=1):
            found = {match[0].lower() for match in WORDS.finditer(line)} - ALLOWED.get(name, set())
            found |= set() if tabular else set(CELLS.findall(line))
            wrong += [f"{name}, line {number}: {word}" for word in sorted(found)]
    assert not wrong, "see CONTRIBUTING.md for the field's words:\n" + "\n".join(wrong)


FORMER_MODULES = re.compile(
    "ahead|bank|boards?|cell|claims|console|demand|describing|doctor|edits|evidence|following|front|gather|guard|known"
    "|launched|layouts|lazily|ledger|lengths|listening|live|lockstep|marks|measured|members|notes|opening|order|perform"
    "|recording|rows|searching|sharing|shortage|silence|team|tensors|turns|warm|watching"
)
FORMER_NAMES = re.compile(
    "Bank|Board|Heard|Line|Member|Order|Reporter|Said|Setting|Silencer|Team|Told|World|compose|told|gather"
)
"""Names that a speech researcher would not have known; those of today are in CONTRIBUTING.md."""


def test_former_names_are_gone_and_a_class_name_has_one_meaning() -> None:
    assert not [name for name in modules() if FORMER_MODULES.fullmatch(name.rpartition(".")[2])]
    places: dict[str, list[str]] = {}
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                assert not FORMER_NAMES.fullmatch(node.name), f"{module}.{node.name}"
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_one_module_prints() -> None:
    """Elsewhere `print` would show what others wrote as it stands."""
    for name, path in modules().items():
        calls = [n.func for n in ast.walk(ast.parse(path.read_text(encoding="utf8"))) if isinstance(n, ast.Call)]
        printed = [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        assert not printed or name == "superb_eval.runtime.screen", f"{name}, line {printed}"


SINCE_3_11 = {
    "typing": "LiteralString Never NotRequired Required Self TypeVarTuple Unpack assert_never assert_type override",
    "enum": "ReprEnum StrEnum verify",
    "datetime": "UTC",
    "contextlib": "chdir",
    "tomllib": "load loads",
}
"""Names of the standard library that Python 3.10, which the package still supports, lacks."""


def test_nothing_newer_than_the_oldest_python_is_imported() -> None:
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"), feature_version=(3, 10))):
            if isinstance(node, ast.ImportFrom):
                newer = {alias.name for alias in node.names} & set(SINCE_3_11.get(node.module or "", "").split())
                assert not newer, f"{name}: {', '.join(newer)}"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("catch_warnings"):
                assert {keyword.arg for keyword in node.keywords} <= {"record", "module"}, f"{name}, line {node.lineno}"
