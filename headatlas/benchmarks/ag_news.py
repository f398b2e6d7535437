"""AG News: news items of four topics, as CSV files without a head or as the Hub has it."""

from __future__ import annotations

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout

_TOPICS = ("World", "Sports", "Business", "Science")  # the fourth is called Sci/Tech there


@published(
    layout=Layout(("Class Index", "Title", "text", "label"), head=("Class Index", "Title", "Description")),
    files="train.csv or test.csv (class from 1 to 4, title, description), or text and label as on the Hub",
    hub="fancyzhx/ag_news:default:test",
    card="https://huggingface.co/datasets/fancyzhx/ag_news",
    licence="unknown, as its card says; for research and no commercial use",
    metrics=("accuracy", "logit-margin"),
)
def ag_news(row: Fields) -> Item:
    """ "News: a title and a description, Topic:"; the answer is " World", " Sports", " Business" or " Science"."""
    if "label" in row:
        text, topic = row.text("text"), row.one_of("label", dict(enumerate(_TOPICS)))
    else:
        text = f"{row.text('Title')}. {row.text('Description')}"
        topic = row.one_of("Class Index", dict(enumerate(_TOPICS, 1)))
    others = tuple(f" {other}" for other in _TOPICS if other != topic)
    return Item(f"News: {text}\nTopic:", (f" {topic}",), others, topic)
