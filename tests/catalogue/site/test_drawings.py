"""Drawings: boxes do not lie on each other, arrows run the way they should, charts show every paper."""

from __future__ import annotations

import re
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headatlas.catalogue import load
from headatlas.catalogue.site.context import SiteContext
from headatlas.catalogue.site.pictures.circuit import drawing, miniature
from headatlas.catalogue.site.pictures.edge_routing import route_edges
from headatlas.catalogue.site.pictures.graph_layout import layered, spread
from headatlas.catalogue.site.pictures.stages import figure
from headatlas.catalogue.site.pictures.trends import growth, lifelines, months, named_first
from headatlas.render.svg import short, tag, width, wrap
from tests.catalogue.site.links import read

CIRCUITS = load().circuits


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return (
        a[0] < b[0] + b[2] - 0.01
        and b[0] < a[0] + a[2] - 0.01
        and a[1] < b[1] + b[3] - 0.01
        and b[1] < a[1] + a[3] - 0.01
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9),
    arrows=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20),
    wide=st.lists(st.floats(10, 200), min_size=9, max_size=9),
)
def test_any_graph_is_laid_out_without_overlap(n: int, arrows: list[tuple[int, int]], wide: list[float]):
    sizes = {str(i): (wide[i], 30.0) for i in range(n)}
    links = [(str(a), str(b)) for a, b in arrows if a < n and b < n]
    layout = layered(sizes, links, across=10, down=40)
    boxes = [(p.x, p.y, p.width, p.height) for p in layout.places.values()]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    for index, (source, target) in enumerate(links):
        if source != target:
            assert (layout.places[source].y < layout.places[target].y) == (index not in layout.turned)
    assert all(
        box[0] >= -0.01 and box[0] + box[2] <= layout.width + 0.01 and box[1] + box[3] <= layout.height + 0.01
        for box in boxes
    )


def test_boxes_are_ordered_so_that_arrows_do_not_cross():
    sizes = dict.fromkeys("abcdef", (50.0, 20.0))
    layout = layered(sizes, [("a", "f"), ("b", "e"), ("c", "d")], across=10, down=40)
    x = {name: place.x for name, place in layout.places.items()}
    assert x["a"] == pytest.approx(x["f"])
    assert x["b"] == pytest.approx(x["e"])
    assert x["c"] == pytest.approx(x["d"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(1, 20)), min_size=1, max_size=8))
def test_spread_keeps_gaps_and_moves_no_more_than_needed(wanted: list[tuple[float, float]]):
    goals, gaps = [want for want, _ in wanted], [gap for _, gap in wanted[1:]]
    found = spread(goals, gaps)
    for (a, b), gap in zip(pairwise(found), gaps, strict=True):
        assert b - a >= gap - 1e-6
    cost = sum((a - b) ** 2 for a, b in zip(found, goals, strict=True))
    for shift in (-0.5, 0.5):  # no shift of a tail or of all is better
        for start in range(len(found)):
            moved = [*found[:start], *(x + shift for x in found[start:])]
            if all(b - a >= gap - 1e-9 for a, b, gap in zip(moved, moved[1:], gaps, strict=False)):
                assert sum((a - b) ** 2 for a, b in zip(moved, goals, strict=True)) >= cost - 1e-6


@pytest.mark.parametrize("id_", CIRCUITS)
def test_arrows_of_a_circuit_pass_beside_its_boxes(id_: str):
    circuit = CIRCUITS[id_]
    sizes = {node.id: (120.0, 60.0) for node in circuit.nodes}
    layout = layered(sizes, [(edge.source, edge.target) for edge in circuit.edges], across=16, down=50)
    boxes = {name: (p.x, p.y, p.width, p.height) for name, p in layout.places.items()}
    for routed in route_edges(layout, circuit.edges):
        for passed in routed.passes:
            at = (passed.x, passed.y, passed.width, passed.height)
            assert not [name for name, box in boxes.items() if overlap(at, box)], routed.edge
        assert routed.start[1] < routed.end[1]


