"""Every text class of the installed transformers tried: which open, which are refused and why; and their page."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import transformers

from headatlas.errors import HeadAtlasError
from headatlas.model import loading
from headatlas.model.families.build import CannotBuild, FamilyRow, family_row, family_rows
from headatlas.model.families.mechanisms import mechanisms
from headatlas.model.families.support_table import table


@dataclass(frozen=True)
class Answer:
    """What came of one row.

    status: works, refused, fails (an error that should have been a message), or not built, with `why`. kind: what
    transformers' mappings say the class is; mechanisms: what its attention is made of.
    """

    name: str
    kind: str
    mechanisms: tuple[str, ...]
    status: str
    why: str = ""
    stacks: tuple[str, ...] = ()


def chosen(names: Sequence[str] = ()) -> tuple[FamilyRow, ...]:
    """The rows called `names`, or all of them. Raises UnknownName with the nearest."""
    return tuple(family_row(name) for name in names) if names else family_rows()


def answers(rows: Iterable[FamilyRow]) -> Iterator[Answer]:
    """Try each row, one after another; about half a second each."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for row in rows:
                yield answer(row)
    finally:
        transformers.logging.set_verbosity(verbosity)


def answer(row: FamilyRow) -> Answer:
    """Try one row: it is built and opened, which runs the self-check."""
    kind = row.text_class.kind
    try:
        hf = row.build()
    except CannotBuild as error:
        return Answer(row.name, kind, (), "not built", str(error))
    found = mechanisms(hf)
    try:
        model = loading.attach(hf, anew=True)
    except HeadAtlasError as error:
        return Answer(row.name, kind, found, "refused", error.message)
    except Exception as error:  # the page tells of faults as well
        return Answer(row.name, kind, found, "fails", f"{type(error).__name__}: {error}")
    return Answer(row.name, kind, found, "works", stacks=model.stacks)


def as_json(found: Iterable[Answer]) -> dict[str, Any]:
    """The answers as plain data."""
    return {"classes": [vars(line) for line in found]}


WORKS: Mapping[str, Callable[[Answer], str]] = {
    "Class": lambda line: f"`{line.name}`",
    "Kind": lambda line: line.kind,
    "Stacks": lambda line: ", ".join(line.stacks),
    "Mechanisms": lambda line: ", ".join(line.mechanisms),
}
OTHERS: Mapping[str, Callable[[Answer], str]] = {
    "Class": lambda line: f"`{line.name}`",
    "Kind": lambda line: line.kind,
    "Mechanisms": lambda line: ", ".join(line.mechanisms),
    "Why": lambda line: " ".join(line.why.split()).replace("|", "/")[:240],
}


def section(found: Sequence[Answer]) -> str:
    """The part of docs/models.md about every text class."""
    works = [line for line in found if line.status == "works"]
    refused = [line for line in found if line.status == "refused"]
    fails = [line for line in found if line.status == "fails"]
    unbuilt = sum(line.status == "not built" for line in found)
    text = SECTION.format(
        version=transformers.__version__,
        n_works=len(works),
        n_refused=len(refused),
        n_unbuilt=unbuilt,
        works="\n".join(table(works, WORKS)),
        refused="\n".join(table(refused, OTHERS)),
    )
    return text + (FAILS.format(n=len(fails), fails="\n".join(table(fails, OTHERS))) if fails else "")


SECTION = """
## Every text class of transformers {version}

Beyond the families above, which have recipes written by hand, `headatlas families --every-class` builds a tiny model of every
class of transformers that reads text, by its configuration's own field names, and opens it. `make test-families`
compares each row that opens with untouched copies of it that no part of headatlas has touched: output, attention
weights, a zeroed head, an edited pattern, an edited residual stream, padding, cached generation and half precision; and
for each row that is refused, whether some of its attention really does not come through transformers' attention
interface. {n_unbuilt} classes are left out because they need more than text, or a library that is not installed.

### {n_works} classes that work

{works}

### {n_refused} classes that are refused

{refused}
"""
FAILS = """
### {n} classes that fail

{fails}
"""
