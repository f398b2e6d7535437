"""Which of our detectors measure a head type, read from their files.

The catalogue stands below the detectors in the order of imports, and importing them means importing torch, which takes
longer than everything else the catalogue does. Detectors that other packages add are not seen here; `headatlas list
detectors` has them.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "detectors"


@functools.cache
def detector_names(folder: Path = FOLDER) -> Mapping[str, tuple[str, ...]]:
    """Head type id -> names of the detectors that a decorator `...(head_type=...)` declares for it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.glob("[!_]*.py")):
        for head_type, name in _declared(ast.parse(path.read_text(encoding="utf-8"))):
            found[head_type].append(name)
    return {head_type: tuple(sorted(names)) for head_type, names in found.items()}


def _declared(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for decorator in function.decorator_list:
            for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
                if keyword.arg == "head_type" and isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value), function.name.strip("_").replace("_", "-")
