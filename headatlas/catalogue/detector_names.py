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
from typing import NamedTuple

FOLDER = Path(__file__).parent.parent / "detectors"
_PLANTINGS = Path(__file__).parent.parent / "lab" / "plantings"


class Declared(NamedTuple):
    """A detector as its file declares it: head type id, name, docstring, and of which attention it makes sense.

    calibrated: whether planted models say how often it is right, as `Detector.calibrated`.
    """

    head_type: str
    name: str
    doc: str
    attention: str = "causal"
    calibrated: bool = False


@functools.cache
def declared(folder: Path = FOLDER) -> tuple[Declared, ...]:
    """Every detector that a decorator `...(head_type=...)` declares in a folder."""
    files = sorted(folder.glob("[!_]*.py"))
    return tuple(one for path in files for one in _declared(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def detector_names(folder: Path = FOLDER) -> Mapping[str, tuple[str, ...]]:
    """Head type id -> names of the detectors that are declared for it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for one in declared(folder):
        found[one.head_type].append(one.name)
    return {head_type: tuple(sorted(names)) for head_type, names in found.items()}


@functools.cache
def calibrated_detectors(folder: Path = FOLDER) -> frozenset[str]:
    """Names of the detectors that planted models test."""
    return frozenset(one.name for one in declared(folder) if one.calibrated)


def _declared(tree: ast.Module) -> Iterator[Declared]:
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for decorator in function.decorator_list:
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            given = {one.arg: str(one.value.value) for one in keywords if isinstance(one.value, ast.Constant)}
            if "head_type" in given:
                name, doc = function.name.strip("_").replace("_", "-"), ast.get_docstring(function) or ""
                finds = any(one.arg == "finds" and getattr(one.value, "elts", None) for one in keywords)
                calibrated = finds or (_PLANTINGS / f"{name.replace('-', '_')}.py").is_file()
                yield Declared(given["head_type"], name, doc, given.get("attention", "causal"), calibrated)
