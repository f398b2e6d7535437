"""Draws a published circuit: who reads from whom, and through which of its inputs (query, key or value)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.schema import CircuitEdge, CircuitNode, PublishedCircuit
from headatlas.catalogue.site.pictures.edge_routing import KINDS, line, mark, route_edges
from headatlas.catalogue.site.pictures.graph_layout import Rectangle, layered
from headatlas.render.palette import STAGE
from headatlas.render.svg import joined, linked, picture, tag, text, width, wrap

_MARGIN, _LINE, _SMALL = 12.0, 16.0, 11.5
_SIZE = 14.6  # labels are 13 high and bold, which is wider
_LEAST, _MOST, _PADDING = 92.0, 178.0, 36.0
_HEADS_SHOWN = 12
_NARROW = 440.0  # what a phone can show without shrinking the words too far


@dataclass(frozen=True)
class _Box:
    node: CircuitNode
    lines: Sequence[tuple[str, str]]  # (words, class)

    @property
    def size(self) -> tuple[float, float]:
        widest = max(width(words, _SIZE if class_ == "label" else _SMALL) for words, class_ in self.lines)
        return min(_MOST, max(_LEAST, widest + _PADDING)), len(self.lines) * _LINE + 18


def drawing(catalogue: Catalogue, circuit: PublishedCircuit, *, root: str, chosen: str | None = None) -> Markup:
    """The whole circuit; nodes with a head type link to its page, those of the head type `chosen` stand out."""
    boxes = {node.id: _box(node) for node in circuit.nodes}
    arrows = [(edge.source, edge.target) for edge in circuit.edges]
    layout = layered({id_: box.size for id_, box in boxes.items()}, arrows, across=18, down=52)
    drawn = route_edges(layout, circuit.edges)
    names = {node.id: node.label for node in circuit.nodes}
    lines = [line(routed, _said(routed.edge, names)) for routed in drawn]
    # Arrows that meet share one mark.
    marks = dict.fromkeys(mark(routed.edge.kind, routed.end, routed.way) for routed in drawn)
    nodes = [_node(catalogue, box, layout.places[id_], root, chosen) for id_, box in boxes.items()]
    loops = 30.0 if any(routed.way == "left" for routed in drawn) else 0.0
    wide, tall = layout.width + 2 * _MARGIN + loops, layout.height + 2 * _MARGIN
    return picture(
        tag("title", f"Circuit: {circuit.name}"),
        tag("desc", " ".join(f"{_said(edge, names)}." for edge in circuit.edges)),
        joined([*lines, *nodes, *marks]),
        class_="circuit large" if wide > _NARROW else "circuit",
        role="group",
        aria_label=f"Circuit: {circuit.name}",
        corner=-_MARGIN,
        size=(wide, tall),
    )


def miniature(catalogue: Catalogue, circuit: PublishedCircuit, *, chosen: str | None = None) -> Markup:
    """The shape of the circuit, for a card: boxes without words. The card says in words what it is."""
    sizes = {node.id: (34.0, 16.0) if node.head_type else (26.0, 8.0) for node in circuit.nodes}
    layout = layered(sizes, [(edge.source, edge.target) for edge in circuit.edges], across=10, down=15)
    lines = [line(routed) for routed in route_edges(layout, circuit.edges)]
    nodes = [
        tag("rect", x=at.x, y=at.y, width=at.width, height=at.height, rx=3.5, class_=_class(catalogue, node, chosen))
        for node in circuit.nodes
        for at in [layout.places[node.id]]
    ]  # fmt: skip
    return picture(
        joined([*lines, *nodes]),
        class_="miniature",
        aria_hidden="true",
        corner=-4,
        size=(layout.width + 8, layout.height + 8),
    )


def _said(edge: CircuitEdge, names: dict[str, str]) -> str:
    return f"{names[edge.source]} → {names[edge.target]}, {KINDS[edge.kind][0]}" + (
        f": {edge.note}" if edge.note else ""
    )


def _box(node: CircuitNode) -> _Box:
    room = _MOST - _PADDING
    lines = [(words, "label") for words in wrap(node.label, _SIZE, room, most=3)]
    shown = node.heads[:_HEADS_SHOWN]
    lines += [(words, "heads") for words in wrap(" ".join(shown), _SMALL, room, most=6)]
    if len(node.heads) > len(shown):
        lines.append((f"and {len(node.heads) - len(shown)} more", "at"))
    if node.positions:
        lines += [(words, "at") for words in wrap(f"at {node.positions}", _SMALL, room, most=2)]
    return _Box(node, lines)


def _class(catalogue: Catalogue, node: CircuitNode, chosen: str | None) -> str:
    if node.head_type is None:
        return "node plain"
    return f"node stage-{catalogue.heads[node.head_type].stage}" + (" chosen" if node.head_type == chosen else "")


def _node(catalogue: Catalogue, box: _Box, at: Rectangle, root: str, chosen: str | None) -> Markup:
    node, kind = box.node, catalogue.heads.get(box.node.head_type or "")
    x, y = at.x + (26 if kind else 14), at.y + 9 + _LINE * 0.78
    parts = [tag("rect", x=at.x, y=at.y, width=at.width, height=at.height, rx=9.0, class_="box")]
    if kind:
        parts.append(tag("text", STAGE[kind.stage].filled, x=at.x + 10, y=y, class_="glyph"))
    parts += [text(x, y + _LINE * index, words, class_) for index, (words, class_) in enumerate(box.lines)]
    if kind is None:
        return tag("g", *parts, class_=_class(catalogue, node, chosen), data_node=node.id)
    said = f"{' '.join(words for words, _ in box.lines)}: {kind.name}"
    title = f"{node.label}: {kind.name}" + (f", heads {', '.join(node.heads)}" if node.heads else "")
    drawn = tag("g", tag("title", title), *parts, class_=_class(catalogue, node, chosen), data_node=node.id)
    return linked(f"{root}heads/{kind.id}.html", said, [drawn])
