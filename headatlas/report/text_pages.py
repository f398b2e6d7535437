"""What a report says of pages of heads on text (`headatlas page`): which lie where, and what they found in a line.

Read off the `pages.json` of their folder, which is checked as every file that is read; links are relative where they can be,
so that a run folder may be moved with the pages in it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.reading import Name, Number, Open, checked, demand_schema, read_json
from headatlas.render.numbers import count, percent
from headatlas.store import of_run

SCHEMA = "headatlas/pages/1"
FILE = "pages.json"


class Behaviour(Open):
    """One of a page's behaviours, of which a report says the name and the share of events."""

    name: Name
    share: Number = None


class Page(Open):
    """One of "pages"."""

    behaviours: Annotated[list[Behaviour], Field(max_length=100)] = Field(default_factory=list)


class Row(Open):
    """One of "heads"."""

    head: Name
    resting: Number = None


class Facts(Open):
    """The key "facts": what was read, and the weights by which."""

    corpus: Name
    tokens: int
    sha256: str | None = None


class PagesFile(Open):
    """pages.json, as far as a report needs it."""

    schema_: str = Field(alias="schema")
    model: Name
    facts: Facts
    heads: list[Row]
    pages: dict[str, Page]


def page_file(head: HeadId) -> str:
    """The name of a head's page, in the folder `pages` beside `pages.json`."""
    return f"{str(head).replace(':', '-')}.html"


def demand_model(model: str, sha256: str | None, atlas: dict[str, Any], run: Path) -> None:
    """Raise BadInput where a run of `mine` is about other weights than `model` has; those that nobody noted are not compared."""
    mined = atlas["model"]
    if None not in (sha256, mined.get("sha256")) and sha256 != mined["sha256"]:
        raise BadInput(
            f"{run} is a run of {mined['name']} with other weights than {model} has.",
            "Give a run of the model whose pages these are.",
        )


def linked(folder: Path, run: Path, atlas: dict[str, Any]) -> dict[str, Any]:
    """The pages of a folder, as the report in the folder `run` shows them: `told`, `index`, and by head `href` and `told`.

    Heads whose page is not there are left out. Raises StoreError for a bad pages.json, BadInput for pages of another model.
    """
    source = of_run(folder / FILE, "make the pages")
    value = read_json(source)
    demand_schema(value, SCHEMA, source)
    data = checked(value, PagesFile, source)
    facts = data["facts"]
    demand_model(f"{data['model']} of {folder}", facts["sha256"], atlas, run)
    try:
        place = quote(Path(os.path.relpath(folder.resolve(), run.resolve())).as_posix())
    except ValueError:  # on another drive
        place = folder.resolve().as_uri()
    resting = {row["head"]: row["resting"] for row in data["heads"]}
    heads = {}
    for name, page in data["pages"].items():
        with source.explained():
            head = HeadId.parse(name)
        if (folder / "pages" / page_file(head)).is_file():
            does = "; ".join(f"{one['name']} in {percent(one['share'])} of events" for one in page["behaviours"])
            told = f"rests {percent(resting.get(name))}; {does or 'no behaviours'}"
            heads[str(head)] = {"href": f"{place}/pages/{quote(page_file(head))}", "told": told}
    told = f"{count(facts['tokens'], 'token')} of {facts['corpus']}"
    return {"told": told, "index": f"{place}/index.html", "heads": heads}
