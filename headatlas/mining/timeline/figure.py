"""A timeline as a picture: the metric of each task, the heads that pass over it, and when each of them formed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headatlas.mining.timeline.lives import Series, alive
from headatlas.mining.timeline.result import Timeline
from headatlas.render import plots
from headatlas.render.palette import PICTURE, SERIES, STAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE, _TALL, _ROW, _EDGE = 760, 190, 18, 60
_MOST = 40  # lives drawn, the earliest
_QUIET, _BAND = PICTURE["soft"].light, STAGE["kr"].tint.light + "60"
_LABEL = 13


def draw(found: Timeline) -> str:
    """The timeline as one SVG, steps on a log scale. Raises HeadAtlasError where matplotlib is missing."""
    passing = {life.detector for life in found.lives}
    shown = [one for one in found.series if one.detector in passing]
    rows, tasks = found.lives[:_MOST], {one.task for one in shown}
    metrics = {task: one for task, one in found.metrics.items() if task in tasks or not shown}
    heights = [_TALL] * (len(metrics) + len(shown)) + ([_EDGE + _ROW * len(rows)] if rows else [])
    tall = sum(heights) + _EDGE

    def paint(figure: Figure) -> None:
        grid = {"left": 0.16, "right": 0.86, "top": 1 - 40 / tall, "bottom": 44 / tall, "hspace": 0.45,
                "height_ratios": heights or [1]}  # fmt: skip
        axes = figure.subplots(max(len(heights), 1), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
        for one in axes:
            one.set_xscale("symlog", linthresh=max(1, next((step for step in found.steps if step > 0), 1)))
            one.set_xlim(found.steps[0], found.steps[-1])
        axes[-1].set(xlabel="training step")
        for one, (task, metric) in zip(axes, metrics.items(), strict=False):
            unit = f" ({metric.unit})" if metric.unit else ""
            one.set(title=f"{task}: {metric.name}{unit}")
            one.plot(found.steps, metric.means, color=_QUIET, gid=f"metric-{task}")
            _band(one, found, task)
        for one, series in zip(axes[len(metrics) :], shown, strict=False):
            _heads(one, found, series)
        if rows:
            _lives(axes[-1], found)

    return plots.svg(_WIDE, tall, "When heads formed", paint)


def _band(axes: Axes, found: Timeline, task: str) -> None:
    drop = found.drops.get(task)
    if drop is not None:
        axes.axvspan(drop.begins, drop.ends, color=_BAND, linewidth=0)


def _heads(axes: Axes, found: Timeline, one: Series) -> None:
    """The mean score above chance of each head that ever passes; the minimum effect as a dashed line."""
    q = found.q[found.series.index(one)]
    excess = one.excess
    passing = [column for column in np.flatnonzero(alive(q, excess, one.minimum_effect).any(0))]
    axes.set(title=f"{one.detector}: score above chance")
    axes.axhline(one.minimum_effect, color=_QUIET, linewidth=1, linestyle=(0, (4, 3)))
    _band(axes, found, one.task)
    best = sorted(passing, key=lambda column: -excess[-1, column])
    for number, column in enumerate(best):
        named = number < len(SERIES)
        color = SERIES[number] if named else _QUIET
        axes.plot(
            found.steps,
            excess[:, column],
            color=color,
            linewidth=2 if named else 0.8,
            gid=f"head-{one.detector}-{found.heads[column]}",
        )
    below = float("inf")
    for number, column in enumerate(best[: len(SERIES)]):
        height = float(axes.transData.transform((0, excess[-1, column]))[1])
        below = min(height, below - _LABEL)
        axes.annotate(
            str(found.heads[column]), (1, excess[-1, column]), xycoords=("axes fraction", "data"),
            xytext=(6, below - height), textcoords="offset points", va="center", color=SERIES[number],
        )  # fmt: skip


def _lives(axes: Axes, found: Timeline) -> None:
    """A line for each life, from its birth on, and the interval of the birth as a thin one with ends."""
    rows = found.lives[:_MOST]
    axes.set(title="heads from when they pass; thin: 95% interval of the step at which they form")
    for row, life in enumerate(rows):
        end = found.steps[-1] if life.died is None else life.died
        axes.plot([life.born, end], [row, row], color=SERIES[0], linewidth=4, solid_capstyle="butt")
        high = found.steps[-1] if life.high is None else life.high
        axes.plot([life.low, high], [row, row], color=SERIES[1], linewidth=1, marker="|", markersize=7)
    axes.set_yticks(range(len(rows)), [f"{life.head} {life.detector}" for life in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
