"""The training curve of a toy, its phase change, and a drawing of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headatlas.render import plots
from headatlas.render.palette import PICTURE, SERIES, STAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE, _TALL = 720, 540
_LABEL = 14  # the height of a label in pixels
_FIRST, _SECOND, _QUIET = SERIES[0], SERIES[1], PICTURE["soft"].light
_BAND = STAGE["kr"].tint.light + "60"  # so faint that curves show through


@dataclass(frozen=True)
class Point:
    """One measurement during training. loss: on held-out texts; early, late: at their first and last tokens.

    prefix_matching, previous_token: [layer][head] share of attention, read from the model's eager attention.
    """

    step: int
    loss: float
    early: float
    late: float
    prefix_matching: tuple[tuple[float, ...], ...]
    previous_token: tuple[tuple[float, ...], ...]

    @property
    def icl(self) -> float:
        """In-context learning score: late minus early loss; negative where context helps."""
        return self.late - self.early

    def best(self, what: str) -> float:
        """The largest share of any head: of `prefix_matching` or `previous_token`."""
        shares: tuple[tuple[float, ...], ...] = getattr(self, what)
        return max(max(layer) for layer in shares)


@dataclass(frozen=True)
class Curve:
    """A toy's training: its points, the losses of simpler predictors, and prefix matching by even attention."""

    title: str
    points: tuple[Point, ...]
    levels: Mapping[str, float]
    chance: float

    @property
    def phase(self) -> tuple[int, int] | None:
        """The steps in which the induction head forms: the best head's prefix matching covers the middle of its rise.

        From a fifth to four fifths of the way between its first and its largest value; None where it rises by less
        than 0.2.
        """
        return self._middle([point.best("prefix_matching") for point in self.points], least=0.2)

    @property
    def fall(self) -> tuple[int, int] | None:
        """The same for the in-context learning score; None where it falls by less than 0.05 nats."""
        return self._middle([-point.icl for point in self.points], least=0.05)

    def _middle(self, values: Sequence[float], least: float) -> tuple[int, int] | None:
        start, rise = values[0], max(values) - values[0]
        if rise < least:
            return None
        first = next(i for i, value in enumerate(values) if value >= start + 0.2 * rise)
        last = next(i for i, value in enumerate(values) if value >= start + 0.8 * rise)
        return self.points[first].step, self.points[last].step


def draw(curve: Curve) -> str:
    """The curve as one SVG: losses above, the heads' attention below, the phase change as a band in both.

    Raises HeadAtlasError where matplotlib is missing.
    """
    phase = curve.phase
    said = f"induction head forms: steps {phase[0]} to {phase[1]}" if phase else "no induction head forms"
    if curve.fall:
        said += f"; in-context learning score falls: steps {curve.fall[0]} to {curve.fall[1]}"

    def paint(figure: Figure) -> None:
        figure.text(0.08, 0.965, curve.title, weight="bold", size=12)
        figure.text(0.08, 0.93, said, color=_QUIET)
        losses, attention = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"left": 0.08, "right": 0.79, "top": 0.87, "bottom": 0.09, "hspace": 0.26}
        )
        every = [
            *(value for point in curve.points for value in (point.early, point.late, point.loss)),
            *curve.levels.values(),
        ]
        # The axis starts at 0 unless that would press all curves against the upper edge.
        low = 0.0 if min(every) < 0.5 * max(every) else 0.95 * min(every)
        losses.set(title="loss (nats)", ylim=(low, 1.02 * max(every)), xlim=(0, max(curve.points[-1].step, 1)))
        attention.set(title="attention of the best head", ylim=(0, 1), xlabel="training step")
        for axes in (losses, attention):
            axes.grid(axis="y")
            if phase:
                axes.axvspan(*phase, color=_BAND, linewidth=0, gid=f"phase-{axes.get_title(loc='left').split()[0]}")
        lines = [
            _line(losses, curve, "all tokens", lambda point: point.loss, _QUIET, 1.0),
            _line(losses, curve, "early tokens", lambda point: point.early, _FIRST),
            _line(losses, curve, "late tokens", lambda point: point.late, _SECOND),
        ]
        _name(losses, lines, curve.levels)
        lines = [
            _line(attention, curve, "previous token", lambda point: point.best("previous_token"), _FIRST),
            _line(attention, curve, "prefix matching", lambda point: point.best("prefix_matching"), _SECOND),
        ]
        _name(attention, lines, {"even attention": curve.chance})

    return plots.svg(_WIDE, _TALL, f"{curve.title}: {said}", paint)


def _line(
    axes: Axes, curve: Curve, name: str, value: Callable[[Point], float], color: str, width: float = 2.0
) -> tuple[float, str, str]:
    """Draw one curve; its last value, name and colour."""
    steps, values = [point.step for point in curve.points], [value(point) for point in curve.points]
    axes.plot(steps, values, color=color, linewidth=width, gid=f"line-{name.replace(' ', '-')}")
    return values[-1], name, color


def _name(axes: Axes, lines: Sequence[tuple[float, str, str]], levels: Mapping[str, float]) -> None:
    """Dashed lines at the levels, and all names at the right ends, moved down where they would lie on each other."""
    for value in levels.values():
        axes.axhline(value, color=_QUIET, linewidth=1, linestyle=(0, (4, 3)))
    below = float("inf")
    for value, name, color in sorted(
        [*lines, *((value, name, _QUIET) for name, value in levels.items())], reverse=True
    ):
        height = float(axes.transData.transform((0, value))[1])  # in pixels from below; the figure has its size already
        below = min(height, below - _LABEL)
        axes.annotate(
            name, (1, value), xycoords=("axes fraction", "data"), xytext=(6, below - height), textcoords="offset points",
            va="center", color=color,
        )  # fmt: skip
