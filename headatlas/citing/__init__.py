"""What to cite: headatlas, the survey that it is built on, and the works behind detectors, tasks, methods and finished runs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from headatlas.atlas import Atlas
from headatlas.catalogue import load
from headatlas.catalogue.describe import find
from headatlas.catalogue.export.bibtex import bibtex
from headatlas.catalogue.extras import SURVEY
from headatlas.catalogue.own import own_head_type
from headatlas.catalogue.schema import Paper
from headatlas.errors import StoreError, UnknownName
from headatlas.overview import list_known
from headatlas.reading import Name, Open, checked
from headatlas.registry import did_you_mean
from headatlas.store import of_run, read_json, write_text
from headatlas.tasks._names import task_names
from headatlas.version import __version__

SOFTWARE = f"""@software{{headatlas,
  title = {{headatlas: what the attention heads of a transformer do}},
  author = {{{{The headatlas maintainers}}}},
  version = {{{__version__}}},
  year = {{2026}},
}}
"""
_HELD_OUT = "-held-out"


class _Sweep(Open):
    """What is needed of effects.json: what was done to heads, and on which task."""

    kind: Name
    run: dict[str, Any]


class _Known(NamedTuple):
    """Ids of works behind each method and each task (its name may end in *), and the works that the catalogue lacks."""

    methods: Mapping[str, list[str]]
    tasks: Mapping[str, list[str]]
    works: Mapping[str, Paper]


@functools.cache
def _known() -> _Known:
    found = yaml.safe_load((Path(__file__).parent / "works.yaml").read_text(encoding="utf-8"))
    works = {work["id"]: Paper.model_validate(work) for work in found["works"]}
    return _Known(found["methods"], found["tasks"], works)


def cite(*what: str | Path, out: str | Path | None = None) -> str:
    """BibTeX of headatlas, of the survey whose head types it looks for, and of the works behind what was used.

    what: detectors, tasks, methods (as in Python or on the command line), entries of the catalogue (head types, papers,
    circuits ...), run folders of `mine` and of sweeps, files of circuits; nothing: headatlas and the survey alone. A
    detector stands for the papers on its head type, a run for its detectors and tasks. out: a file to write to. Every work
    comes once, first the software, the survey second, the others oldest first. Raises UnknownName, StoreError.
    """
    papers = {paper.id: paper for one in what for paper in _behind(one)}
    papers.pop(SURVEY, None)
    ordered = sorted(papers.values(), key=lambda paper: (paper.date, paper.id))
    text = f"{SOFTWARE}\n{bibtex([load().papers[SURVEY], *ordered])}"
    if out is not None:
        write_text(Path(out), text)
    return text


def _behind(what: str | Path) -> Iterator[Paper]:
    """The works behind one thing that was used."""
    place = Path(what)
    if isinstance(what, Path) or place.is_dir() or place.suffix == ".json":
        yield from _of_files(place)
        return
    detectors = {row["name"]: row for row in list_known("detectors")}
    if what in detectors:
        yield from _of_detector(detectors[what]["head_type"], detectors[what]["task"])
    elif what in task_names():
        yield from _of_task(what)
    elif what.replace("-", "_") in _known().methods:
        yield from _named(_known().methods[what.replace("-", "_")])
    else:
        yield from _of_entry(what, [*detectors, *task_names(), *_known().methods])


def _of_files(place: Path) -> Iterator[Paper]:
    if place.is_file():  # a circuit, or its test
        data = read_json(place)
        if not str(data.get("schema")).startswith("headatlas/circuit"):
            raise StoreError(f"{place} holds no circuit.", "Name a run folder, or a file of `headatlas circuit --out`.")
        protocol = data.get("protocol")
        yield from _of_method("circuit", protocol.get("task") if isinstance(protocol, dict) else data.get("task"))
        return
    atlas = Atlas(place)
    for run in atlas.runs:
        for found in Atlas(run).data["detectors"]:
            yield from _of_detector(found["head_type"], found["task"])
    for folder in atlas.sweeps:
        sweep = checked(read_json(folder / "effects.json"), _Sweep, of_run(folder / "effects.json"))
        patched = "path" if sweep["run"].get("method") == "path patching" else "patch"
        yield from _of_method("ablate" if sweep["kind"] == "ablation" else patched, sweep["run"].get("task"))


def _of_method(method: str, task: Any) -> Iterator[Paper]:
    yield from _named(_known().methods[method])
    if task in task_names():
        yield from _of_task(str(task))


def _of_detector(head_type: str, task: str) -> Iterator[Paper]:
    if own_head_type(head_type) is None and head_type in load().heads:  # a user's own kind has no papers
        yield from load().papers_for(head_type)
    yield from _of_task(task)


def _of_task(name: str) -> Iterator[Paper]:
    for pattern, ids in _known().tasks.items():
        if fnmatchcase(name.removesuffix(_HELD_OUT), pattern):
            yield from _named(ids)


def _named(ids: Iterable[str]) -> Iterator[Paper]:
    yield from (_known().works.get(id_) or load().papers[id_] for id_ in ids)


def _of_entry(name: str, others: Iterable[str]) -> Iterator[Paper]:
    """The works behind an entry of the catalogue. Raises UnknownName with the nearest of everything that can be cited."""
    catalogue = load()
    try:
        kind, id_ = find(catalogue, name)
    except UnknownName as error:
        hint = did_you_mean(name, others) or error.hint
        raise UnknownName(f"Nothing to cite is called '{name}'.", f"{hint} Or name a run folder.") from None
    if kind == "paper":
        yield catalogue.papers[id_]
    elif kind == "head type":
        yield from catalogue.papers_for(id_)
    elif kind == "method":
        yield from catalogue.papers_with_method(id_)
    elif kind == "benchmark":
        yield from catalogue.papers_on_benchmark(id_)
    elif kind in ("circuit", "claim"):
        entry = catalogue.circuits[id_] if kind == "circuit" else catalogue.claims[id_]
        yield catalogue.papers[entry.paper]
    else:  # a stage is the survey's
        yield load().papers[SURVEY]
