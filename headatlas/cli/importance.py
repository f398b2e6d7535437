"""`headatlas importance MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from headatlas import choices
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.render.console import console

library = "headatlas.head_importance"


def before(task: str | None, prompts: str | None, text: list[str] | None, chat: str | None) -> None:
    """Raise BadInput unless one source of prompts is named."""
    sources.Measured(task, prompts, text, chat, None).demand(None)


def importance(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    metric: option.Metric = None,
    method: Annotated[
        str,
        typer.Option(help="mask (Michel et al. 2019), gradient, or lrp (relevance, Voita et al. 2019)."),
        Check(choices.IMPORTANCE.demand),
    ] = "mask",
    n: option.N = 32,
    seed: option.Seed = 0,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Which heads would be missed, by one backward pass? A number for every head: the order in which heads are pruned.

    It is a first-order guess: nothing is removed. `headatlas ablate` measures what is.

    Example: headatlas importance smollm2-135m --task prose --n 4

    For Voita et al. 2019: headatlas importance smollm2-135m --task prose --n 4 --method lrp
    """
    import headatlas as ha

    given = sources.Measured(task, prompts, text, chat, None).given(n, seed, metric, force=False)
    found = ha.head_importance(ha.load(model, dtype=dtype, device=device), given, method=method)
    if as_json:
        print_json(found.data)
        return
    told = {
        "mask": f"|z . dL/dz| of the {found.facts['metric']}, mean over tokens",
        "gradient": f"length of the gradient of the {found.facts['metric']} in z, mean over tokens",
        "lrp": "relevance for the likeliest token, mean over positions",
    }[method]
    console().print(f"{found.facts['model']} on {found.facts['prompts']}: {told}", highlight=False, soft_wrap=True)
    table = Table("head", "importance", "in its layer", box=None, pad_edge=False)
    for head, row in list(found.data["heads"].items())[:top]:
        table.add_row(head, f"{row['raw']:.4g}", f"{row['normed']:+.3f}")
    console().print(table)
