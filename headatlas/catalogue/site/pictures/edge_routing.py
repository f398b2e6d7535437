"""The arrows of a circuit: where they leave and arrive, how they run, and the mark of the input they arrive at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

from markupsafe import Markup

from headatlas.catalogue.schema import CircuitEdge, PublishedCircuit
from headatlas.catalogue.site.pictures.graph_layout import Layout, Point, Rectangle
from headatlas.render.svg import joined, short, tag

KINDS = {
    "q": ("query", "decides where the reader looks"),
    "k": ("key", "decides what is found there"),
    "v": ("value", "is what the reader copies"),
    "residual": ("residual stream", "is read, the input is not known"),
    "logits": ("logits", "raises or lowers the output"),
}
INPUTS = frozenset("qkv")
_RADIUS = 8.5
Way = Literal["down", "up", "left", "right"]
T = TypeVar("T")


@dataclass(frozen=True)
class RoutedEdge:
    """An arrow from `start` to `end`, and the way it points where it arrives."""

    edge: CircuitEdge
    start: Point
    end: Point
    way: Way
    passes: Sequence[Rectangle]


def route_edges(layout: Layout, edges: Sequence[CircuitEdge]) -> list[RoutedEdge]:
    """Arrows that arrive at the same input meet in one place; these places, and those of departure, stand in a row."""
    arrive, leave = _arrivals(layout, edges), _departures(layout, edges)
    made = []
    for index, edge in enumerate(edges):
        source, target = layout.places[edge.source], layout.places[edge.target]
        if edge.source == edge.target:
            side, middle = source.x + source.width, source.y + source.height / 2
            made.append(RoutedEdge(edge, (side, middle - 12), (side, middle + 12), "left", ()))
        elif index in layout.turned:
            start, end = (leave[index], source.y), (arrive[index], target.y + target.height)
            made.append(RoutedEdge(edge, start, end, "up", layout.passes[index][::-1]))
        else:
            start, end = (leave[index], source.y + source.height), (arrive[index], target.y)
            made.append(RoutedEdge(edge, start, end, "down", layout.passes[index]))
    return made


def _arrivals(layout: Layout, edges: Sequence[CircuitEdge]) -> dict[int, float]:
    """The x at which each arrow arrives, by index."""
    inputs: dict[tuple[str, bool, str], list[int]] = {}
    for index, edge in enumerate(edges):
        inputs.setdefault((edge.target, index in layout.turned, edge.kind), []).append(index)

    def origin(index: int) -> float:
        passes, last = layout.passes[index], 0 if index in layout.turned else -1
        return passes[last].middle if passes else layout.places[edges[index].source].middle

    found: dict[int, float] = {}
    for side in dict.fromkeys(key[:2] for key in inputs):
        own = [key for key in inputs if key[:2] == side]
        own.sort(key=lambda key: (sum(map(origin, inputs[key])) / len(inputs[key]), key))
        for x, key in _row(layout.places[side[0]], own, 26):
            found |= dict.fromkeys(inputs[key], x)
    return found


def _departures(layout: Layout, edges: Sequence[CircuitEdge]) -> dict[int, float]:
    """The x at which each arrow leaves, by index; in the order of where they go."""

    def goal(index: int) -> float:
        passes, first = layout.passes[index], -1 if index in layout.turned else 0
        return passes[first].middle if passes else layout.places[edges[index].target].middle

    sides: dict[tuple[str, bool], list[int]] = {}
    for index, edge in enumerate(edges):
        sides.setdefault((edge.source, index in layout.turned), []).append(index)
    found: dict[int, float] = {}
    for (name, _), own in sides.items():
        found |= {index: x for x, index in _row(layout.places[name], sorted(own, key=lambda i: (goal(i), i)), 18)}
    return found


def _row(box: Rectangle, things: Sequence[T], gap: float) -> list[tuple[float, T]]:
    """Things beside each other on an edge of the box, around its middle."""
    step = min(gap, (box.width - 20) / max(1, len(things)))
    return [(box.middle + (i - (len(things) - 1) / 2) * step, thing) for i, thing in enumerate(things)]


def line(routed: RoutedEdge, said: str = "") -> Markup:
    """The arrow's line; `said` is shown where it is pointed at."""
    titles = [tag("title", said)] if said else []
    return tag("path", *titles, d=_path(routed), class_=f"wire wire-{routed.edge.kind}", **_ends(routed.edge))


def _ends(edge: CircuitEdge) -> dict[str, str]:
    return {"data_from": edge.source, "data_to": edge.target}


def _path(routed: RoutedEdge) -> str:
    if routed.way == "left":
        (x, y), (x2, y2) = routed.start, routed.end
        return f"M{short(x)} {short(y)}C{short(x + 34)} {short(y)} {short(x + 34)} {short(y2)} {short(x2)} {short(y2)}"
    points = [routed.start]
    for box in routed.passes:
        ends = [(box.middle, box.y), (box.middle, box.y + box.height)]
        points += ends if routed.way == "down" else ends[::-1]
    points.append(routed.end)
    steps = [f"M{short(points[0][0])} {short(points[0][1])}"]
    for index, ((x, y), (x2, y2)) in enumerate(pairwise(points)):
        half = (y + y2) / 2
        # Every second piece lies within a layer and is straight.
        curve = f"C{short(x)} {short(half)} {short(x2)} {short(half)} {short(x2)} {short(y2)}"
        steps.append(f"V{short(y2)}" if index % 2 else curve)
    return "".join(steps)


def mark(kind: str, end: Point, way: Way) -> Markup:
    """What stands at the arrow's end: the letter of a head's input, or an arrowhead."""
    x, y = end
    if kind in INPUTS:
        disc = tag("circle", cx=x, cy=y, r=_RADIUS, class_=f"port port-{kind}")
        return joined([disc, tag("text", kind.upper(), x=x, y=y + 3.8, class_="letter", text_anchor="middle")])
    along, aside = {"down": ((0, -1), (1, 0)), "up": ((0, 1), (1, 0)), "left": ((1, 0), (0, 1)), "right": ((-1, 0), (0, 1))}[way]  # fmt: skip
    back = (x + 8 * along[0], y + 8 * along[1])
    corners = [(back[0] + side * 4.5 * aside[0], back[1] + side * 4.5 * aside[1]) for side in (-1, 1)]
    steps = "L".join(f"{short(px)} {short(py)}" for px, py in [end, *corners])
    return tag("path", d=f"M{steps}Z", class_=f"arrow arrow-{kind}")


def key(circuits: Sequence[PublishedCircuit]) -> Markup:
    """What the arrows mean, for the kinds that occur in these circuits."""
    used = {edge.kind for circuit in circuits for edge in circuit.edges}
    items = []
    for kind, (name, meaning) in KINDS.items():
        if kind in used:
            parts = [tag("path", d="M2 10H42", class_=f"wire wire-{kind}"), mark(kind, (50.0, 10.0), "right")]
            sample = tag("svg", *parts, viewBox="0 0 62 20", width=62, height=20, aria_hidden="true", class_="circuit")
            items.append(tag("li", sample, tag("span", tag("b", name), f" {meaning}")))
    return tag("ul", joined(items), class_="wire-key")
