"""The data sets that papers measure on, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.files.commands import benchmark_commands
from headatlas.catalogue.site.context import Page, Section, SiteContext


def _pages(context: SiteContext) -> Iterator[Page]:
    benchmarks = context.catalogue.benchmarks.values()
    papers = {found.id: context.catalogue.papers_on_benchmark(found.id)[::-1] for found in benchmarks}
    kinds = {
        "Made to explore mechanisms": [found for found in benchmarks if found.kind == "mechanism"],
        "Common evaluations": [found for found in benchmarks if found.kind == "common"],
    }
    yield Page("benchmarks/index.html", "benchmarks.html.j2", {"kinds": kinds, "papers_of_benchmark": papers})
    for found in benchmarks:
        shows = {"benchmark": found, "papers": papers[found.id], "commands": benchmark_commands().get(found.id, ())}
        yield Page(f"benchmarks/{found.id}.html", "benchmark.html.j2", shows)


BENCHMARKS = Section("benchmarks", _pages, "Benchmarks", 5)
