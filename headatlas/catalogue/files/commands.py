"""Which command runs an entry of the catalogue, read from the files of benchmarks and commands.

As with detectors (`headatlas.catalogue.detector_names`), these stand below the catalogue, and importing them means importing torch.
A benchmark's file declares where it is had or which task makes it; a command's file says in `runs` which methods it carries
out, with which options.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from headatlas.catalogue.schema import PublishedCircuit

_HOME = Path(__file__).parent.parent.parent


@functools.cache
def benchmark_commands() -> Mapping[str, tuple[str, ...]]:
    """Id of a benchmark -> the commands that run it: with files, and from the Hub where it lies there."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((_HOME / "benchmarks").glob("[!_]*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            id_ = path.stem.replace("_", "-")
            if node.func.id == "generated":
                found[id_] = _measured([str(ast.literal_eval(node.args[1]))])
            elif node.func.id == "published":
                hub = [str(ast.literal_eval(one.value)) for one in node.keywords if one.arg == "hub"]
                found[id_] = _measured([f"{id_}={source}" for source in ("PATH", *hub)])
    return found


def _measured(specs: list[str]) -> tuple[str, ...]:
    return tuple(f"headatlas {verb} MODEL --task {spec}" for verb in ("score", "mine") for spec in specs)


@functools.cache
def method_commands() -> Mapping[str, tuple[str, ...]]:
    """Id of a method -> the commands that carry it out."""
    found: dict[str, list[str]] = {}
    for path in sorted((_HOME / "cli").glob("[!_]*.py")):
        for id_, options in _runs(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(id_, []).append(f"headatlas {path.stem.strip('_')} {options}")
    return {id_: tuple(commands) for id_, commands in found.items()}


def _runs(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["runs"]:
            yield from ast.literal_eval(node.value).items()


def circuit_commands(circuit: PublishedCircuit, hub_id: str = "MODEL") -> tuple[str, ...]:
    """The command that tests a published circuit on its model, or, where no heads are named, finds one for its task."""
    task = circuit.runs_on or "TASK"
    if any(node.heads for node in circuit.nodes):
        return () if circuit.untested else (f"headatlas circuit test {hub_id} {circuit.id} --task {task}",)
    return (f"headatlas circuit find MODEL --task {task}",)
