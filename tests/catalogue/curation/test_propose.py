"""Proposals: which head types, methods, models and benchmarks a text names, and the words that say so."""

from __future__ import annotations

import time

import pytest

from headatlas.catalogue.curation.propose import head_types, method_phrases, propose
from headatlas.catalogue.gather import gather
from headatlas.catalogue.schema import HeadType

CATALOGUE = gather().catalogue()
HEADS = list(CATALOGUE.heads.values())


def sure(text: str) -> set[str]:
    return {proposal.id for proposal in head_types("", text, HEADS) if proposal.sure}


def unsure(text: str) -> set[str]:
    return {proposal.id for proposal in head_types("", text, HEADS) if not proposal.sure}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We find induction heads.", {"induction-head"}),
        ("INDUCTION-HEADS matter", {"induction-head"}),
        ("previous-token attention heads", {"previous-head"}),
        ("an S-inhibition head", {"inhibition-head"}),
        ("Retrieval and streaming heads differ", {"retrieval-head", "streaming-head"}),
        ("backup name mover heads", {"backup-name-mover-head"}),
        ("semantic induction heads", {"semantic-induction-head"}),
        ("in-context heads", {"in-context-head"}),
        ("function vectors transfer", {"function-vector"}),
        ("an associative memory view", {"associative-memories"}),
        ("The context matters, and several attention heads do so", set()),
        ("We train on induction. Heads are pruned.", set()),
        ("subheads of induction", set()),
        ("nothing of the kind", set()),
        ("", set()),
    ],
)
def test_head_types_are_found_as_papers_write_them(text: str, expected: set[str]) -> None:
    assert sure(text) == expected


def test_a_touched_topic_is_only_a_hint() -> None:
    assert unsure("Copy suppression explains it.") == {"copy-suppression-head"}
    assert sure("Copy suppression explains it.") == set()


def test_each_head_type_is_found_by_each_of_its_names() -> None:
    missed = [
        (head.id, name)
        for head in HEADS
        for name in (head.name, *head.aliases)
        if head.id not in sure(f"We study the {name} of models.") | unsure(f"We study the {name} of models.")
    ]
    assert missed == []


def test_the_quote_is_the_text_itself_and_the_title_comes_first() -> None:
    (proposal,) = head_types("Safety Heads", "safety heads again", HEADS)
    assert (proposal.place, proposal.quote) == ("title", "Safety Heads")
    assert proposal.reason == 'the title says "Safety Heads"'


def test_signs_in_a_name_are_no_patterns() -> None:
    odd = HeadType.model_validate({**HEADS[0].model_dump(), "id": "odd", "name": "A.* (b) Head"})
    assert [p.id for p in head_types("", "an a-b head", [odd])] == ["odd"]
    assert head_types("", "anything b head", [odd]) == []


def test_methods_models_and_benchmarks_are_named_with_their_words() -> None:
    found = propose(
        "Knocking out heads",
        "Zero-ablating heads of GPT-2 small and causal tracing on TruthfulQA.",
        heads=HEADS,
        methods=CATALOGUE.methods.values(),
        benchmarks=CATALOGUE.benchmarks.values(),
        papers=CATALOGUE.papers.values(),
    )
    named = {(proposal.kind, proposal.id): proposal.quote for proposal in found}
    assert named["methods", "zero-ablation"] == "Zero-ablating"
    assert ("models", "GPT-2 small") in named
    assert named["benchmarks", "truthfulqa"] == "TruthfulQA"
    assert ("methods", "mean-ablation") not in named


def test_models_are_named_once_and_by_their_longest_name() -> None:
    papers = [
        CATALOGUE.papers["wu-2024-retrieval-head"].model_copy(
            update={"models": ["Llama 2", "Llama-2", "Llama-2-7B", "Mistral", "GPT", "Pythia-1.4B"]}
        )
    ]
    text = "Llama-2-7B, Mistral-7B, and later Llama-2; Llama-2.5 and GPTs are left out, Pythia-1.4B is not."
    found = propose("", text, heads=[], papers=papers)
    assert {proposal.id for proposal in found} == {"Llama-2-7B", "Mistral", "Llama-2", "Pythia-1.4B"}


def test_every_listed_method_exists() -> None:
    assert set(method_phrases()) <= set(CATALOGUE.methods)


def test_long_hostile_texts_take_no_time() -> None:
    text = "induction " + "and a, " * 20_000 + "name mover " * 5_000 + "heads"
    start = time.monotonic()
    assert sure(text) >= {"name-mover-head"}
    assert time.monotonic() - start < 5
