"""docs/lab.md says what the lab can do: its kinds, its commands and its numbers."""

from __future__ import annotations

import re
import shlex

import pytest

from headatlas.catalogue import load
from headatlas.lab.accuracy import SIZES, STRENGTHS
from headatlas.lab.head import Head
from headatlas.lab.measure import read
from headatlas.lab.planted import plant
from headatlas.lab.spec import PlantSpec, kinds, parse_head
from tests import pages

PAGE = pages.text("lab.md")
ROWS = {cells[1]: cells for cells in (line.split("|") for line in PAGE.splitlines()) if len(cells) > 2}


def cell(text):
    return [part.strip(" `") for part in text.split("/")]


def test_every_kind_is_explained_with_its_options():
    for name, kind in kinds().items():
        cells = ROWS[f" `{name}` "]
        assert {part.strip(" `") for part in cells[4].split(",")} == set(kind.options or ("",))


def test_every_kind_goes_by_a_name_of_the_catalogue():
    known = load().heads
    for kind in kinds().values():
        assert kind.head_type is None or kind.head_type in known, kind.name


def test_the_commands_shown_are_valid():
    shown = re.findall(r"^headatlas plant (.+?) --out", PAGE, flags=re.M)
    assert shown
    for line in shown:
        PlantSpec(tuple(parse_head(text) for text in shlex.split(line)))


@pytest.mark.parametrize("kind", ["previous", "positional", "current", "delimiter", "sink"])
def test_the_table_holds_the_numbers_that_are_measured(kind):
    cells = ROWS[f" {kind} "]
    options = {"offset": 7} if kind == "positional" else {}
    for column, strength in enumerate(STRENGTHS, start=2):
        for place, sizes in enumerate(SIZES[:2]):
            head = Head(0, 0, kind, strength, **options)
            measured = read(plant(PlantSpec((head,)), n_layers=1, **sizes), head).attention
            assert float(cell(cells[column])[place]) == pytest.approx(measured, abs=0.011)
