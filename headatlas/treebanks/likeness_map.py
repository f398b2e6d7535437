"""Heads as points in a plane, likeness as nearness: the map of Clark et al. 2019 (section 6), as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headatlas.render import plots
from headatlas.render.palette import SERIES
from headatlas.treebanks.surface import OFFSETS, Likeness, Surface

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HALF, MOST = 0.5, 0.6  # of queries at one offset, of the mass on start or end tokens: Clark's bounds for colours
WIDE, TALL = 760, 620
NAMED = 60  # heads; of larger models only those of a kind bear their names
COLOURS = ("#9a9a9a", *SERIES, "#7b4fb3")  # of no kind, and of KINDS
KINDS = ("next token", "previous token", "broad", "start token", "end token")


def kinds(surface: Surface) -> list[str]:
    """What each head does regardless of words, by Clark's rules, the later ones first; "" for none of it.

    broad: an entropy within a tenth of what uniform attention has, in place of the paper's 3.8 nats, which depend on length.
    """
    found = [""] * len(surface.heads)
    rules: list[tuple[str, Any]] = [
        ("next token", surface.at[:, OFFSETS.index(1)] > HALF), ("previous token", surface.at[:, OFFSETS.index(-1)] > HALF),
        ("broad", surface.entropy > 0.9 * surface.uniform), ("start token", surface.start > MOST), ("end token", surface.end > MOST),
    ]  # fmt: skip
    for name, holds in rules:
        found = [name if is_so else before for is_so, before in zip(holds, found, strict=True)]
    return found


def drawn(name: str, likeness: Likeness, surface: Surface, seed: int = 0) -> str:
    """The map of a model called `name` as SVG. Raises HeadAtlasError without matplotlib.

    Distances are those of metric scaling (`Likeness.map`): how well the plane holds them stands under the picture as their
    correlation with the divergences.
    """
    places, of = likeness.map(seed), kinds(surface)
    upper = np.triu_indices(len(places), 1)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)[upper]
    kept = float(np.corrcoef(apart, likeness.divergence[upper])[0, 1]) if len(apart) > 1 else float("nan")

    def paint(figure: Figure) -> None:
        axes = figure.subplots(gridspec_kw={"left": 0.03, "right": 0.97, "top": 0.94, "bottom": 0.1})
        axes.set(xticks=[], yticks=[], aspect="equal", title=f"Heads of {name}: near is alike")
        for number, kind in enumerate(("", *KINDS)):
            chosen = [i for i, one in enumerate(of) if one == kind]
            if chosen:
                colour = COLOURS[number]
                axes.scatter(
                    places[chosen, 0],
                    places[chosen, 1],
                    s=26,
                    color=colour,
                    label=kind or "none of these",
                    gid=f"kind-{number}",
                )
        for head, place, kind in zip(likeness.heads, places, of, strict=True):
            if kind or len(of) <= NAMED:
                axes.annotate(f"{head.layer}.{head.head}", place, (3, 3), textcoords="offset points", fontsize=7)
        axes.legend(loc="best", fontsize=9)
        text = f"Jensen-Shannon divergence of attention rows; the plane keeps distances with correlation {kept:.2f}; axes mean nothing"
        figure.text(0.03, 0.03, text, fontsize=9)

    return plots.svg(WIDE, TALL, "Heads by likeness of their attention", paint)
