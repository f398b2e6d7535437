"""What `ablate`, `patch` and `path` share: the printed table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from headatlas.cli._printing import print_json
from headatlas.render.console import console

if TYPE_CHECKING:
    from headatlas.methods.sweeps.effects import HeadEffects


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
    paths = "receivers" in run
    names = ("heads", "receiver" if paths else "position", "effect", "95% interval", "p", "q", "share")
    table = Table(*names, box=None, pad_edge=False)
    for line in found.top(top):
        interval = f"{line.low:+.3f} to {line.high:+.3f}"
        share = "" if math.isnan(line.share) else f"{line.share:+.1%}"
        table.add_row(
            line.name, line.position, f"{line.effect:+.3f}", interval, f"{line.p:.2g}", f"{line.q:.2g}", share
        )
    screen.print(table)
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
    if out is not None:
        screen.print(f"Kept in {out}", highlight=False, soft_wrap=True)
