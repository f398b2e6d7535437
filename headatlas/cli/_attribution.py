"""Printing an attribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from headatlas.cli._printing import print_json, say_start_end
from headatlas.render.console import console

if TYPE_CHECKING:
    from headatlas.methods.attribution.attribute import Attribution

QUESTION = {
    "direct": "what each head writes straight into the answer's logit; measured: what is lost when it is zero-ablated at the end",
    "atp": "patching each head, estimated from one gradient; measured: patched",
    "eap": "patching each edge, estimated from one gradient; measured: patched",
    "eap-ig": "patching each edge, estimated from gradients between the prompts; measured: patched",
}


def show(found: Attribution, *, top: int, as_json: bool, out: str | None) -> None:
    """Print the parts ranked highest and how well the ranking holds."""
    from headatlas.methods.attribution.attribute import data_of

    data = data_of(found, top)
    if as_json:
        print_json(data)
        return
    screen, run = console(), data["run"]
    say = lambda text: screen.print(text, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
    say(f"{found.method} on {data['n_examples']} prompts, {data['n_parts']} parts, in {run['unit']}")
    say(QUESTION[found.method])
    alone = data["n_examples"] == 1  # of one prompt there is nothing to infer
    interval = () if alone else ("95% interval",)
    tests = () if alone else ("95% interval", "p")
    table = Table("part", "estimate", *interval, "measured", *tests, box=None, pad_edge=False)
    for line in found.top(top):
        known = not math.isnan(line.exact)
        spread = () if alone else (f"{line.low:+.3f} to {line.high:+.3f}",)
        tested = () if alone else (f"{line.exact_low:+.3f} to {line.exact_high:+.3f}", f"{line.p:.2g}")
        measured = (f"{line.exact:+.3f}", *tested)
        table.add_row(line.part, f"{line.estimate:+.3f}", *spread, *(measured if known else ("",) * len(measured)))
    screen.print(table)
    if "total" in run:
        heads = run["total"] - sum(run["others"].values())
        say(f"all heads {heads:+.3f}, all other parts {run['total'] - heads:+.3f}, together {run['total']:+.3f}")
        large = sorted(run["others"].items(), key=lambda item: -abs(item[1]))[:5]
        say("largest other parts: " + ", ".join(f"{name} {value:+.3f}" for name, value in large))
    for note in run.get("notes", []):
        say(f"note: {note}")
    seconds = run["seconds"]
    say(
        f"rank agreement (Spearman) {data['agreement']:.2f} over {data['measured']} parts measured exactly: the "
        f"{run['measured_highest']} highest and {run['measured_spread']} spread over the other ranks; "
        f"{seconds['guess']:.1f} s estimating, {seconds['measure']:.1f} s measuring"
    )
    say_start_end(run)
    if out is not None:
        say(f"All parts in {out}")
