"""How heads are found and tested: all methods, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.files.commands import method_commands
from headatlas.catalogue.site.context import Page, Section, SiteContext


def _pages(context: SiteContext) -> Iterator[Page]:
    methods = context.catalogue.methods.values()
    papers = {method.id: context.catalogue.papers_with_method(method.id)[::-1] for method in methods}
    groups = {
        category: {group: [m for m in methods if (m.category, m.group) == (category, group)] for group in groups}
        for category in dict.fromkeys(method.category for method in methods)
        for groups in [dict.fromkeys(m.group for m in methods if m.category == category)]
    }
    yield Page("methods/index.html", "methods.html.j2", {"groups": groups, "papers_of_method": papers})
    for method in methods:
        shows = {"method": method, "papers": papers[method.id], "commands": method_commands().get(method.id, ())}
        yield Page(f"methods/{method.id}.html", "method.html.j2", shows)


METHODS = Section("methods", _pages, "Methods", 4)
