"""SST and SST-2: film reviews, as the trees of the treebank or as sentences with 0 or 1."""

from __future__ import annotations

import re
from collections.abc import Iterator

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout
from headatlas.errors import BadInput
from headatlas.own_prompts.rows import Row
from headatlas.reading import Source, read_text

_WORDS = ("negative", "positive")
_LEAF = re.compile(r"\(\d ([^()]+)\)")


def _trees(source: Source) -> Iterator[Row]:
    """The sentence of each tree "(3 (2 A) (3 film))"; the root's 0 and 1 are negative, 3 and 4 positive, 2 is left out."""
    for number, line in enumerate(read_text(source).splitlines(), 1):
        if not line.strip():
            continue
        where, leaves = f"Line {number} of {source.path.name}", _LEAF.findall(line)
        root = line.strip()[1:2]
        if not leaves or root not in "01234" or not line.startswith("("):
            raise BadInput(f"{where}: a tree such as (3 (2 A) (3 film)) is wanted.", source.hint)
        if root != "2":
            yield Row(where, number, {"sentence": " ".join(leaves), "label": int(root > "2")})


@published(
    layout=Layout(("sentence", "label"), quoted=False, read=_trees, suffixes=(".tsv", ".txt", ".parquet", ".jsonl")),
    files="train.tsv or dev.tsv of GLUE (sentence, label), trees/*.txt of the treebank, or sentence and label as on the Hub",
    hub="stanfordnlp/sst2:default:validation",
    card="https://huggingface.co/datasets/stanfordnlp/sst2",
    licence="unknown, as its card says",
    metrics=("accuracy", "logit-margin"),
)
def sst_sst2(row: Fields) -> Item:
    """ "Review: a sentence, Sentiment:"; the answer is " positive" or " negative", without examples before it."""
    label = row.one_of("label", {0: 0, 1: 1})  # the test split of GLUE has -1 everywhere
    word, other = _WORDS[label], _WORDS[1 - label]
    return Item(f"Review: {row.text('sentence')}\nSentiment:", (f" {word}",), (f" {other}",), word)
