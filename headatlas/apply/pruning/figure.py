"""Curves of pruning as a picture: heads kept against what the metric loses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headatlas.apply.pruning.result import RANDOM, Pruning
from headatlas.render import plots
from headatlas.render.numbers import count
from headatlas.render.palette import PICTURE, SERIES
from headatlas.store import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE, _TALL = 640, 380
_QUIET = PICTURE["soft"].light


def draw_curves(found: Pruning) -> str:
    """A line for each order with its 95% interval, random orders in grey from the least to the greatest; SVG text.

    Raises HeadAtlasError where matplotlib is missing.
    """
    unit = found.facts.get("unit")
    metric = f"{found.facts.get('metric')} worse by{f' ({unit})' if unit else ''}"
    instead = "their mean" if found.means is not None else "zero"

    def paint(figure: Figure) -> None:
        axes = figure.subplots(gridspec_kw={"left": 0.12, "right": 0.97, "top": 0.88, "bottom": 0.14})
        axes.set(
            title=f"{found.facts.get('model')}: heads replaced by {instead}",
            xlabel="heads kept",
            ylabel=metric,
            xlim=(1, 0),
        )
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(visible=True)
        named = [name for name in found.curves if name != RANDOM]
        for name, points in found.curves.items():
            color = _QUIET if name == RANDOM else SERIES[named.index(name) % len(SERIES)]
            shares = [1.0, *(point.share for point in points)]
            drawn = name == RANDOM and RANDOM not in found.orders
            ends = [(point.least, point.greatest) if drawn else (point.rise_low, point.rise_high) for point in points]
            axes.fill_between(
                shares,
                [0.0, *(low for low, _ in ends)],
                [0.0, *(high for _, high in ends)],
                color=color,
                alpha=0.15,
                linewidth=0,
            )
            label = count(int(found.facts["draws"]), "random order") if drawn else name
            axes.plot(shares, [0.0, *(point.rise for point in points)], color=color, label=label, gid=f"order-{name}")
        if found.gated is not None:
            axes.plot(
                [found.gated.share], [found.gated.rise], "o", color=SERIES[named.index("l0") % len(SERIES)], gid="gates",
                label="gates left open",
            )  # fmt: skip
        axes.legend(loc="upper left")

    return plots.svg(_WIDE, _TALL, "What pruning costs", paint)


def write_curves(found: Pruning, svg: str | Path) -> None:
    """Write `draw_curves` to a file. Raises StoreError, HeadAtlasError where matplotlib is missing."""
    write_text(Path(svg), draw_curves(found))
