"""Imports go one way: a unit may import only units above it in the order of the house."""

import ast
from pathlib import Path

import pytest

import headatlas

HOUSE = Path(headatlas.__file__).parent
# Top to bottom; a plugin folder stands right below its contract and its files never import each other sideways.
ORDER = [
    "errors", "heads", "version", "progress", "store", "registry", "ops", "catalogue", "model", "edits", "task", "prompts_file", "tasks", "detector",
    "scores", "methods", "detectors", "circuits", "report", "atlas", "overview", "mining", "lab", "apply", "cli", "web",
]  # fmt: skip
PLUGINS = {"detectors"}


def imports(file: Path) -> list[str]:
    """Modules of the package that a file imports at run time; imports for type checkers only do not count."""
    found = []
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("headatlas.")]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "headatlas":
            inner = node.module.split(".")[1:]
            found += [".".join(["headatlas", *inner, alias.name]) for alias in node.names]
    return found


def violations(unit: str, file: Path) -> list[str]:
    """What a file of `unit` imports that stands below it, or beside it in a plugin folder."""
    bad = []
    for module in imports(file):
        parts = module.split(".")
        target = parts[1]
        if target.startswith("_") or target not in ORDER:
            continue
        below = ORDER.index(target) > ORDER.index(unit)
        sideways = target == unit and unit in PLUGINS and parts[2:3] != [file.stem] and not parts[2].startswith("_")
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
    assert unit in ORDER, f"{unit} has no place in the house; add it to ORDER and docs"
    assert violations(unit, file) == []


def test_the_check_sees_a_violation(tmp_path: Path):
    down = tmp_path / "patterns.py"
    down.write_text("from headatlas.mining import mine\n")
    assert violations("ops", down) == ["patterns.py imports headatlas.mining.mine"]
    beside = tmp_path / "induction.py"
    beside.write_text("from headatlas.detectors import previous_token\n")
    assert violations("detectors", beside)


def test_only_the_model_unit_knows_transformers():
    knowing = set()
    for unit, file in files():
        text = file.read_text(encoding="utf-8")
        if any(line.strip().startswith(("import transformers", "from transformers")) for line in text.splitlines()):
            knowing.add(unit)
    assert knowing <= {"model", "lab"}
