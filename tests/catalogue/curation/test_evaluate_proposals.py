"""Precision and recall of what is proposed for papers: counted on three papers by hand, and as the page says on ours."""

from __future__ import annotations

import dataclasses
import datetime
import math
from pathlib import Path

import pytest

from headatlas.catalogue import load
from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.curation.evaluate_proposals import Agreement, as_table, evaluate_proposals
from headatlas.catalogue.schema import Paper, Summary

PAGE = (Path(__file__).parents[3] / "docs" / "contributing-papers.md").read_text(encoding="utf-8")


def paper(id: str, title: str, year: int, heads: list[str]) -> Paper:
    summary = Summary(innovation="New.", tasks="Texts.", result="It works.", evidence=["abstract"])
    day = datetime.date(year, 1, 1)
    known = load().papers["wu-2024-retrieval-head"]
    return known.model_copy(
        update={
            "id": id,
            "title": title,
            "date": day,
            "heads": heads,
            "summary": summary,
            "models": [],
            "benchmarks": [],
            "methods": [],
        }
    )


@pytest.fixture(scope="module")
def three() -> Catalogue:
    papers = [
        paper("a", "Retrieval heads in long texts", 2020, ["retrieval-head"]),
        paper("b", "Induction heads and retrieval heads", 2021, ["induction-head"]),  # one right, one wrong
        paper("c", "What reads", 2022, ["induction-head", "retrieval-head", "safety-head"]),  # two missed, one unknown
    ]
    return dataclasses.replace(load(), papers={one.id: one for one in papers})


def test_what_is_right_wrong_and_missed_is_counted(three: Catalogue):
    found = {(one.read_by, one.kind): one for one in evaluate_proposals(three, datetime.date(2022, 1, 1))}
    every = found["all the others", "head types, named outright"]
    assert (every.right, every.proposed, every.wanted) == (2, 3, 4)
    assert every.precision[0] == pytest.approx(2 / 3)
    assert every.precision[1] < 2 / 3 < every.precision[2]
    stages = found["all the others", "stages"]  # of b both stages are proposed, and c has two that nothing names
    assert (stages.right, stages.proposed, stages.wanted) == (2, 3, 4)
    late = found["the old ones", "head types, named outright"]
    assert (late.right, late.proposed, late.wanted) == (0, 0, 2)
    assert math.isnan(late.precision[0])
    assert "| - | 0.00" in as_table([late])


def test_the_page_has_the_numbers_of_our_data():
    for line in as_table(evaluate_proposals(load())).splitlines():
        assert line in PAGE, line


def test_a_share_stands_within_its_interval():
    one = Agreement("x", "y", 8, 10, 16)
    assert [round(value, 3) for value in (*one.precision, *one.recall)] == [0.8, 0.49, 0.943, 0.5, 0.28, 0.72]
