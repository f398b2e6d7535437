"""`papers import-issue` with the plain form of the list that the catalogue sprang from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headatlas.catalogue.curation.issue_form import import_form
from headatlas.catalogue.curation.target import open_target
from tests.catalogue.curation.test_import_issue import GOOD, problems


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An empty folder of one's own."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def list_form(**changes: str | None) -> str:
    """A filled-in form of the list that the catalogue sprang from, as GitHub keeps it; None leaves a heading out."""
    values: dict[str, str | None] = {
        "Title": GOOD["Title"],
        "Published_Date": "2025-02-20",
        "Source": "arXiv (https://arxiv.org/abs/2502.99991)",
        "Head_Name": "Induction Head, Previous Token Head",
        "Summary": f"- Innovation: {GOOD['Innovation']}\n- Tasks: Repeated words\nin GPT-2 small.\n"
        f"- Significant Result: {GOOD['Result']}",
        **changes,
    }
    return "".join(f"### {key}\n\n{value}\n\n" for key, value in values.items() if value is not None)


@pytest.mark.parametrize(
    ("source", "venue", "links"),
    [
        ("arXiv (https://arxiv.org/abs/2502.99991)", "arXiv", ["https://arxiv.org/abs/2502.99991"]),
        ("arXiv:2502.99991", "arXiv", ["https://arxiv.org/abs/2502.99991"]),
        (
            "ICLR 2025, https://arxiv.org/abs/2502.99991, https://github.com/example/echo",
            "ICLR 2025",
            ["https://arxiv.org/abs/2502.99991", "https://github.com/example/echo"],
        ),
    ],
)
def test_the_form_of_the_first_list_is_taken_too(small: Path, source: str, venue: str, links: list[str]) -> None:
    path = small.parent / "form.md"
    path.write_text(list_form(Source=source), encoding="utf-8")
    paper = import_form(path, target=open_target(small)).paper
    assert (paper.venue, [link.url for link in paper.links], paper.arxiv) == (venue, links, "2502.99991")
    assert paper.heads == ["induction-head", "previous-head"]
    assert paper.summary is not None
    assert (paper.summary.tasks, paper.summary.result) == ("Repeated words in GPT-2 small.", GOOD["Result"])
    assert paper.summary.evidence == ["secondary"]  # the form does not ask what was read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Source": "arXiv"}, "Link is missing.*under Source"),
        ({"Published_Date": "September"}, "Date is 'September'"),
        ({"Summary": "They found heads."}, "Innovation is missing"),
        ({"Head_Name": None}, "Head types is missing"),
    ],
)
def test_what_the_first_lists_form_lacks_is_named(small: Path, changes: dict[str, str | None], message: str) -> None:
    assert re.search(message, problems(small, list_form(**changes)))
