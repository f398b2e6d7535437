"""Routes as data and files: JSON, GraphML for graph programs, and a drawing as SVG or as a page that opens offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from headatlas.choices import ROUTE_FILE
from headatlas.methods.information_flow.routes import Edge, Node, Route
from headatlas.model import Model
from headatlas.store import write_json, write_text

SCHEMA = "headatlas/flow/1"
COLOURS = {"attention": "#c2410c", "mlp": "#0f766e", "residual": "#94a3b8"}
STEP, ROW, LEFT, TOP = 74, 17, 46, 34  # sizes of the drawing, in pixels


def pieces(model: Model, route: Route) -> list[str]:
    """The tokens as text, or as numbers where the model has no tokenizer."""
    if not model.tokenizer.has_text:
        return [str(one) for one in route.tokens]
    return [model.tokenizer.decode(one) for one in route.tokens]


def data_of(model: Model, route: Route) -> dict[str, Any]:
    """The route as plain data."""
    return {
        "schema": SCHEMA,
        "model": model.name,
        "start_end": route.start_end,
        "tokens": [{"id": one, "text": text} for one, text in zip(route.tokens, pieces(model, route), strict=True)],
        "target": list(route.target),
        "threshold": route.threshold,
        "nodes": [{"depth": node.depth, "position": node.position, "where": where(node)} for node in route.nodes],
        "edges": [
            {
                "source": list(edge.source),
                "target": list(edge.target),
                "kind": edge.kind,
                "weight": edge.weight,
                "heads": {str(head): weight for head, weight in strongest(edge)},
            }
            for edge in route.edges
        ],
        "heads": {str(head): weight for head, weight in route.heads().items()},
    }


def strongest(edge: Edge) -> list[tuple[Any, float]]:
    """The heads of an edge that carry at least a hundredth of it, largest first."""
    known = [(head, weight) for head, weight in edge.heads.items() if weight >= 0.01 * edge.weight]
    return sorted(known, key=lambda item: -item[1])


def where(node: Node) -> str:
    """A depth for people."""
    if node.depth == 0:
        return "embedding"
    return f"{'after attention' if node.depth % 2 else 'after block'} {(node.depth - 1) // 2}"


def graphml(model: Model, route: Route) -> str:
    """The route as GraphML, for Gephi, Cytoscape, NetworkX and others."""
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    keys = {"node": {"token": "string", "position": "int", "depth": "int", "where": "string"},
            "edge": {"kind": "string", "weight": "double", "heads": "string"}}  # fmt: skip
    for kind, names in keys.items():
        for name, value in names.items():
            ElementTree.SubElement(
                root, "key", {"id": f"{kind}-{name}", "for": kind, "attr.name": name, "attr.type": value}
            )
    graph = ElementTree.SubElement(root, "graph", id="route", edgedefault="directed")
    text = pieces(model, route)

    def put(parent: ElementTree.Element, kind: str, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            ElementTree.SubElement(parent, "data", key=f"{kind}-{name}").text = _xml(str(value))

    for node in route.nodes:
        at = ElementTree.SubElement(graph, "node", id=_id(node))
        put(
            at,
            "node",
            {"token": text[node.position], "position": node.position, "depth": node.depth, "where": where(node)},
        )
    for number, edge in enumerate(route.edges):
        at = ElementTree.SubElement(graph, "edge", id=f"e{number}", source=_id(edge.source), target=_id(edge.target))
        heads = " ".join(f"{head}={weight:.4f}" for head, weight in strongest(edge))
        put(at, "edge", {"kind": edge.kind, "weight": repr(edge.weight), "heads": heads})
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _id(node: Node) -> str:
    return f"d{node.depth}p{node.position}"


def _xml(text: str) -> str:
    """Text without the characters that XML forbids; other whitespace than spaces is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def svg(model: Model, route: Route) -> str:
    """The route as a drawing: tokens from left to right, depth upwards, thicker lines for more important edges."""
    tokens, top = pieces(model, route), route.target.depth
    width, height = LEFT + STEP * len(tokens), TOP + ROW * top + 40
    place = lambda node: (LEFT + STEP * node.position + STEP // 2, TOP + ROW * (top - node.depth))  # noqa: E731
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="11">',
        f"<title>Information flow route in {escape(model.name)}, threshold {route.threshold:g}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for x, (kind, colour) in zip((LEFT, LEFT + 90, LEFT + 150), COLOURS.items(), strict=True):
        lines.append(f'<text x="{x}" y="16" fill="{colour}">{kind}</text>')
    for depth in range(0, top + 1, 2):
        name = "in" if depth == 0 else str(depth // 2 - 1)
        lines.append(f'<text x="6" y="{TOP + ROW * (top - depth) + 4}" fill="#475569">{name}</text>')
    for edge in sorted(route.edges, key=lambda edge: edge.weight):
        lines.append(_line(edge, place(edge.source), place(edge.target), tokens))
    for node in route.nodes:
        x, y = place(node)
        title = f"{_xml(tokens[node.position])} {where(node)}"
        lines.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="#0f172a"><title>{escape(title)}</title></circle>')
    for position, text in enumerate(tokens):
        x, y = place(Node(0, position))
        shown = text if len(text) <= 10 else text[:9] + "…"
        lines.append(f'<text x="{x}" y="{y + 24}" text-anchor="middle" fill="#0f172a">{escape(_xml(shown))}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _line(edge: Edge, start: tuple[int, int], end: tuple[int, int], tokens: list[str]) -> str:
    (x0, y0), (x1, y1) = start, end
    bend = 12 if edge.kind == "mlp" else 0  # beside the residual stream, which joins the same two points
    path = f"M{x0} {y0}C{x0 + bend} {(y0 + y1) / 2:g} {x1 + bend} {(y0 + y1) / 2:g} {x1} {y1}"
    by = ", ".join(f"{head} {weight:.3f}" for head, weight in strongest(edge)[:5])
    title = f"{edge.kind} {edge.weight:.3f} from {_xml(tokens[edge.source.position])} {where(edge.source)}"
    return (
        f'<path d="{path}" fill="none" stroke="{COLOURS[edge.kind]}" stroke-opacity="0.8" '
        f'stroke-width="{0.6 + 5 * edge.weight:.2f}"><title>{escape(title + (f": {by}" if by else ""))}</title></path>'
    )


def html(model: Model, route: Route) -> str:
    """A page with the drawing and its heads, which needs nothing else."""
    rows = "".join(f"<tr><td>{head}</td><td>{weight:.3f}</td></tr>" for head, weight in route.heads().items())
    style = (
        "body{font-family:system-ui,sans-serif;margin:2rem;color:#0f172a}td,th{padding:.1rem .8rem .1rem 0;text-align:left}"
        ".drawing{overflow-x:auto}"
    )
    target = escape(_xml(pieces(model, route)[route.target.position]))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Information flow in {escape(model.name)}'
        f"</title><style>{style}</style></head><body><h1>Information flow in {escape(model.name)}</h1>"
        f"<p>What the prediction after “{target}” was built from: edges above {route.threshold:g} of what arrives at their "
        "end. Hover over a line for its heads.</p>"
        f'<div class="drawing">{svg(model, route)}</div>'
        f"<h2>Heads on the route</h2><table><tr><th>Head</th><th>Importance</th></tr>{rows}</table></body></html>\n"
    )


WRITERS: Mapping[str, Callable[[Model, Route], str]] = {".svg": svg, ".html": html, ".graphml": graphml}


def write(model: Model, route: Route, path: Path) -> None:
    """Write a route in the form that the file's ending says. Raises BadInput, StoreError."""
    if path.suffix == ".json":
        write_json(path, data_of(model, route))
        return
    ROUTE_FILE.demand(path.suffix)
    write_text(path, WRITERS[path.suffix](model, route))
