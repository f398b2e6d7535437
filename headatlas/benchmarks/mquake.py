"""MQuAKE: questions over several steps, with the answer before and after facts were edited."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout


@published(
    layout=Layout(("questions",)),
    files="MQuAKE-CF.json, MQuAKE-CF-3k.json or MQuAKE-T.json",
    card="https://github.com/princeton-nlp/MQuAKE",
    licence="MIT",
    metrics=("accuracy", "hit@10", "log-probability"),
)
def mquake(row: Fields) -> Iterator[Item]:
    """ "Q: a question over several steps, A:"; right is the answer of the world as it was, wrong the one after the edits.

    The three wordings of a case share a group. No fact is edited: that is for the methods to do.
    """
    right = [row.text("answer")]
    for more in ("answer_alias", "answer_extended"):  # the second of MQuAKE-T: what else was right before the edits
        right += row.texts(more, 0) if more in row else []
    group = str(row.any("case_id"))
    for question in row.texts("questions"):
        yield Item(
            f"Q: {question}\nA:",
            tuple(f" {one}" for one in dict.fromkeys(right)),
            (f" {row.text('new_answer')}",),
            group=group,
        )
