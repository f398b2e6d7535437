"""What the package imports is installed with it: a fresh machine has nothing that only development brings."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import headatlas

HOUSE = Path(headatlas.__file__).parent
INSTALLED_AS = {"yaml": "pyyaml", "sklearn": "scikit_learn", "ufal": "ufal.chu_liu_edmonds"}
BROUGHT_BY = {"markupsafe": "jinja2", "tokenizers": "transformers"}
# Named with the way to install it where it is missing.
OPTIONAL = {"arxiv", "matplotlib", "datasets", "PIL"}


def imported() -> set[str]:
    """Top-level names of all modules that files of the package import."""
    found = set()
    for file in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"headatlas"}


def test_every_import_is_a_dependency():
    project = tomllib.loads((HOUSE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[ ]", line)[0].lower().replace("-", "_") for line in project["dependencies"]}
    needed = {BROUGHT_BY.get(name, INSTALLED_AS.get(name, name)) for name in imported() - OPTIONAL}
    assert len(needed) > 10
    assert needed <= declared
