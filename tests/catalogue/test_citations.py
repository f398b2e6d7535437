"""Detectors cite the papers whose formula they implement; a head type has a detector, or a reason why it has none."""

from __future__ import annotations

import pytest

from headatlas.catalogue import load
from headatlas.catalogue.describe import page
from headatlas.catalogue.detector_names import declared, detector_names
from headatlas.catalogue.files.citations import citations, cited, detectors_citing, formula
from headatlas.detector import detectors
from headatlas.overview import list_known

# Works that formulas rest on and that the list does not hold.
OUTSIDE = {("Kovaleva", "", 2019, False), ("Xiao", "", 2023, False), ("Och", "Ney", 2003, False)}
# Head types whose detectors are being built: for these no reason counts.
BEING_BUILT = {
    "accuracy-head", "amplification-head", "cmr-like-head", "coherence-head", "consistency-head",
    "constant-head", "content-gatherer-head", "correct-head", "direct-effect-head", "faithfulness-head",
    "global-retrieval-head", "in-context-head", "mover-head", "semantic-induction-head", "single-letter-head",
    "vulnerable-head",
}  # fmt: skip


@pytest.mark.parametrize("head_type", sorted(load().heads))
def test_a_head_type_has_a_detector_or_a_reason_why_it_has_none(head_type: str):
    measured, reason = head_type in detector_names(), load().heads[head_type].reason
    if head_type in BEING_BUILT:
        assert reason is None, "it can be measured: no reason holds"
    else:
        assert measured != bool(reason), "neither detector nor reason" if not measured else "a reason beside a detector"


def test_what_is_being_built_are_head_types():
    assert set(load().heads) >= BEING_BUILT


def test_files_and_objects_tell_the_same_of_detectors():
    ours = {one.name: one for one in detectors().values() if one.module.startswith("headatlas.")}
    assert {one.name: (one.head_type, formula(one.doc)) for one in declared()} == {
        name: (one.head_type, one.about["formula"]) for name, one in ours.items()
    }


@pytest.mark.parametrize("one", declared(), ids=lambda one: one.name)
def test_each_work_that_a_formula_cites_is_a_paper_of_the_list_or_known_outside_it(one):
    named = set(citations(formula(one.doc))) - OUTSIDE
    assert len(cited(load(), formula(one.doc), one.head_type)) == len(named), named


def test_a_detector_cites_what_it_measures_and_not_what_knows_its_head_type():
    papers = detectors_citing(load())
    citing = {name: {paper for paper, names in papers.items() if name in names} for name in detectors()}
    assert citing["induction"] == {"olsson-2022-induction-heads", "elhage-2021-mathematical-framework"}
    assert citing["retrieval"] == {"wu-2024-retrieval-head"}
    assert citing["delimiter"] == {"pande-2021-heads-hypothesis"}
    assert citing["negative"] == {"yu-2024-negative-attention-score"}  # another Yu of 2024 wrote of another head type
    assert citing["memory"] == {"jin-2024-knowledge-conflict-ph3"}


@pytest.mark.parametrize(
    ("text", "papers"),
    [
        ("(Wang et al. 2022, section 3.1)", ["wang-2023-ioi"]),  # by the preprint's year
        ("Wang et al. 2023", ["wang-2023-ioi"]),  # and by the venue's
        ("García-Carrasco et al. 2024 on acronyms", ["garcia-carrasco-2024-acronyms"]),
        ("Garcia-Carrasco et al. 2024", ["garcia-carrasco-2024-acronyms"]),
        ("Yu et al. 2024", []),  # two papers, and nothing says which
        ("Yu and Ananiadou 2024", []),  # they wrote two
        ("Ferrando & Voita\n2024", ["ferrando-2024-information-flow-routes"]),
        ("Ferrando and Nobody 2024", []),
        ("Nobody et al. 2024", []),
        ("(Luo 2021)", ["luo-2021-constituency-grammar"]),  # who wrote alone
        ("Wang 2022", []),  # who did not
        ("In 2021 and Layer 2021", []),
        ("et al. 2024 and the year 2024", []),
    ],
)
def test_names_and_years_are_read_as_papers(text: str, papers: list[str]):
    near = "letter-mover-head" if "Carrasco" in text else None
    assert list(cited(load(), text, near)) == papers


def test_attention_on_the_first_token_is_no_active_dormant_head():
    assert detector_names()["active-dormant-head"] == ("active-dormant",)
    assert detector_names()["attention-sink-head"] == ("attention-sink",)


def test_lists_and_pages_show_detectors_by_what_they_cite_and_reasons():
    reason = load().heads["safety-head"].reason
    rows = {row["name"]: row for row in list_known("head-types")}
    assert (rows["safety-head"]["detectors"], rows["safety-head"]["reason"]) == ("", reason)
    assert (rows["memory-head"]["detectors"], rows["memory-head"]["reason"]) == ("memory", "")
    listed = {row["name"]: row["papers"] for row in list_known("detectors")}
    assert listed["retrieval"] == ["wu-2024-retrieval-head"]
    assert ("No detector", reason) in page(load(), "head type", "safety-head").facts
    assert ("Detectors", "context, memory") in page(load(), "paper", "jin-2024-knowledge-conflict-ph3").facts
    assert ("Does not run", load().papers["gu-2016-copynet"].reason) in page(load(), "paper", "gu-2016-copynet").facts


def test_tags_stand_as_the_list_prints_them():
    papers = load().papers
    assert "Answer Head" in load().tags_of(papers["wiegreffe-2024-answer-assemble-ace"]).values()
    assert "BPE-merging Head" in load().tags_of(papers["correia-2019-adaptively-sparse"]).values()
    assert load().tags_of(papers["wang-2023-ioi"])["inhibition-head"] == "S-Inhibition Head"
    assert load().tags_of(papers["ji-an-2024-cmr-episodic-memory"]) == {
        "cmr-like-head": "CMR like Head", "induction-head": "Induction Head"
    }  # fmt: skip


@pytest.mark.parametrize("paper", sorted(load().papers))
def test_each_tag_is_a_name_of_one_of_the_papers_head_types(paper: str):
    entry = load().papers[paper]
    tags = load().tags_of(entry)
    assert list(tags) == entry.heads
    for tag in entry.tags:
        assert tags[load().head_names.find(tag)] == tag
