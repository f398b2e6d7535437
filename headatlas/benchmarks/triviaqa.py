"""TriviaQA: trivia questions with all spellings of their answers, as the authors' JSON or as the Hub has it."""

from __future__ import annotations

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout


@published(
    layout=Layout(("question",), data="Data"),
    files="the .json files of its qa folder, or question and answer as on the Hub",
    hub="mandarjoshi/trivia_qa:rc.nocontext:validation",
    card="https://huggingface.co/datasets/mandarjoshi/trivia_qa",
    licence="unknown, as its card says",
    metrics=("accuracy", "hit@10", "log-probability"),
)
def triviaqa(row: Fields) -> Item:
    """ "Q: a question, A:"; right are all spellings of one token, or the first spelling. Without the documents; wrong is another's answer."""
    question, answer, value, aliases = (
        ("Question", "Answer", "Value", "Aliases") if "Question" in row else ("question", "answer", "value", "aliases")
    )
    found = row.inner(answer)
    spelt = dict.fromkeys([found.text(value), *found.texts(aliases, 0)])
    return Item(f"Q: {row.text(question)}\nA:", tuple(f" {one}" for one in spelt if one))
