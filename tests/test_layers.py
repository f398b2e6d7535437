"""The house keeps its order: imports go one way and in no circle, files stay small, folders stay shallow."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import headatlas

HOUSE = Path(headatlas.__file__).parent
# Top to bottom; a plugin folder stands right below its contract and its files never import each other sideways.
ORDER = [
    "errors", "heads", "choices", "version", "renamed", "render", "progress", "reading", "store", "registry", "ops", "catalogue", "task", "model", "edits",
    "prompts_file", "own_prompts", "treebanks", "tasks", "benchmarks", "campaigns", "engines", "detector", "scores", "methods", "detectors", "circuits", "apply", "report", "atlas", "asking", "overview", "citing", "mining", "lab", "pages",
    "cli", "web",
]  # fmt: skip
PLUGINS = {"detectors"}
# `headatlas/__init__.py` hands out everything, so nothing below the command line may import it.
ROOT_ALLOWED = {"cli", "web", "__main__"}
LINES = 350
FILES = 15
PARAMETERS = 10
# Folders in which every file is one plug-in, or one command; all files alike.
MANY = {
    "detectors",
    "tasks",
    "benchmarks",
    "lab/kinds",
    "lab/plantings",
    "cli",
    "cli/papers",
    "model/layouts",
    "apply",
    "apply/interventions",
}


def named(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    """(module, name taken from it or None) of an import of this package."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == "headatlas")
    elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "headatlas":
        yield from ((node.module, alias.name) for alias in node.names)


def imports(file: Path) -> list[str]:
    """Modules of the package that a file imports, anywhere: in functions and for type checkers too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [module if name is None else f"{module}.{name}" for node in ast.walk(tree) for module, name in named(node)]


def violations(unit: str, file: Path) -> list[str]:
    """What a file of `unit` imports that stands below it, beside it in a plugin folder, or the package as a whole."""
    bad = []
    for module in imports(file):
        parts = module.split(".")
        if len(parts) == 1 or parts[1] not in ORDER:  # `import headatlas`, `from headatlas import mine`
            if unit not in ROOT_ALLOWED:
                bad.append(f"{file.name} imports {module}")
            continue
        target = parts[1]
        below = ORDER.index(target) > ORDER.index(unit)
        shared = len(parts) > 2 and parts[2].startswith("_")
        sideways = target == unit and unit in PLUGINS and parts[2:3] != [file.stem] and not shared
        if below or sideways:
            bad.append(f"{file.name} imports {module}")
    return bad


def files() -> list[tuple[str, Path]]:
    pairs = []
    for file in sorted(HOUSE.rglob("*.py")):
        unit = file.relative_to(HOUSE).parts[0].removesuffix(".py")
        if unit not in ("__init__", "__main__"):
            pairs.append((unit, file))
    return pairs


@pytest.mark.parametrize(("unit", "file"), files(), ids=lambda value: value if isinstance(value, str) else value.stem)
def test_imports_go_one_way(unit: str, file: Path):
    assert unit in ORDER, f"{unit} has no place in the house; add it to ORDER and docs/architecture.md"
    assert violations(unit, file) == []


def test_the_check_sees_a_violation(tmp_path: Path):
    down = tmp_path / "patterns.py"
    down.write_text("from headatlas.mining import mine\n")
    assert violations("ops", down) == ["patterns.py imports headatlas.mining.mine"]
    hidden = tmp_path / "late.py"
    hidden.write_text("def f():\n    from headatlas.cli import main\n")
    assert violations("render", hidden) == ["late.py imports headatlas.cli.main"]
    whole = tmp_path / "checkpoint.py"
    whole.write_text("import headatlas\n")
    assert violations("methods", whole) == ["checkpoint.py imports headatlas"]
    assert violations("cli", whole) == []
    beside = tmp_path / "induction.py"
    beside.write_text("from headatlas.detectors import previous_token\n")
    assert violations("detectors", beside)
    beside.write_text("from headatlas.detectors._measures import seeds\n")
    assert violations("detectors", beside) == []


# ---- circles --------------------------------------------------------------------------------------------------------
def graph(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports in whatever way; an import of a package is one of its __init__."""
    modules = {}
    for file in root.rglob("*.py"):
        parts = ("headatlas", *file.relative_to(root).with_suffix("").parts)
        modules[".".join(parts).removesuffix(".__init__")] = file
    found = {}
    for module, file in modules.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        pairs = [pair for node in ast.walk(tree) for pair in named(node)]
        targets = {f"{base}.{name}" if f"{base}.{name}" in modules else base for base, name in pairs}
        found[module] = (targets & modules.keys()) - {module}
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    reached: dict[str, set[str]] = {}
    for module in edges:
        seen, todo = set(), [module]
        while todo:
            for target in edges[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        reached[module] = seen
    groups = {
        tuple(sorted({one} | {other for other in reached[one] if one in reached[other]}))
        for one in edges
        if one in reached[one]
    }
    return [list(group) for group in sorted(groups)]


def test_no_import_goes_in_a_circle_not_even_for_types():
    assert circles(graph(HOUSE)) == []


def test_the_check_sees_a_circle(tmp_path: Path):
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "__init__.py").write_text("")
    (tmp_path / "ops" / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from headatlas.ops.b import B\n"
    )
    (tmp_path / "ops" / "b.py").write_text("def f():\n    from headatlas.ops import a\n")
    assert circles(graph(tmp_path)) == [["headatlas.ops.a", "headatlas.ops.b"]]


# ---- size -----------------------------------------------------------------------------------------------------------
def sources() -> list[Path]:
    home = HOUSE.parent
    return [
        file
        for name in ("headatlas", "tests", "benchmarks", "examples")
        for file in sorted((home / name).rglob("*.py"))
    ]


def test_no_file_is_too_long():
    lengths = {str(file.relative_to(HOUSE.parent)): len(file.read_text("utf-8").splitlines()) for file in sources()}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}


def test_no_folder_is_too_full():
    full = {}
    for folder in sorted({file.parent for file in sources()}):
        inside = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        name = str(folder.relative_to(HOUSE)) if folder.is_relative_to(HOUSE) else str(folder.relative_to(HOUSE.parent))
        if len(inside) > FILES and name not in MANY:
            full[name] = len(inside)
    assert full == {}


@pytest.mark.parametrize("name", sorted(set(headatlas.__all__) - {"__version__"}))
def test_public_functions_have_few_parameters(name: str):
    thing = getattr(headatlas, name)
    callables = {name: thing} if not inspect.isclass(thing) else {
        f"{name}.{key}": value for key, value in vars(thing).items() if inspect.isfunction(value) and not key.startswith("_")
    }  # fmt: skip
    for label, function in callables.items():
        if callable(function):
            parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
            assert len(parameters) <= PARAMETERS, f"{label} takes {len(parameters)}: {parameters}"


def test_only_the_model_unit_knows_transformers():
    knowing = set()
    for unit, file in files():
        text = file.read_text(encoding="utf-8")
        if any(line.strip().startswith(("import transformers", "from transformers")) for line in text.splitlines()):
            knowing.add(unit)
    assert knowing <= {"model", "lab"}


def test_every_module_can_be_imported_first():
    """What a module needs it imports itself: none relies on another having been imported before."""
    for name in graph(HOUSE):
        if not name.endswith("__main__"):
            importlib.import_module(name)
