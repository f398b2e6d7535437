"""ETHOS: online comments, hateful or not, as the authors' CSV or as the Hub has it."""

from __future__ import annotations

from headatlas.benchmarks._published import Item, published
from headatlas.benchmarks._rows import Fields, Layout


@published(
    layout=Layout(("comment", "isHate", "text", "label"), delimiter=";"),
    files="Ethos_Dataset_Binary.csv (comment;isHate), or text and label as on the Hub",
    hub="iamollas/ethos:binary:train",
    card="https://huggingface.co/datasets/iamollas/ethos",
    licence="AGPL-3.0",
    metrics=("accuracy", "logit-margin"),
)
def ethos(row: Fields) -> Item:
    """ "Comment: a comment, Hateful:"; the answer is " yes" or " no". A comment is hateful from a share of 0.5 on, as the authors count."""
    text = row.text("comment" if "comment" in row else "text")
    if "isHate" in row:
        try:
            share = float(row.any("isHate"))
        except (TypeError, ValueError):
            share = -1.0
        if not 0 <= share <= 1:  # which NaN is not either
            raise row.bad("isHate", f"a share from 0 to 1 is wanted, got {row.any('isHate')!r}")
        hateful = share >= 0.5
    else:
        hateful = row.one_of("label", {0: False, 1: True})
    word, other = ("yes", "no") if hateful else ("no", "yes")
    return Item(f"Comment: {text}\nHateful:", (f" {word}",), (f" {other}",), word)
