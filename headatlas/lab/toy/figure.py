"""The figure of a toy: what was measured over the steps of its trainings, a panel for each question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headatlas.lab.toy.study import Panel, Runs
from headatlas.render import plots
from headatlas.render.palette import PICTURE, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE, _TALL, _HEAD = 720, 230, 46
_LABEL = 14  # the height of a label in pixels
_QUIET = PICTURE["soft"].light


def draw(title: str, panels: Sequence[Panel], runs: Runs) -> str:
    """The panels below each other as one SVG, steps on a log scale. Raises HeadAtlasError where matplotlib is missing."""
    tall = _HEAD + _TALL * len(panels)

    def paint(figure: Figure) -> None:
        figure.text(0.08, 1 - 24 / tall, title, weight="bold", size=12)
        grid = {"left": 0.08, "right": 0.74, "top": 1 - (_HEAD + 20) / tall, "bottom": 44 / tall, "hspace": 0.32}
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw=grid)
        for (axes,), panel in zip(rows, panels, strict=True):
            _paint(axes, panel, runs)
        rows[-1][0].set(xlabel="training step")

    return plots.svg(_WIDE, tall, title, paint)


def _paint(axes: Axes, panel: Panel, runs: Runs) -> None:
    axes.set(title=panel.title)
    axes.set_xscale("symlog", linthresh=1)
    axes.grid(axis="y")
    ends: list[tuple[float, str, str]] = []
    for (label, (variant, number)), color in zip(panel.lines.items(), _colours(len(panel.lines)), strict=True):
        run = runs[variant]
        values = run.series(number)
        axes.plot(run.steps, values, color=color, gid=f"line-{label.replace(' ', '-')}")
        ends.append((values[-1], label, color))
    axes.set_xlim(0, max(max(runs[variant].steps) for variant, _ in panel.lines.values()))
    for label, level in (panel.levels or {}).items():
        axes.axhline(level, color=_QUIET, linewidth=1, linestyle=(0, (4, 3)))
        ends.append((level, label, _QUIET))
    _name(axes, ends)


def _colours(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def _name(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right ends of lines, moved down where they would lie on each other."""
    below = float("inf")
    for value, label, color in sorted((end for end in ends if math.isfinite(end[0])), reverse=True):
        height = float(axes.transData.transform((0, value))[1])  # in pixels from below; the figure has its size already
        below = min(height, below - _LABEL)
        axes.annotate(
            label, (1, value), xycoords=("axes fraction", "data"), xytext=(6, below - height), textcoords="offset points",
            va="center", color=color, annotation_clip=False,
        )  # fmt: skip
