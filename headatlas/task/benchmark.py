"""Benchmarks of the catalogue as tasks: read from the files in which they were published, or made by a generator of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headatlas.errors import UnknownName
from headatlas.registry import discover, lookup


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that runs. name: its id in the catalogue.

    task: the built-in task that makes it; "" where it is read, and then `load` makes a task of a source: a file or folder,
    or a Hub id. files: what a source is, in words. hub: a Hub id that has it, as `org/name:configuration:split`. card: where
    its columns are described. licence: as its publishers state it. metrics: what its papers report of it, by names of
    `headatlas.task.answers` or "aoc". doc: what is asked, and how that differs from the papers.
    """

    name: str
    module: str
    doc: str
    task: str = ""
    load: Callable[[str], Any] | None = None
    files: str = ""
    hub: str = ""
    card: str = ""
    licence: str = ""
    metrics: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """What stands behind --task to run it."""
        return self.task or f"{self.name}={self.hub or 'PATH'}"


def benchmarks() -> Mapping[str, Benchmark]:
    """Every benchmark that runs, by its id in the catalogue."""
    return discover("headatlas.benchmarks", Benchmark)


def is_benchmark(spec: str) -> bool:
    """Whether what stands behind --task names a benchmark: its id, or its id and where it lies ("mmlu=PATH")."""
    return "=" in spec or spec in benchmarks()


def benchmark_task(spec: str, find: Callable[[str], Any]) -> Any:
    """The task of "NAME=SOURCE" or of the id of a benchmark that is generated; `find` knows the built-in tasks.

    Raises UnknownName, BadInput naming the file, its row and its column.
    """
    name, equals, source = spec.partition("=")
    found = lookup(benchmarks(), name.strip(), "benchmark", "See: headatlas list benchmarks")
    if found.load is None:
        if equals:
            raise UnknownName(f"{found.name} is generated, not read from files.", f"Write --task {found.task}.")
        return find(found.task)
    if not source.strip():
        hub = f", or {found.name}={found.hub} from the Hub" if found.hub else ""
        raise UnknownName(
            f"{found.name} is read from the files in which it was published: {found.files}.",
            f"Write --task {found.name}=PATH{hub}.",
        )
    return found.load(source.strip())