@pytest.mark.parametrize("id_", CIRCUITS)
def test_a_drawing_names_every_node_and_links_every_head_type(id_: str):
    circuit = CIRCUITS[id_]
    page = read(str(drawing(load(), circuit, root="../")))
    links = page.values("href", "a")
    assert links == [f"../heads/{node.head_type}.html" for node in circuit.nodes if node.head_type]
    drawn = [a for tag_, a in page.elements if tag_ == "path" and (a.get("class") or "").startswith("wire ")]
    assert [(a["data-from"], a["data-to"], (a["class"] or "").removeprefix("wire wire-")) for a in drawn] == [
        (edge.source, edge.target, edge.kind) for edge in circuit.edges
    ]
    for node in circuit.nodes:
        assert node.label.split()[0] in page.text
        for head in node.heads[:12]:
            assert head in page.text
    marks = re.findall(r'class="port port-([qkv])"', str(drawing(load(), circuit, root="")))
    assert set(marks) == {edge.kind for edge in circuit.edges} & set("qkv")
    assert str(miniature(load(), circuit)).count("<rect") == len(circuit.nodes)


def test_a_loop_and_a_cycle_are_drawn():
    circuit = CIRCUITS["induction"]
    edge = circuit.edges[0]
    first, last = circuit.nodes[1].id, circuit.nodes[-1].id
    more = [edge.model_copy(update={"source": first, "target": first, "kind": "q"})]
    more.append(edge.model_copy(update={"source": last, "target": first, "kind": "residual"}))
    odd = circuit.model_copy(update={"edges": [*circuit.edges, *more]})
    text = str(drawing(load(), odd, root=""))
    assert text.count('class="wire ') == len(odd.edges)
    assert "nan" not in text


def test_the_chosen_head_type_stands_out():
    text = str(drawing(load(), CIRCUITS["ioi"], root="", chosen="name-mover-head"))
    assert text.count(" chosen") == 1


def test_the_figure_has_every_head_type_in_both_sizes():
    catalogue = load()
    page = read(str(figure(SiteContext(catalogue, {"induction-head": ["induction"]}))))
    chips = [a for tag_, a in page.elements if tag_ == "a" and "chip" in (a.get("class") or "")]
    assert sorted(a["href"] or "" for a in chips) == sorted([f"heads/{id_}.html" for id_ in catalogue.heads] * 2)
    assert [a["href"] for a in chips if "data-detector" in a] == ["heads/induction-head.html"] * 2


def test_the_months_show_each_paper_once_and_split_by_stage():
    context = SiteContext(load())
    page = read(str(months(context, root="../")))
    links = page.values("href", "a")
    assert sorted(links) == sorted(f"../papers/{id_}.html" for id_ in context.catalogue.papers)
    wide = str(months(context, root="../")).partition('class="chart months narrow"')[0]
    squares = re.findall(r'class="fill (?:stage-)?(\w+)"', wide)
    stages = [stage for paper in context.newest for stage in context.catalogue.stages_of(paper) or ("plain",)]
    assert sorted(squares) == sorted(stages)


def test_the_growth_ends_at_the_number_of_head_types():
    context = SiteContext(load())
    ends = {stage: len(papers) for stage, papers in named_first(context).items()}
    assert ends == {s: sum(h.stage == s for h in context.catalogue.heads.values()) for s in context.catalogue.stages}
    text = read(str(growth(context))).text
    for stage, n in ends.items():
        assert f"{context.catalogue.stages[stage].name} {n}" in text


def test_lifelines_count_the_papers_of_each_head_type():
    context = SiteContext(load())
    assert f"Induction: Induction Head, {len(context.papers_of['induction-head'])} papers" in str(
        lifelines(context, root="")
    )


def test_text_in_drawings_is_escaped_and_cut():
    assert str(tag("a", '<b>"', href='"><x')) == '<a href="&#34;&gt;&lt;x">&lt;b&gt;&#34;</a>'
    assert wrap("Constituency Grammar Inducing", 12, 90, most=1)[0].endswith("…")
    assert wrap("word " * 50, 12, 90, most=3)[2].endswith("…")
    assert len(wrap("word " * 50, 12, 90, most=3)) == 3
    assert all(width(line, 12) <= 90 for line in wrap("a" * 500 + " b", 12, 90, most=2))
    assert short(-0.01) == "0"
