"""How well the watch tells papers on attention heads from others, measured by leaving out one paper at a time.

Each paper of the catalogue is scored against a catalogue without it (and without the head types that only it speaks
of) and ranked among made-up papers: near misses and plainly different work. The left-out paper's text is its title
and our summary, never its head types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml

from headatlas.catalogue.curation.likeness import Likeness, Scorer, paper_text
from headatlas.catalogue.schema import HeadType, Paper

RECALL_AT = (10, 50)


@dataclass(frozen=True)
class MadeUp:
    """A paper that nobody wrote."""

    title: str
    abstract: str
    kind: Literal["near", "far"]


@dataclass(frozen=True)
class Quality:
    """What a way of scoring achieves; every number is a mean over the left-out papers."""

    scorer: str
    auc: float  # chance that a left-out paper scores above a made-up one
    auc_near: float
    auc_far: float
    recall_at_10: float  # share of left-out papers among the first 10 when ranked with all made-up ones
    recall_at_50: float


@cache
def made_up_papers() -> tuple[MadeUp, ...]:
    """The bundled papers that do not exist."""
    source = files("headatlas.catalogue").joinpath("data/aids/made_up_papers.yaml").read_text(encoding="utf-8")
    groups = yaml.safe_load(source)
    return tuple(MadeUp(row["title"], row["abstract"], kind) for kind in ("near", "far") for row in groups[kind])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _quality(name: str, rows: Sequence[tuple[float, Sequence[float]]], kinds: Sequence[str]) -> Quality:
    """`rows`: for each left-out paper its own score and those of the made-up papers."""
    from sklearn.metrics import roc_auc_score

    # Ties count against the paper: a reader may meet the others first.
    ranks = [1 + sum(other >= own for other in others) for own, others in rows]

    def auc(wanted: Iterable[str]) -> float:
        keep = [i for i, kind in enumerate(kinds) if kind in wanted]
        truth = [1, *[0] * len(keep)]
        # Each left-out paper is ranked by a catalogue of its own, so scores of different rows are never compared.
        return _mean([float(roc_auc_score(truth, [own, *(others[i] for i in keep)])) for own, others in rows])

    recall = [_mean([float(rank <= depth) for rank in ranks]) for depth in RECALL_AT]
    return Quality(name, auc(("near", "far")), auc(("near",)), auc(("far",)), recall[0], recall[1])


Ranking = tuple[Likeness, list[Likeness]]  # a left-out paper, and the made-up ones scored by the same catalogue


def _rows(rankings: Sequence[Ranking], part: Callable[[Likeness], float]) -> list[tuple[float, list[float]]]:
    return [(part(own), [part(other) for other in others]) for own, others in rankings]


def evaluate(papers: Sequence[Paper], heads: Sequence[HeadType]) -> list[Quality]:
    """The whole score first, then what its parts do alone, then the whole score on shorter texts.

    Summaries are longer than the made-up abstracts and all written for one catalogue, which flatters the first rows;
    with title and innovation alone the texts are about equally long.
    """
    negatives = made_up_papers()
    kinds = [negative.kind for negative in negatives]
    whole: list[Ranking] = []
    short: list[Ranking] = []
    titles: list[Ranking] = []
    for left_out in papers:
        rest = [paper for paper in papers if paper.id != left_out.id]
        still = {head for paper in rest for head in paper.heads}
        scorer = Scorer(rest, [head for head in heads if head.id in still])
        title, innovation = left_out.title, left_out.summary.innovation if left_out.summary else ""
        text = paper_text(left_out).removeprefix(title)
        made_up = scorer.score_all([(negative.title, negative.abstract) for negative in negatives])
        whole.append((scorer.score(title, text), made_up))
        short.append((scorer.score(title, innovation), made_up))
        titles.append((scorer.score(title, ""), scorer.score_all([(negative.title, "") for negative in negatives])))
    return [
        _quality("whole score", _rows(whole, lambda likeness: likeness.score), kinds),
        _quality("TF-IDF alone", _rows(whole, lambda likeness: likeness.cosine), kinds),
        _quality("names alone", _rows(whole, lambda likeness: likeness.score - likeness.cosine), kinds),
        _quality("title and innovation", _rows(short, lambda likeness: likeness.score), kinds),
        _quality("titles only", _rows(titles, lambda likeness: likeness.score), kinds),
    ]


def as_table(qualities: Sequence[Quality]) -> str:
    """A Markdown table, as printed in the docs."""
    head = ["scorer", "AUC", "AUC near misses", "AUC other work", "recall at 10", "recall at 50"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for quality in qualities:
        name, *values = asdict(quality).values()
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines)
