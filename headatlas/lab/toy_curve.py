"""The training curve of a toy, its phase change, and a drawing of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _GAP = 720, 190, 58, 150, 68, 52
_LINE = 14  # the height of a label
_STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff }
text { fill: #222 } .axis { stroke: #888 } .grid { stroke: #ddd } .phase { fill: #f4d58d; opacity: .5 }
.level { stroke: #888; stroke-dasharray: 4 3 } .line { fill: none; stroke-width: 2 } .small { font-size: 11px }
.a { stroke: #1b6ca8 } .b { stroke: #c2410c } .c { stroke: #777; stroke-width: 1 } text.c { stroke: none }
text.a { fill: #1b6ca8; stroke: none } text.b { fill: #c2410c; stroke: none }
@media (prefers-color-scheme: dark) {
svg { background: #14171a } text { fill: #e6e6e6 } .grid { stroke: #333 } .phase { fill: #6b5b1f }
.a { stroke: #6db3e8 } .b { stroke: #f59e6b } text.a { fill: #6db3e8 } text.b { fill: #f59e6b } }
"""


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
    """The curve as one SVG: losses above, the heads' attention below, the phase change as a band across both."""
    steps = [float(point.step) for point in curve.points]
    early, late = [point.early for point in curve.points], [point.late for point in curve.points]
    prefix = [point.best("prefix_matching") for point in curve.points]
    previous = [point.best("previous_token") for point in curve.points]
    whole = [point.loss for point in curve.points]
    every = [*early, *late, *whole, *curve.levels.values()]
    # The axis starts at 0 unless that would press all curves against the upper edge.
    low = 0.0 if min(every) < 0.5 * max(every) else 0.95 * min(every)
    height = _TOP + 2 * _PANEL + _GAP + 42
    phase = curve.phase
    said = f"induction head forms: steps {phase[0]} to {phase[1]}" if phase else "no induction head forms"
    if curve.fall:
        said += f"; in-context learning score falls: steps {curve.fall[0]} to {curve.fall[1]}"
    upper = _Panel(0, max(steps[-1], 1.0), low, 1.02 * max(every))
    lower = _Panel(1, max(steps[-1], 1.0), 0.0, 1.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(curve.title)}: {said}</title><style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="20" font-weight="600">{escape(curve.title)}</text>',
        f'<text x="{_LEFT}" y="36" class="small">{said}</text>',
    ]
    if phase:
        x0, x1 = upper.x(phase[0]), upper.x(phase[1])
        band = f'x="{x0:.1f}" width="{max(x1 - x0, 2):.1f}" height="{2 * _PANEL + _GAP}"'
        parts.append(f'<rect class="phase" y="{_TOP}" {band}/>')
    upper.frame("loss (nats)")
    for name, value in curve.levels.items():
        upper.level(name, value)
    upper.line("c", "all tokens", steps, whole)
    upper.line("a", "early tokens", steps, early)
    upper.line("b", "late tokens", steps, late)
    lower.frame("attention of the best head")
    lower.level("even attention", curve.chance)
    lower.line("a", "previous token", steps, previous)
    lower.line("b", "prefix matching", steps, prefix)
    parts += [*upper.finished(), *lower.finished()]
    parts.append(f'<text x="{_LEFT + upper.across / 2:.0f}" y="{height - 6}" text-anchor="middle">training step</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Panel:
    """One of the two drawings: its scales, and what has been drawn so far."""

    across = _WIDTH - _LEFT - _RIGHT

    def __init__(self, row: int, last: float, bottom: float, top: float) -> None:
        self.base = _TOP + row * (_PANEL + _GAP) + _PANEL
        self.last, self.bottom, self.top = last, bottom, top
        self.parts: list[str] = []
        self.labels: list[tuple[float, str, str]] = []

    def x(self, step: float) -> float:
        return _LEFT + self.across * step / self.last

    def y(self, value: float) -> float:
        return self.base - _PANEL * (value - self.bottom) / (self.top - self.bottom)

    def frame(self, label: str) -> None:
        """The axes with five marks each."""
        right, upper = _LEFT + self.across, self.base - _PANEL
        self.parts.append(f'<text class="small" x="{_LEFT}" y="{upper - 8}">{label}</text>')
        for i in range(5):
            value, step = self.bottom + (self.top - self.bottom) * i / 4, self.last * i / 4
            y, x = self.y(value), self.x(step)
            self.parts += [
                f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>',
                f'<text class="small" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>',
                f'<text class="small" x="{x:.1f}" y="{self.base + 15}" text-anchor="middle">{step:.0f}</text>',
            ]
        self.parts.append(f'<path class="axis" fill="none" d="M{_LEFT} {upper}V{self.base}H{right}"/>')

    def level(self, name: str, value: float) -> None:
        """A dashed line at `value`."""
        y, right = self.y(value), _LEFT + self.across
        self.parts.append(f'<line class="level" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        self.labels.append((y, name, ""))

    def line(self, style: str, name: str, steps: Sequence[float], values: Sequence[float]) -> None:
        """One curve."""
        path = " ".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in zip(steps, values, strict=True))
        self.parts.append(f'<polyline class="line {style}" points="{path}"/>')
        self.labels.append((self.y(values[-1]), name, style))

    def finished(self) -> list[str]:
        """All parts, with the names at the right ends moved down where they would lie on each other."""
        below, labels = float("-inf"), []
        for y, name, style in sorted(self.labels):
            below = max(y, below + _LINE)
            x = _LEFT + self.across + 6
            labels.append(f'<text class="{style} small" x="{x}" y="{below + 4:.1f}">{escape(name)}</text>')
        return [*self.parts, *labels]
