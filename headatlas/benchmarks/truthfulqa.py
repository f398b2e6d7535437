"""TruthfulQA: true and false answers to one question, as the authors' CSV or mc_task.json, or as the Hub has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout
from headatlas.task.answers import truth_margin


@published(
    layout=Layout(("Question", "question")),
    files="TruthfulQA.csv or mc_task.json, or question, mc1_targets and mc2_targets as on the Hub",
    hub="truthfulqa/truthful_qa:multiple_choice:validation",
    card="https://huggingface.co/datasets/truthfulqa/truthful_qa",
    licence="Apache-2.0",
    metric=truth_margin,
    metrics=("mc1", "mc2"),
)
def truthfulqa(row: Fields) -> Iterator[Item]:
    """ "Q: a question, A:" and each of its true and false answers, written out: n counts questions, each has several prompts.

    Labels: right, best, label (true or false) and group, the question. Without the six questions that the authors put in
    front. Metric: mean log-probability of an answer's tokens, with the sign turned for false ones.
    """
    question, answers, best = _answers(row)
    for answer, right in answers.items():
        yield Item(
            f"Q: {question}\nA:", (f" {answer}",), (), "true" if right else "false", question, right=right,
            best=answer == best,
        )  # fmt: skip


def _answers(row: Fields) -> tuple[str, dict[str, bool], str]:
    """The question, whether each answer is true, and the best one."""
    if "Question" not in row:
        many, one = (_targets(row, column) for column in ("mc2_targets", "mc1_targets"))
        found = [answer for answer, right in one.items() if right]
        if len(found) != 1:
            raise row.bad("mc1_targets", f"one true answer is wanted, got {len(found)}")
        return row.text("question"), {**one, **many}, found[0]
    true, false = (
        [part.strip() for part in row.text(f"{kind} Answers").split(";") if part.strip()]
        for kind in ("Correct", "Incorrect")
    )
    best = row.text("Best Answer")
    return row.text("Question"), {**dict.fromkeys([best, *true], True), **dict.fromkeys(false, False)}, best


def _targets(row: Fields, column: str) -> Mapping[str, bool]:
    """Whether each answer is true: {answer: 1 or 0}, or lists of choices and labels."""
    found = row.inner(column)
    if "choices" not in found:
        return {answer: found.one_of(answer, {1: True, 0: False}) for answer in found.values}
    choices, labels = found.texts("choices", 2), found.any("labels")
    if not isinstance(labels, list) or len(labels) != len(choices) or not {*labels} <= {0, 1}:
        raise found.bad("labels", f"a 0 or 1 for each of {len(choices)} choices is wanted")
    return {answer: label == 1 for answer, label in zip(choices, labels, strict=True)}
