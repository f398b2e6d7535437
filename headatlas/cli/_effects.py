"""What `ablate`, `patch` and `path` share: the printed table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from headatlas.cli._printing import print_json, say_start_end
from headatlas.render.console import console

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headatlas.methods.sweeps.effects import HeadEffects


TOLD = 5  # prompts, and changes, whose next tokens are printed


def show(found: HeadEffects, *, top: int, as_json: bool, out: str | None) -> None:
    """Print the result."""
    from headatlas.methods.sweeps.effects_io import data_of

    data = data_of(found)
    if as_json:
        print_json(data)
        return
    screen = console()
    run = data["run"]
    other = (
        ""
        if data["metric"]["other_run"] is None
        else f", of the run values came from {data['metric']['other_run']:.3f}"
    )
    screen.print(
        f"{found.kind} on {data['n_examples']} prompts: {run['metric']} of the changed run without change "
        f"{data['metric']['changed_run']:.3f} {run['unit']}{other}",
        highlight=False,
        soft_wrap=True,
    )
    paths, alone = "receivers" in run, data["n_examples"] == 1  # of one prompt there is nothing to infer
    tests = () if alone else ("95% interval", "p", "q")
    names = ("heads", "receiver" if paths else "position", "effect", *tests, "share")
    table = Table(*names, box=None, pad_edge=False)
    for line in found.top(top):
        tested = () if alone else (f"{line.low:+.3f} to {line.high:+.3f}", f"{line.p:.2g}", f"{line.q:.2g}")
        share = "" if math.isnan(line.share) else f"{line.share:+.1%}"
        table.add_row(line.name, line.position, f"{line.effect:+.3f}", *tested, share)
    screen.print(table)
    if alone:
        screen.print("One prompt: no interval and no p-value, so nothing is said of others like it.", highlight=False)
    if "top_token" in run:
        _say_tokens(run["top_token"])
    left = f"; {found.unmeasured} left unmeasured, rank agreement {found.agreement():.2f}" if found.unmeasured else ""
    if paths:  # nothing was left out
        left = f"; {found.unmeasured} senders do not come before their receiver" if found.unmeasured else ""
    screen.print(
        f"{data['measured']} changes measured exactly at the cost of {run['forwards']:.1f} forward passes, {run['seconds']:.1f} s{left}",
        highlight=False,
        soft_wrap=True,
    )
    for note in run["notes"]:
        screen.print(f"note: {note}", highlight=False, soft_wrap=True)
    say_start_end(run)
    if out is not None:
        screen.print(f"Kept in {out}", highlight=False, soft_wrap=True)


def _say_tokens(told: Mapping[str, Any]) -> None:
    """Which next tokens are the likeliest, and what they become without which heads."""
    words = lambda tokens: " ".join(map(repr, tokens[:TOLD])) + (" ..." if len(tokens) > TOLD else "")  # noqa: E731
    changed = list(told["after"].items())
    screen = console()
    say = lambda line: screen.print(line, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
    say(f"likeliest next: {words(told['before'])}" + ("" if changed else "; no change makes it another"))
    for heads, tokens in changed[:TOLD]:
        say(f"  changed at {heads}: {words(tokens)}")
    if len(changed) > TOLD:
        say(f"  and {len(changed) - TOLD} other changes make it another (--json has all)")
