"""`headatlas rerank MODEL --question TEXT --documents FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.errors import BadInput

library = ("headatlas.rerank", "headatlas.query_heads", "headatlas.apply.kv_cache.reranking.recall_examples")


def _documents(path: str) -> None:
    """Raise BadInput unless a file of documents is there."""
    if not Path(path).is_file():
        raise BadInput(f"There is no file {path}.", "Give a text file with one document a line.")


def before(question: str | None, documents: str | None) -> None:
    """Raise BadInput unless question and documents are named."""
    if not question or not question.strip() or not documents:
        raise BadInput("There is no question, or there are no documents.", "Give --question TEXT and --documents FILE.")


def rerank(
    model: option.Model,
    question: Annotated[str | None, typer.Option(help="What is asked.")] = None,
    documents: Annotated[
        str | None, typer.Option(help="Text file with one document a line."), Check(_documents)
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(help="Heads to order by; default: those that find the right one of bundled facts."),
        Check(check.heads),
    ] = None,
    pick: Annotated[int, typer.Option(help="How many heads are found."), check.at_least(1, "heads")] = 8,
    n: Annotated[int, typer.Option("--n", help="Examples to find them on."), check.at_least(1, "examples")] = 16,
    seed: option.Seed = 0,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Order documents by what retrieval heads attend to from a question.

    Example: headatlas rerank smollm2-135m --question "Where was the bridge built?" --documents texts.txt
    """
    from rich.table import Table
    from rich.text import Text

    import headatlas as ha
    from headatlas.apply.kv_cache.reranking import recall_examples
    from headatlas.cli._progress import Shown
    from headatlas.reading import Source, read_text
    from headatlas.render.console import console
    from headatlas.render.escape import shown

    source = Source(Path(str(documents)), "Write one document a line.")
    texts = [line.strip() for line in read_text(source).splitlines() if line.strip()]
    opened = ha.load(model, dtype=dtype, device=device)
    if heads is None:
        with Shown() as progress:
            found = ha.query_heads(opened, recall_examples(opened, n, seed=seed), progress)
    chosen = heads if heads is not None else found.best(pick)
    result = ha.rerank(opened, str(question), texts, chosen)
    if as_json:
        print_json(result.data)
        return
    screen = console()
    screen.print(f"{opened.name}, by {' '.join(result.facts['heads'])}:", highlight=False, soft_wrap=True)
    table = Table("", "attention", "document", box=None, pad_edge=False)
    for rank, place in enumerate(result.order, 1):
        table.add_row(str(rank), f"{result.scores[place]:+.4f}", Text(shown(texts[place])))
    screen.print(table)
