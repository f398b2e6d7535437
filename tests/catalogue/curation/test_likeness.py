"""The likeness score: made of parts that can be shown, and good enough to find papers that were left out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headatlas.catalogue.curation.evaluate_watch import Quality, _quality, as_table, evaluate, made_up_papers
from headatlas.catalogue.curation.likeness import NAME_BONUS, Scorer, paper_text, terms
from headatlas.catalogue.gather import FOLDER, gather
from headatlas.cli import main
from headatlas.errors import BadInput

CATALOGUE = gather().catalogue()
PAPERS = list(CATALOGUE.papers.values())
HEADS = list(CATALOGUE.heads.values())
PAGE = Path(__file__).parents[3] / "docs" / "contributing-papers.md"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(PAPERS, HEADS)


@pytest.fixture(scope="module")
def qualities() -> dict[str, Quality]:
    return {quality.scorer: quality for quality in evaluate(PAPERS, HEADS)}


def test_the_score_is_the_sum_of_its_parts(scorer: Scorer) -> None:
    likeness = scorer.score("Induction heads", "Attention heads that copy; retrieval heads as well.")
    assert {proposal.id for proposal in likeness.heads} == {"induction-head", "retrieval-head"}
    assert likeness.score == pytest.approx(likeness.cosine + 2 * NAME_BONUS)
    assert 0 < likeness.cosine < 1


def test_the_cosine_is_that_of_the_catalogues_mean(scorer: Scorer) -> None:
    # Worked out anew from the definition, with plain dictionaries.
    import math
    from collections import Counter

    names = {head.id: head.name for head in HEADS}
    documents = [terms(". ".join([paper_text(p), *(names[h] for h in p.heads if h in names), *p.tags])) for p in PAPERS]
    seen = Counter(term for document in documents for term in set(document))
    weight = {term: math.log((1 + len(documents)) / (1 + count)) + 1 for term, count in seen.items()}

    def unit(document: tuple[str, ...]) -> dict[str, float]:
        row = {t: (1 + math.log(n)) * weight[t] for t, n in Counter(document).items() if t in weight}
        length = math.sqrt(sum(value**2 for value in row.values()))
        return {term: value / length for term, value in row.items()}

    mean: Counter[str] = Counter()
    for document in documents:
        mean.update(unit(document))
    length = math.sqrt(sum(value**2 for value in mean.values()))
    title, abstract = "Heads that read names", "We patch attention heads of GPT-2 that move names."
    expected = sum(value * mean[term] / length for term, value in unit(terms(f"{title}. {abstract}")).items())
    assert scorer.score(title, abstract).cosine == pytest.approx(expected)


def test_the_reasons_name_shared_terms_and_the_nearest_paper(scorer: Scorer) -> None:
    safety = CATALOGUE.papers["zhou-2024-safety-heads"]
    likeness = scorer.score(safety.title, "")
    assert likeness.nearest[0][0] == safety.id
    assert likeness.terms[0] == "head"
    assert all(term in terms(safety.title) for term in likeness.terms)


def test_other_candidates_do_not_matter(scorer: Scorer) -> None:
    pairs = [(paper.title, paper.abstract) for paper in made_up_papers()]
    together = scorer.score_all(pairs)
    assert [scorer.score(*pair).score for pair in pairs[:5]] == pytest.approx([one.score for one in together[:5]])


@pytest.mark.parametrize("text", ["", "   ", "§§§ 123 !!!", "注意力头", "the of and"])
def test_texts_without_known_words_score_zero(scorer: Scorer, text: str) -> None:
    likeness = scorer.score(text, text)
    assert likeness.score == 0
    assert likeness.terms == ()
    assert likeness.nearest == ()


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(BadInput, match="no papers to compare with"):
        Scorer([], HEADS)


def test_the_made_up_papers_are_many_distinct_and_half_near_misses() -> None:
    made_up = made_up_papers()
    assert len(made_up) >= 120
    assert len({paper.title for paper in made_up}) == len(made_up)
    near = sum(paper.kind == "near" for paper in made_up)
    assert near * 2 == len(made_up)
    known = {paper.title.casefold() for paper in PAPERS}
    assert not known & {paper.title.casefold() for paper in made_up}


def test_quality_counts_as_defined() -> None:
    kinds = ["near", "far"]
    quality = _quality("x", [(0.9, [0.1, 0.2]), (0.2, [0.5, 0.2]), (0.0, [0.5, 0.6])], kinds)
    assert quality.auc == pytest.approx((2 + 0.5 + 0) / 6)
    assert quality.auc_near == pytest.approx(1 / 3)
    assert quality.auc_far == pytest.approx(1.5 / 3)
    crowd = [(0.5, [0.6] * 9 + [0.1] * 100), (0.5, [0.6] * 10), (0.5, [0.5] * 49), (0.5, [0.5] * 50)]
    ranks = _quality(
        "x", [(own, [*others, *[0.0] * (200 - len(others))]) for own, others in crowd], ["near", "far"] * 100
    )
    assert (ranks.recall_at_10, ranks.recall_at_50) == (0.25, 0.75)


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]), min_size=7, max_size=7), min_size=1, max_size=5),
)
@settings(max_examples=50, deadline=None)
def test_the_auc_is_the_share_of_made_up_papers_that_score_lower(rows: list[list[float]]) -> None:
    kinds = ["near", "far", "far", "near", "far", "near"]
    quality = _quality("x", [(own, others) for own, *others in rows], kinds)
    for value, wanted in ((quality.auc, ("near", "far")), (quality.auc_near, ("near",)), (quality.auc_far, ("far",))):
        wins = []
        for own, *others in rows:
            kept = [other for other, kind in zip(others, kinds, strict=True) if kind in wanted]
            wins.append(sum(1.0 if own > other else 0.5 if own == other else 0.0 for other in kept) / len(kept))
        assert value == pytest.approx(sum(wins) / len(wins))


def test_papers_that_were_left_out_are_found_again(qualities: dict[str, Quality]) -> None:
    whole, short, titles = (qualities[name] for name in ("whole score", "title and innovation", "titles only"))
    assert len(PAPERS) >= 86
    assert whole.auc > 0.94
    assert whole.recall_at_50 > 0.95
    assert short.auc > 0.84
    assert short.recall_at_50 > 0.85
    assert titles.auc > 0.77


def test_a_left_out_paper_gets_no_help_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    build = Scorer.__init__

    def watched(self: Scorer, papers: list, heads: list) -> None:  # type: ignore[type-arg]
        seen.append(({paper.id for paper in papers}, {head.id for head in heads}))
        build(self, papers, heads)

    monkeypatch.setattr(Scorer, "__init__", watched)
    chosen = [
        CATALOGUE.papers[id_] for id_ in ("zhou-2024-safety-heads", "wu-2024-retrieval-head", "zhu-2024-safetylock")
    ]
    evaluate(chosen, HEADS)
    for paper, (papers, heads) in zip(chosen, seen, strict=True):
        assert paper.id not in papers
        assert ("retrieval-head" in heads) == (paper.id != "wu-2024-retrieval-head")


def test_the_docs_show_these_numbers(qualities: dict[str, Quality]) -> None:
    shown = re.findall(
        r"^\| ([a-zA-Z -]+?) \| (\d\.\d\d) \| .* \| (\d\.\d\d) \|$", PAGE.read_text(encoding="utf-8"), re.M
    )
    assert {name for name, _, _ in shown} == set(qualities)
    for name, auc, recall in shown:
        assert float(auc) == pytest.approx(qualities[name].auc, abs=0.02)
        assert float(recall) == pytest.approx(qualities[name].recall_at_50, abs=0.03)


def test_the_table_can_be_printed(qualities: dict[str, Quality]) -> None:
    lines = as_table(list(qualities.values())).splitlines()
    assert len(lines) == 2 + len(qualities)
    assert len({line.count("|") for line in lines}) == 1


def test_a_folder_of_ones_own_can_be_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(FOLDER / "heads", tmp_path / "heads")
    (tmp_path / "papers").mkdir()
    for id_ in ("zhou-2024-safety-heads", "zhu-2024-safetylock", "wu-2024-retrieval-head", "wang-2023-ioi"):
        shutil.copy(FOLDER / "papers" / f"{id_}.yaml", tmp_path / "papers")
    with pytest.raises(SystemExit) as stop:
        main(["papers", "watch", "--evaluate", "--json", "--data", str(tmp_path)])
    assert stop.value.code == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["scorer"] == "whole score"
    assert 0 <= rows[0]["auc"] <= 1
