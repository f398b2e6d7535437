"""What papers can be chosen by, and the index that the search box reads: a script, so that it loads from a folder too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headatlas.catalogue.extras import paper_url
from headatlas.catalogue.filters import has_code, venues
from headatlas.catalogue.names import normal
from headatlas.catalogue.schema import Paper
from headatlas.catalogue.site.context import SiteContext
from headatlas.catalogue.site.models import model_pages
from headatlas.catalogue.site.words import family, series, slug

INDEX = "static/index-data.js"


@dataclass(frozen=True)
class Choice:
    """One value of a facet: how it is written in an address, what it is called, how many papers have it."""

    value: str
    name: str
    count: int


@dataclass(frozen=True)
class Facet:
    """One way to choose papers, with its values."""

    key: str
    title: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Facets:
    """All facets, the values of each paper (paper id -> facet key -> values), and of each model's name its family."""

    all: tuple[Facet, ...]
    of: Mapping[str, Mapping[str, list[str]]]
    model_values: Mapping[str, str]


def facets(context: SiteContext) -> Facets:
    """Year, stage, head type, method, model family, venue, code, and whether it runs here, each with the values that occur."""
    catalogue = context.catalogue
    spelt = _families(context)
    models = {model: slug(spelt[normal(family(model))]) for paper in context.newest for model in paper.models}
    found: dict[str, dict[str, list[str]]] = {}
    for paper in context.newest:
        heads = context.heads_of.get(paper.id, [])
        found[paper.id] = {
            "year": [str(paper.date.year)],
            "stage": [s for s in catalogue.stages if any(catalogue.heads[h].stage == s for h in heads)],
            "head": heads,
            "method": context.methods_of.get(paper.id, []),
            "model": _unique(models[model] for model in paper.models),
            "venue": _unique(slug(series(venue)) for venue in venues(paper)[:1]),
            "code": ["yes"] if has_code(paper) else [],
            "runs": ["yes"] if context.commands.get(paper.id) else [],
        }
    names: dict[str, Callable[[str], str]] = {
        "year": str,
        "stage": lambda id_: catalogue.stages[id_].name,
        "head": lambda id_: catalogue.heads[id_].name,
        "method": lambda id_: catalogue.methods[id_].name,
        "model": {slug(name): name for name in spelt.values()}.__getitem__,
        "venue": {slug(series(v)): series(v) for paper in context.newest for v in venues(paper)[:1]}.__getitem__,
        "code": lambda _: "Has code",
        "runs": lambda _: "Runs here",
    }
    titles = {"year": "Year", "stage": "Stage", "head": "Head type", "method": "Method", "model": "Model", "venue": "Venue", "code": "Code", "runs": "With headatlas"}  # fmt: skip
    made = []
    for key, title in titles.items():
        counts = Counter(value for own in found.values() for value in own[key])
        choices = [Choice(value, names[key](value), n) for value, n in counts.items()]
        if key == "year":
            choices.sort(key=lambda choice: choice.value, reverse=True)
        elif key == "stage":
            choices.sort(key=lambda choice: list(catalogue.stages).index(choice.value))
        else:
            choices.sort(key=lambda choice: (-choice.count, choice.name.lower(), choice.value))
        made.append(Facet(key, title, tuple(choices)))
    return Facets(tuple(made), found, models)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _families(context: SiteContext) -> dict[str, str]:
    """Each family of models without case and signs -> how most papers spell it."""
    spellings = Counter(family(model) for paper in context.newest for model in paper.models)
    found: dict[str, str] = {}
    for name, _ in sorted(spellings.items(), key=lambda item: (-item[1], item[0])):
        found.setdefault(normal(name), name)
    return found


def index(context: SiteContext, chosen: Facets) -> str:
    """The script with what the search reads: papers by the fields that words are looked for in, and other pages by name."""
    catalogue = context.catalogue
    papers = [_document(context, paper, chosen.of[paper.id]) for paper in context.newest]
    pages: list[dict[str, Any]] = []
    for head in catalogue.heads.values():
        pages.append({"kind": "head type", "url": f"heads/{head.id}.html", "names": [head.name, *head.aliases]})
    for page in model_pages(context):
        pages.append({"kind": "model", "url": page.path, "names": [page.name, *page.others]})
    for kind, entries in (("circuit", catalogue.circuits), ("method", catalogue.methods), ("benchmark", catalogue.benchmarks)):  # fmt: skip
        for id_, entry in entries.items():
            pages.append({"kind": kind, "url": f"{kind}s/{id_}.html", "names": [entry.name]})
    return f"var headatlasIndex = {as_script({'papers': papers, 'pages': pages})};\n"


def _document(context: SiteContext, paper: Paper, values: Mapping[str, list[str]]) -> dict[str, Any]:
    catalogue = context.catalogue
    heads = [catalogue.heads[id_] for id_ in values["head"]]
    about = [name for head in heads for name in (head.name, *head.aliases)]
    about += [catalogue.methods[id_].name for id_ in values["method"]]
    about += [catalogue.benchmarks[id_].name for id_ in paper.benchmarks]
    about += [*paper.models, *venues(paper), *([paper.arxiv] if paper.arxiv else [])]
    summary = paper.summary
    return {
        "id": paper.id,
        "date": paper.date.isoformat(),
        "name": [paper.title],
        "authors": paper.authors,
        "about": _unique(about),
        "summary": [summary.innovation, summary.tasks, summary.result] if summary else [],
        "notes": [*paper.notes, *paper.tags, paper_url(paper)],
        "facets": {key: own for key, own in values.items() if own},
    }


def as_script(value: Any) -> str:
    """JSON that may stand in a script, also one within a page: nothing in it can end the script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
