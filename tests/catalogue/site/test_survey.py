"""The survey's pages: its methods counted from our data, its citation; none in a catalogue that does not hold it."""

from __future__ import annotations

import re
from pathlib import Path

from headatlas.catalogue import load
from headatlas.catalogue.extras import SURVEY
from headatlas.catalogue.site.build import render
from headatlas.catalogue.site.context import SiteContext
from headatlas.catalogue.site.pictures.methods import methods_chart
from headatlas.catalogue.site.sections.survey import SURVEY_PAGES


def test_its_pages_count_what_the_catalogue_holds():
    catalogue = load()
    index, limitations, directions = SURVEY_PAGES.pages(SiteContext(catalogue))
    assert [page.path for page in (limitations, directions)] == ["survey/limitations.html", "survey/directions.html"]
    free = {
        paper.id for id_, method in catalogue.methods.items() if method.category == "modeling-free"
        for paper in catalogue.papers_with_method(id_)
    }  # fmt: skip
    assert index.shows["papers_of"]["Modeling-Free"] == len(free - {SURVEY})
    assert index.shows["bibtex"].startswith(f"@article{{{SURVEY},")
    in_circuits = {node.head_type for circuit in catalogue.circuits.values() for node in circuit.nodes} - {None}
    assert limitations.shows["n_in_circuits"] == len(in_circuits)
    assert 0 < limitations.shows["n_one_family"] <= limitations.shows["n_named"] < len(catalogue.heads)


def test_bars_are_as_long_as_methods_are_used():
    methods = [load().methods[id_] for id_ in ("probing", "mean-ablation", "scoring")]
    drawn = str(methods_chart(methods, {"probing": 5, "mean-ablation": 10, "scoring": 0}, root="../"))
    narrow = drawn[drawn.index('class="chart methods narrow"') :]
    bars = re.findall(r'methods/([\w-]+)\.html".*?width="([\d.]+)" height="12"', narrow)
    assert {id_: float(wide) for id_, wide in bars} == {"mean-ablation": 350, "probing": 175, "scoring": 0}
    assert "Modeling-Required: 5 of 15 uses (33%)" in narrow


def test_another_catalogue_has_no_survey(sample: Path):
    made = render(SiteContext(load(sample)))
    assert not [path for path in made if path.startswith("survey/")]
    assert "survey/index.html" not in made["about/index.html"]
