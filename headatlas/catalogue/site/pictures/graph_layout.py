"""Places the boxes of a small flow chart in layers, from top to bottom, so that few arrows cross.

The classic four steps: turn arrows that close a cycle, give every box a layer, order each layer by where its neighbours
stand, then move the boxes below each other. An arrow over several layers gets a narrow place in each, so that it passes
between boxes and not behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 12
Point = tuple[float, float]
_PASSING = 14.0  # room for an arrow that passes a layer


@dataclass(frozen=True)
class Rectangle:
    """Where a box stands: its left upper corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The x of its centre."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Layout:
    """Boxes by id, what each arrow passes (in the order it is drawn, from the upper box to the lower), and the size.

    `turned` holds the indices of arrows that run upwards, against the layers.
    """

    places: Mapping[str, Rectangle]
    passes: Sequence[Sequence[Rectangle]]
    turned: frozenset[int]
    width: float
    height: float


def layered(
    sizes: Mapping[str, tuple[float, float]], arrows: Sequence[tuple[str, str]], *, across: float, down: float
) -> Layout:
    """Lay out boxes of these sizes; `across` and `down` are the gaps. Arrows from a box to itself take no part."""
    turned = _turned(list(sizes), arrows)
    edges = [(b, a) if index in turned else (a, b) for index, (a, b) in enumerate(arrows)]
    layer = _layers(list(sizes), [(a, b) for a, b in edges if a != b])
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for name, row in layer.items():
        rows[row].append(name)
    widths = {name: width for name, (width, _) in sizes.items()}
    chains: list[list[str]] = []
    for index, (above, below) in enumerate(edges):
        passing = [f"\0{index}:{row}" for row in range(layer[above] + 1, layer[below])]
        for row, name in enumerate(passing, start=layer[above] + 1):
            rows[row].append(name)
            widths[name] = _PASSING
        chains.append([above, *passing, below])
    links = [link for chain in chains for link in pairwise(chain) if link[0] != link[1]]
    rows = _ordered(rows, links)
    centre = _aligned(rows, links, widths, across)
    left = min((centre[name] - widths[name] / 2 for name in centre), default=0.0)
    places: dict[str, Rectangle] = {}
    top = 0.0
    for names in rows:
        tall = max((sizes[name][1] for name in names if name in sizes), default=0.0)
        for name in names:
            width, height = sizes.get(name, (_PASSING, tall))
            places[name] = Rectangle(centre[name] - width / 2 - left, top + (tall - height) / 2, width, height)
        top += tall + down
    return Layout(
        places={name: places[name] for name in sizes},
        passes=[[places[name] for name in chain[1:-1]] for chain in chains],
        turned=turned,
        width=max((place.x + place.width for place in places.values()), default=0.0),
        height=max(0.0, top - down),
    )


def _turned(names: Sequence[str], arrows: Sequence[tuple[str, str]]) -> frozenset[int]:
    """The arrows that lead back to a box on the way that a walk along the arrows has come by."""
    leaving: dict[str, list[int]] = {name: [] for name in names}
    for index, (source, target) in enumerate(arrows):
        if source != target:
            leaving[source].append(index)
    found: set[int] = set()
    unseen, on_the_way = set(names), set[str]()
    for start in names:
        way = [(start, iter(leaving[start]))] if start in unseen else []
        unseen.discard(start)
        on_the_way.add(start)
        while way:
            name, rest = way[-1]
            for index in rest:
                target = arrows[index][1]
                if target in unseen:
                    unseen.discard(target)
                    on_the_way.add(target)
                    way.append((target, iter(leaving[target])))
                    break
                if target in on_the_way:
                    found.add(index)
            else:
                on_the_way.discard(name)
                way.pop()
        on_the_way.clear()
    return frozenset(found)


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Each box below all that lead to it; boxes to which nothing leads stand right above the first they lead to."""
    layer = dict.fromkeys(names, 0)
    for _ in names:
        for above, below in edges:
            layer[below] = max(layer[below], layer[above] + 1)
    reached = {below for _, below in edges}
    for name in names:
        next_rows = [layer[below] for above, below in edges if above == name]
        if name not in reached and next_rows:
            layer[name] = min(next_rows) - 1
    return layer


def _ordered(rows: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The rows, each in an order found by sweeping down and up; of all orders tried the one with fewest crossings."""
    above, below = _neighbours(links)
    best, fewest = [list(row) for row in rows], _crossings(rows, links)
    rows = [list(row) for row in rows]
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for index in range(len(rows)) if down else reversed(range(len(rows))):
            other = rows[index - 1] if down else rows[(index + 1) % len(rows)]
            at = {name: place / max(1, len(other) - 1) for place, name in enumerate(other)}
            own = {name: place / max(1, len(rows[index]) - 1) for place, name in enumerate(rows[index])}
            rows[index].sort(key=lambda name: _mean((at[n] for n in neighbours.get(name, ()) if n in at), own[name]))
        crossings = _crossings(rows, links)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _neighbours(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for upper, lower in links:
        below.setdefault(upper, []).append(lower)
        above.setdefault(lower, []).append(upper)
    return above, below


def _crossings(rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    at = {name: (row, place) for row, names in enumerate(rows) for place, name in enumerate(names)}
    ends = [(at[a][0], at[a][1], at[b][1]) for a, b in links]
    return sum(
        row == other and (a - c) * (b - d) < 0 for index, (row, a, b) in enumerate(ends) for other, c, d in ends[:index]
    )


def _mean(values: Iterable[float], otherwise: float) -> float:
    found = list(values)
    return sum(found) / len(found) if found else otherwise


def _aligned(
    rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]], widths: Mapping[str, float], across: float
) -> dict[str, float]:
    """The centre of each box: as near to the mean of its neighbours' centres as its row allows."""
    above, below = _neighbours(links)
    centre: dict[str, float] = {}
    for row in rows:
        at = -(sum(widths[name] for name in row) + across * (len(row) - 1)) / 2
        for name in row:
            centre[name] = at + widths[name] / 2
            at += widths[name] + across
    for sweep in range(2 * _SWEEPS):  # the last two look both ways
        last = sweep >= 2 * _SWEEPS - 2
        for row in rows if sweep % 2 == 0 else reversed(rows):
            near = [
                [*above.get(name, ()), *below.get(name, ())]
                if last
                else (above if sweep % 2 == 0 else below).get(name, [])
                for name in row
            ]
            wanted = [_mean((centre[n] for n in around), centre[name]) for name, around in zip(row, near, strict=True)]
            gaps = [(widths[a] + widths[b]) / 2 + across for a, b in pairwise(row)]
            centre.update(zip(row, spread(wanted, gaps), strict=True))
    return centre


def spread(wanted: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """The numbers nearest to the wanted ones (least squares) of which each exceeds the one before by at least its gap.

    >>> spread([0, 0, 5], [2, 2])
    [-1.0, 1.0, 5.0]
    """
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, int]] = []  # mean and count of neighbours that had to be moved together
    for want, offset in zip(wanted, offsets, strict=False):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [float(mean + offset) for mean, offset in zip(flat, offsets, strict=False)]
