"""`papers search`: what people type finds what they mean."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headatlas.catalogue import load
from headatlas.catalogue.search import search, words
from headatlas.cli.papers import app
from headatlas.errors import BadInput


def found(query: str, limit: int = 5) -> list[str]:
    return [hit.id for hit in search(load(), query, limit=limit).hits]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("induction head", "induction-head"),
        ("induction", "induction-head"),
        ("s-inhibition", "inhibition-head"),  # an alias
        ("subject inhibition head", "inhibition-head"),
        ("previous token head", "previous-head"),
        ("retrival heads", "retrieval-head"),  # misspelt
        ("successsor head", "successor-head"),
        ("indirect object identification in the wild", "wang-2023-ioi"),
        ("olsson induction", "olsson-2022-induction-heads"),  # author and topic
        ("Olson in-context", "olsson-2022-induction-heads"),  # misspelt author
        ("2501.12959", "ehpc-evaluator-heads"),
        ("comprehensive copy suppression mcdougall", "mcdougall-2023-copy-suppression"),
        ("greater than years", "greater-than"),
        ("copy suppression", "copy-suppression-head"),
        ("mean ablation", "mean-ablation"),
        ("truthfulqa", "truthfulqa"),
    ],
)
def test_the_first_hit_is_what_was_meant(query: str, first: str):
    assert found(query)[0] == first


def test_an_author_is_found_with_and_without_accents():
    catalogue = load()
    assert "barbero-2024-rope-frequencies" in found("Veličković")
    assert "barbero-2024-rope-frequencies" in found("velickovic")
    nanda = {paper.id for paper in catalogue.papers.values() if "Neel Nanda" in paper.authors}
    assert nanda <= set(found("neel nanda", limit=len(nanda) + 3))


def test_every_head_type_is_among_the_first_hits_for_its_name_and_aliases():
    missed = [
        (head.id, name)
        for head in load().heads.values()
        for name in (head.name, *head.aliases)
        if head.id not in found(name, limit=2)
    ]
    assert missed == []


def test_every_paper_is_first_for_its_title():
    assert [paper.id for paper in load().papers.values() if found(paper.title)[0] != paper.id] == []


def test_nearly_every_misspelt_title_word_is_still_understood():
    """The longest word of each title with its third letter dropped."""
    papers = list(load().papers.values())
    hits = 0
    for paper in papers:
        long = max(words(paper.title), key=len)
        hits += paper.id in found(paper.title.lower().replace(long, long[:2] + long[3:]), limit=3)
    assert hits >= 0.97 * len(papers)


def test_what_was_understood_is_said():
    result = search(load(), "retrival")
    assert result.corrected == {"retrival": ("retrieval",)}
    text = CliRunner().invoke(app, ["search", "retrival"]).output
    assert text.startswith("'retrival' is not in the catalogue; searched for: retrieval.")


def test_entries_with_all_words_come_before_those_with_one():
    hits = search(load(), "sentiment nanda").hits
    assert hits[0].id == "tigges-2023-linear-sentiment"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_nothing_fits_nonsense_and_signs_are_refused():
    assert found("qqqqzzzz") == []
    assert "Nothing fits 'qqqqzzzz'." in CliRunner().invoke(app, ["search", "qqqqzzzz"]).output
    with pytest.raises(BadInput, match="has no word to search for"):
        search(load(), "?!")


def test_words_that_say_nothing_do_not_count():
    assert found("what is the induction head") == found("induction head")


def test_hits_are_limited_and_given_as_json(sample: Path):
    result = CliRunner().invoke(app, ["search", "heads", "repeat", "--limit", "2", "--json", "--data", str(sample)])
    data = json.loads(result.output)
    assert len(data["hits"]) == 2
    assert set(data["hits"][0]) == {"kind", "id", "title", "score", "snippet"}


def test_a_search_takes_less_than_half_a_second():
    load()
    spent = []
    for _ in range(3):  # the best of them: it takes 0.07 s, and seven times that where others fill the machine
        start = time.process_time()
        search(load(), "misspeled induction hedas")
        spent.append(time.process_time() - start)
    assert min(spent) < 0.5
