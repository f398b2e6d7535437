"""`papers bib`: BibTeX that a BibTeX library reads back to the same papers."""

from __future__ import annotations

import codecs
import doctest
import re
import unicodedata
from pathlib import Path

import latexcodec  # noqa: F401  (registers the ulatex codec, which reads LaTeX's accents)
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pybtex.database import BibliographyData, parse_string
from typer.testing import CliRunner

from headatlas.catalogue import load, names, search
from headatlas.catalogue.export import bibtex as bibtex_module
from headatlas.catalogue.export.bibtex import bibtex, chosen, entry, latex
from headatlas.catalogue.filters import newest_first
from headatlas.catalogue.rules import papers as papers_rules
from headatlas.catalogue.schema import Paper
from headatlas.cli.papers import app

_NAMED = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textbraceleft": "{",
    "textbraceright": "}",
    "textless": "<",
    "textgreater": ">",
    "ldots": "…",
}


def parsed(text: str) -> BibliographyData:
    return parse_string(text, "bibtex")


def plain(field: str) -> str:
    """What a BibTeX field shows: names for signs, then accents, then braces away."""
    field = re.sub(r"\{?\\(" + "|".join(_NAMED) + r")(?:\{\}|\})", lambda m: f"\0{list(_NAMED).index(m[1])}\0", field)
    shown = codecs.decode(field.replace("\\$", "$"), "ulatex").replace("{", "").replace("}", "")
    shown = re.sub("\0(\\d+)\0", lambda m: list(_NAMED.values())[int(m[1])], shown)
    return unicodedata.normalize("NFC", shown)


def title_of(paper: Paper) -> str:
    """The title as BibTeX writes it: apostrophes are straight."""
    return unicodedata.normalize("NFC", " ".join(paper.title.split())).replace("’", "'")


def test_our_papers_read_back_are_our_papers():
    catalogue = load()
    found = parsed(bibtex(newest_first(catalogue.papers.values())))
    assert set(found.entries) == set(catalogue.papers)
    for id_, item in found.entries.items():
        paper = catalogue.papers[id_]
        assert plain(item.fields["title"]) == title_of(paper)
        authors = [plain(str(person)) for person in item.persons.get("author", [])]
        assert len(authors) == len(paper.authors)
        for written, author in zip(authors, paper.authors, strict=True):
            assert set(re.findall(r"\w+", written)) == set(re.findall(r"\w+", author)), id_
        assert item.fields.get("eprint") == paper.arxiv
        assert item.fields.get("doi") == paper.doi
        assert item.fields["url"] in {link.url for link in paper.links}
        assert int(item.fields["year"]) >= paper.date.year or paper.venue


def test_output_is_ascii_where_latex_has_the_sign():
    text = bibtex(load().papers.values())
    assert [sign for sign in text if not sign.isascii()] == []


def test_proceedings_are_named_and_preprints_are_not_proceedings():
    catalogue = load()
    found = parsed(bibtex(catalogue.papers.values())).entries
    ioi = found["wang-2023-ioi"]
    assert (ioi.type, ioi.fields["booktitle"], ioi.fields["year"]) == ("inproceedings", "ICLR 2023", "2023")
    for id_, item in found.items():
        assert item.type in ("inproceedings", "article", "misc")
        where = item.fields.get("booktitle", item.fields.get("journal", ""))
        assert "arxiv" not in where.lower(), id_


def test_capitals_inside_words_are_protected():
    paper = next(iter(load().papers.values())).model_copy(
        update={"title": "What GPT-2 and LLMs Do: HeadKV and In-Context Learning with K/V"}
    )
    title = re.search(r"title = \{(.*)\},", entry(paper))
    assert title is not None
    assert title[1] == "What {GPT-2} and {LLMs} Do: {HeadKV} and In-Context Learning with {K/V}"


@pytest.mark.parametrize(
    "title",
    [
        "100% of $5 & #1_a ~ ^ \\ {x} } {",
        "Unbalanced } brace @article{x, title={y}}",
        "\\input{/etc/passwd} \\write18{rm -rf}",
        'Quotes " inside "',
        "Zażółć gęślą jaźń Ångström Øre ß naïve Čapek ễ 中文 λ",
        "comma, and and = # sign",
    ],
)
def test_hostile_titles_stay_titles(title: str):
    paper = next(iter(load().papers.values())).model_copy(update={"title": title})
    found = parsed(bibtex([paper, next(iter(list(load().papers.values())[1:]))]))
    assert len(found.entries) == 2
    item = found.entries[paper.id]
    assert plain(item.fields["title"]) == title
    assert set(item.fields) <= {
        *("title", "booktitle", "journal", "howpublished", "year", "month", "doi"),
        *("eprint", "archiveprefix", "url", "key"),
    }
    assert "\\input" not in item.fields["title"]
    assert "\\write" not in item.fields["title"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp"]), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_braces_balance_whatever_the_text(text: str):
    depth = 0
    for sign in latex(text):
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0


def test_a_name_with_a_comma_stays_one_author():
    paper = next(iter(load().papers.values())).model_copy(
        update={"authors": ["Research and Company, Inc.", "Ada Lovelace"]}
    )
    assert len(parsed(entry(paper)).entries[paper.id].persons["author"]) == 2


def test_an_unknown_author_leaves_a_key_to_sort_by():
    paper = next(iter(load().papers.values())).model_copy(update={"authors": []})
    fields = parsed(entry(paper)).entries[paper.id]
    assert "author" not in fields.persons
    assert plain(fields.fields["key"]) == paper.title


def test_chosen_papers_come_in_the_order_asked(sample: Path, tmp_path: Path):
    catalogue = load(sample)
    assert [paper.id for paper in chosen(catalogue, ["names move", "2403.01234"])] == [
        "poe-2025-names",
        "roe-2024-patterns",
    ]
    out = tmp_path / "some.bib"
    CliRunner().invoke(app, ["bib", "doe-2019-words", "--out", str(out), "--data", str(sample)])
    assert list(parsed(out.read_text()).entries) == ["doe-2019-words"]
    wrong = CliRunner().invoke(app, ["bib", "mover-head", "--data", str(sample)])
    assert "'mover-head' is a head type, not a paper" in str(wrong.exception)


def test_the_examples_in_the_docstrings_hold():
    for module in (bibtex_module, names, search, papers_rules):
        assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
