"""`headatlas cache plan MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.cli.cache import _options as caches
from headatlas.render.console import console

library = ("headatlas.plan_cache", "headatlas.save_cache_plan")


def plan(
    model: option.Model,
    by: Annotated[
        str,
        typer.Option(help="razor, retrieval, gates (DuoAttention), spans (MoA), recency or random."),
        Check(choices.CACHE_PLAN.demand),
    ] = "gates",
    keep: caches.Keep = 0.3,
    tokens: Annotated[
        int, typer.Option(help="Length of text that the bytes are counted at."), check.at_least(1, "tokens")
    ] = 4096,
    sinks: Annotated[int, typer.Option(help="First tokens that every group keeps."), check.at_least(0, "tokens")] = 4,
    recent: Annotated[
        int, typer.Option(help="Recent tokens that every group keeps."), check.at_least(1, "tokens")
    ] = 128,
    compensate: Annotated[
        bool,
        typer.Option("--compensate", help="Keep the mean of what is dropped, weighed as many times (RazorAttention)."),
    ] = False,
    task: caches.Needles = "needle-1024",
    n: Annotated[int, typer.Option("--n", help="Texts to choose or learn by."), check.at_least(2, "texts")] = 16,
    steps: Annotated[int, typer.Option(help="Steps that gates are learned for."), check.at_least(1, "steps")] = 200,
    price: Annotated[
        float, typer.Option(help="What open gates cost beside what they change."), check.number("price", 0)
    ] = 1.0,
    keeps: Annotated[
        str,
        typer.Option(help="What gates are learned to keep: answer, or hidden (states, as in DuoAttention)."),
        Check(choices.KEPT.demand),
    ] = "answer",
    settling: Annotated[
        float,
        typer.Option(
            help="Share of the steps, at the end, in which gates settle on the choice that the budget allows."
        ),
    ] = 0.0,
    seed: option.Seed = 0,
    out: caches.PlanOut = None,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Choose which key-value groups keep the whole text, so that the cache takes a share of the bytes.

    Example: headatlas cache plan smollm2-135m --by razor --keep 0.3 --out razor.json
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    options = ha.CacheOptions(
        sinks, recent, compensate, n, task, steps=steps, price=price, keeps=keeps, settling=settling, seed=seed
    )
    with Shown() as progress:
        found = ha.plan_cache(
            ha.load(model, dtype=dtype, device=device),
            by,
            keep=keep,
            tokens=tokens,
            options=options,
            progress=progress,
        )
    if out is not None:
        ha.save_cache_plan(found, out)
    if as_json:
        print_json(found.data)
        return
    screen = console()
    screen.print(
        f"{found.model}, by {by}: {len(found.whole)} of {len(found.groups)} key-value groups keep everything; at {tokens:,} tokens "
        f"{found.n_bytes(tokens):,} bytes in float32, {found.share(tokens):.3f} of the full cache",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table("keeps", "groups", box=None, pad_edge=False)
    alike: dict[str, list[str]] = {}
    for group in found.groups:
        span = found.span(group)
        told = (
            "everything"
            if span is None
            else f"first {span.sinks}, last {span.recent}{', mean of the rest' if span.compensate else ''}"
        )
        alike.setdefault(told, []).append(str(group))
    for told, groups in alike.items():
        table.add_row(told, " ".join(groups) if len(groups) <= 40 else f"{len(groups)} others")
    screen.print(table)
    if found.facts.get("unsure"):
        screen.print(
            f"On either side of the cut within their intervals: {' '.join(found.facts['unsure'])}", soft_wrap=True
        )
    if out is not None:
        screen.print(f"Written: {out}", highlight=False, soft_wrap=True)
