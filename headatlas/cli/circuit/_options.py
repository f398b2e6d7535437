"""What the circuit commands share: how heads are knocked out, and an interval in print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headatlas.choices import EDIT, MEAN, RATIO
from headatlas.cli import _checks as check
from headatlas.cli._checks import Check

if TYPE_CHECKING:
    from headatlas.circuits.evaluate import Interval

Ablation = Annotated[
    str, typer.Option(help="How heads outside are knocked out: mean, resample or zero."), Check(EDIT.demand)
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean overall, per position, or per template and position; default: template where there are any."
    ),
    Check(MEAN.demand),
]
Reference = Annotated[
    int,
    typer.Option(help="Means are taken over so many other prompts of the task."),
    check.at_least(1, "other prompts"),
]
Ratio = Annotated[str, typer.Option(help="ratio-of-means or mean-of-ratios."), Check(RATIO.demand)]
Out = Annotated[
    str | None,
    typer.Option("--out", help="File to write the result to; interrupted runs go on from there."),
    Check(check.new_file),
]


def interval(value: Interval, *, percent: bool = False) -> str:
    """A mean with its interval; of one prompt there is none."""
    form = "{:.1%}" if percent else "{:+.3f}"
    if not value.low < value.high:
        return form.format(value.value)
    return f"{form.format(value.value)} ({form.format(value.low)} to {form.format(value.high)})"
