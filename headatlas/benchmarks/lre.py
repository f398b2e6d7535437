"""LRE: facts by relation, one JSON file each, with the wording of the prompt."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout


@published(
    layout=Layout((), suffixes=(".json",)),
    files="the .json file of a relation, or the data folder with all of them (factual, commonsense, linguistic, bias)",
    card="https://github.com/evandez/relations",
    licence="MIT",
    metrics=("accuracy", "hit@10", "logit-difference"),
)
def lre(row: Fields) -> Iterator[Item]:
    """A subject in the first wording of its relation; right is the object, wrong that of another subject. Positions: subject, end."""
    template, relation = row.texts("prompt_templates")[0], row.text("name")
    if template.count("{}") != 1:
        raise row.bad("prompt_templates", f"a wording with one {{}} is wanted, got {template!r}")
    for sample in row.each("samples"):
        subject = sample.text("subject")
        start = template.index("{}")
        spans = {"subject": [start, start + len(subject)]}
        yield Item(template.replace("{}", subject), (f" {sample.text('object')}",), kind=relation, spans=spans)
