"""Figures with axes, for docs/ and for commands that write one; drawn with matplotlib, imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from headatlas.errors import HeadAtlasError
from headatlas.render.palette import PAGE, PICTURE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _SOFT, _LINE = PICTURE["ink"].light, PICTURE["soft"].light, PAGE["line"].light
# Sizes are in points, and a point is a pixel: figures are made at 72 a inch.
_LOOK: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that labels have the same width everywhere
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.edgecolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "figure.facecolor": PICTURE["paper"].light,
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "headatlas",  # the same figure has the same names inside, so that files compare
}


def require() -> None:
    """Raise HeadAtlasError, with what to install, where matplotlib is missing; for commands that draw after long work."""
    if find_spec("matplotlib") is None:
        raise HeadAtlasError(
            "Drawing this figure needs the 'matplotlib' package.", "Run: pip install 'headatlas[plots]'"
        )


def svg(wide: float, tall: float, title: str, paint: Callable[[Figure], None]) -> str:
    """What `paint` draws on an empty figure of so many pixels, as SVG text. Raises HeadAtlasError without matplotlib."""
    require()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_LOOK}):
        figure = Figure(figsize=(wide / 72, tall / 72), dpi=72)
        paint(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return out.getvalue()
