"""The site as files: every link leads somewhere, nothing is loaded from elsewhere, the same data give the same bytes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headatlas.catalogue import load
from headatlas.catalogue.detector_names import detector_names
from headatlas.catalogue.filters import Filters, select
from headatlas.catalogue.schema import Paper
from headatlas.catalogue.site import write
from headatlas.catalogue.site.atlases import sightings
from headatlas.catalogue.site.build import SEARCH_LIBRARY, build, render
from headatlas.catalogue.site.context import SiteContext
from headatlas.catalogue.site.facets import facets
from headatlas.cli.papers import app
from headatlas.errors import BadInput, StoreError
from tests.catalogue.site.links import Read, aim, pages, read
from tests.catalogue.site.samples import EVIL, atlas, hostile


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return render(SiteContext(load(), detector_names()))


@pytest.fixture(scope="module")
def read_pages(files: dict[str, str]) -> dict[str, Read]:
    return pages(files)


def dead_links(files: dict[str, str], found: dict[str, Read]) -> list[str]:
    dead = []
    for path, page in found.items():
        for href in page.values("href") + page.values("src"):
            goal = aim(path, href)
            if goal is None:
                continue
            file, anchor = goal
            if file not in files or (anchor and anchor not in found[file].ids):
                dead.append(f"{path}: {href}")
    return dead


def test_every_internal_link_and_anchor_leads_somewhere(files: dict[str, str], read_pages: dict[str, Read]):
    links = sum(len(page.values("href")) for page in read_pages.values())
    assert links > 5000
    assert dead_links(files, read_pages) == []


def test_a_dead_link_would_be_found(files: dict[str, str]):
    wrong = files | {"about/index.html": '<a href="../heads/no-such.html"></a><a href="../index.html#nowhere"></a>'}
    assert len(dead_links(wrong, pages(wrong))) >= 2


def test_pages_are_well_formed_and_ids_stand_once(read_pages: dict[str, Read]):
    for path, page in read_pages.items():
        assert page.unbalanced == [], path
        assert [id_ for id_, n in Counter(page.ids).items() if n > 1] == [], path
        assert len([tag for tag, _ in page.elements if tag == "h1"]) == 1, path


def test_nothing_is_loaded_from_elsewhere(files: dict[str, str], read_pages: dict[str, Read]):
    for path, page in read_pages.items():
        loaded = page.values("src") + page.values("href", "link")
        assert not [url for url in loaded if "//" in url], path
    for path, text in files.items():
        if path.startswith("static/") and path.endswith((".js", ".css")) and "index-data" not in path:
            assert "http" not in text, path
            assert "fetch(" not in text, path


def test_the_search_library_comes_with_its_licence_and_a_version(files: dict[str, str]):
    script = files["static/search.js"]
    assert script.startswith(f"/*! {SEARCH_LIBRARY}\n\nCopyright 2022 Luca Ongaro")
    assert "Permission is hereby granted, free of charge" in script
    assert len(script.encode()) < 30_000
    name, version = SEARCH_LIBRARY.split("-")
    assert f"npm pack {name}@{version}" in PAGE


def test_every_entry_has_its_page(files: dict[str, str]):
    catalogue = load()
    wanted = [f"papers/{id_}.html" for id_ in catalogue.papers] + [f"heads/{id_}.html" for id_ in catalogue.heads]
    wanted += [f"methods/{id_}.html" for id_ in catalogue.methods]
    wanted += [f"benchmarks/{id_}.html" for id_ in catalogue.benchmarks]
    wanted += [f"circuits/{id_}.html" for id_ in catalogue.circuits]
    assert len(wanted) > 200
    assert [path for path in wanted if path not in files] == []


def test_every_head_type_is_two_clicks_from_home(read_pages: dict[str, Read]):
    clicks, edge = {"index.html": 0}, ["index.html"]
    while edge:
        path = edge.pop(0)
        if clicks[path] == 2:
            continue
        for href in read_pages[path].values("href", "a"):
            goal = aim(path, href)
            if goal and goal[0] in read_pages and goal[0] not in clicks:
                clicks[goal[0]] = clicks[path] + 1
                edge.append(goal[0])
    heads = {f"heads/{head.id}.html" for head in load().heads.values()}
    assert heads <= clicks.keys()


def test_the_figure_leads_through_stages_and_groups_to_heads(read_pages: dict[str, Read]):
    links = set(read_pages["index.html"].values("href", "a"))
    catalogue = load()
    for stage in catalogue.stages.values():
        assert f"heads/index.html#{stage.id}" in links
        for dimension in stage.dimensions:
            assert f"heads/index.html#{dimension.id}" in links
    assert {f"heads/{id_}.html" for id_ in catalogue.heads} <= links


def test_home_weighs_less_than_300_kilobytes(files: dict[str, str], read_pages: dict[str, Read]):
    page = read_pages["index.html"]
    loaded = page.values("src", "script") + [href for href in page.values("href", "link") if "feed" not in href]
    assert set(loaded) == {"static/favicon.svg", "static/site.css", "static/site.js", "static/theme.js"}
    assert sum(len(files[path].encode()) for path in ["index.html", *loaded]) < 300_000


def test_the_site_builds_in_ten_seconds(tmp_path: Path):
    before = time.process_time()
    assert build(SiteContext(load(), detector_names()), tmp_path / "site") > 200
    assert time.process_time() - before < 10


def test_no_page_compares_whole_papers(sample: Path, monkeypatch: pytest.MonkeyPatch):
    """Looking a paper up among all of them, field by field, made the time grow with the square of their number."""

    def compare(*_: object) -> bool:
        raise AssertionError("two papers were compared")

    context = SiteContext(load(sample))
    monkeypatch.setattr(Paper, "__eq__", compare)
    assert len(render(context)) > 10


def test_another_process_makes_the_same_bytes(files: dict[str, str], tmp_path: Path):
    code = (
        "import pathlib, sys; from headatlas.catalogue import load;"
        "from headatlas.catalogue.detector_names import detector_names;"
        "from headatlas.catalogue.site.context import SiteContext; from headatlas.catalogue.site.build import build;"
        "build(SiteContext(load(), detector_names()), pathlib.Path(sys.argv[1]))"
    )
    out = tmp_path / "site"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, str(out)], check=True, env=environment, cwd=tmp_path)
    written = {path.relative_to(out).as_posix(): path.read_text("utf-8") for path in out.rglob("*") if path.is_file()}
    written.pop(write.MARKER)
    assert written == files


@pytest.mark.parametrize(
    ("key", "value", "filters"),
    [
        ("stage", "lr", Filters(stage="lr")),
        ("head", "induction-head", Filters(head="induction-head")),
        ("method", "mean-ablation", Filters(method="mean-ablation")),
        ("year", "2024", Filters(year=2024)),
        ("code", "yes", Filters(has_code=True)),
    ],
)
def test_facets_choose_what_the_command_chooses(key: str, value: str, filters: Filters):
    found = facets(SiteContext(load()))
    chosen = {id_ for id_, values in found.of.items() if value in values[key]}
    assert chosen == {paper.id for paper in select(load(), filters)}
    (choice,) = [c for facet in found.all if facet.key == key for c in facet.choices if c.value == value]
    assert choice.count == len(chosen)


def test_a_paper_page_says_what_the_entry_says(read_pages: dict[str, Read]):
    catalogue = load()
    page, paper = read_pages["papers/wang-2023-ioi.html"], catalogue.papers["wang-2023-ioi"]
    assert paper.summary
    for words in (paper.title, *paper.authors, paper.summary.innovation, *paper.corrections, *paper.models):
        assert words in page.text
    links = page.values("href", "a")
    assert {link.url for link in paper.links} <= set(links)
    assert {f"../heads/{id_}.html" for id_ in paper.heads} <= set(links)
    assert "@" in page.text
    assert "wang-2023-ioi," in page.text
    assert {f"claim-{c.id}" for c in catalogue.claims.values() if c.paper == paper.id} <= set(page.ids)


def test_a_head_page_names_detectors_circuits_and_claims():
    catalogue = load()
    made = render(SiteContext(catalogue, {"induction-head": ["prefix-matching", "second"]}))
    page = read(made["heads/induction-head.html"])
    assert "headatlas mine MODEL --detector prefix-matching" in page.text
    assert "--detector second" in page.text
    assert "../circuits/ioi.html" in page.values("href", "a")
    claims = catalogue.claims_for("induction-head")
    assert all(claim.statement in page.text for claim in claims)
    assert "No detector of ours" in read(made["heads/mover-head.html"]).text


def test_head_pages_list_the_models_in_which_heads_were_seen():
    seen = {"layer": 5, "head": 1, "stack": "decoder", "score": 0.91, "verdict": "causal"}
    old = atlas("gpt2", "2026-01-01T00:00", [{**seen, "head": 7}])
    new = atlas("gpt2", "2026-01-02T00:00", [seen, {**seen, "head": 2, "verdict": "group", "stack": "encoder"}])
    other = atlas("/home/someone/secret/tiny", "2026-01-01T00:00", [])
    found = sightings([("b", new), ("a", old), ("c", other)])
    made = render(SiteContext(load(), sightings=found))
    text = " ".join(read(made["heads/induction-head.html"]).text.split())
    assert "Seen in these models" in text
    assert "5.1 causal encoder:5.2 group" in text
    assert "1 causal, 1 group" in text
    assert "5.7" not in text.partition("Seen in these models")[2].partition("In circuits")[0]
    assert "tiny induction none observed" in text
    assert "someone" not in text
    assert "Seen in these models" not in made["heads/mover-head.html"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "headatlas/atlas/9"}, "x/atlas.json is not a headatlas/atlas/1 file"),
        ({"model": {}}, "x/atlas.json is damaged: model.name"),
        ({"detectors": [{"name": "a", "head_type": "b", "heads": [{"layer": "q"}]}]}, "detectors.0.heads.0.layer"),
    ],
)
def test_a_damaged_atlas_is_named(change: dict[str, Any], message: str):
    with pytest.raises(StoreError, match=message):
        sightings([("x/atlas.json", {**atlas("gpt2", "2026", []), **change})])


def test_markup_in_the_data_stays_text(read_pages: dict[str, Read]):
    made = render(SiteContext(hostile()))
    found = pages(made)
    allowed = {tag for page in read_pages.values() for tag, _ in page.elements} - {"img"}
    assert dead_links(made, found) == []
    for path, page in found.items():
        assert {tag for tag, _ in page.elements} <= allowed, path
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")], path
        assert page.unbalanced == [], path
        assert len([tag for tag, _ in page.elements if tag == "script"]) <= 6, path
    assert EVIL in found["papers/wang-2023-ioi.html"].text
    assert "<script" not in made["static/index-data.js"]


def test_two_entries_that_want_one_address_are_refused():
    ours = load()
    paper = ours.papers["wang-2023-ioi"].model_copy(update={"id": "index"})
    with pytest.raises(BadInput, match=r"Two pages want the address 'papers/index\.html'"):
        render(SiteContext(dataclasses.replace(ours, papers={**ours.papers, "index": paper})))


def test_an_id_that_is_a_path_writes_nothing(tmp_path: Path):
    ours = load()
    paper = ours.papers["wang-2023-ioi"].model_copy(update={"id": "../../escaped", "date": datetime.date(2024, 1, 1)})
    out = tmp_path / "a" / "site"
    out.parent.mkdir()
    with pytest.raises(BadInput, match=r"escaped\.html' is no address of a page"):
        build(SiteContext(dataclasses.replace(ours, papers={**ours.papers, paper.id: paper})), out)
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


def test_a_small_catalogue_makes_a_whole_site(sample: Path):
    made = render(SiteContext(load(sample)))
    found = pages(made)
    assert dead_links(made, found) == []
    assert "Words and Facts" in found["papers/index.html"].text


def test_a_known_address_and_repository_are_used():
    made = render(SiteContext(load(), address="https://example.org/heads/", repository="https://example.org/code"))
    assert 'href="https://example.org/heads/feed.xml"' in made["feed.xml"]
    assert "https://example.org/heads/papers/index.html" in read(made["404.html"]).values("href")
    edit = "https://example.org/code/edit/main/headatlas/catalogue/data/heads/induction-head.yaml"
    assert edit in read(made["heads/induction-head.html"]).values("href")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "example.org", "https:///x"])
def test_an_address_that_is_none_is_refused(url: str, tmp_path: Path):
    with pytest.raises(BadInput, match="is not a web"):
        build(SiteContext(load(), repository=url), tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


PAGE = (Path(__file__).parents[3] / "docs" / "site.md").read_text("utf-8")


@pytest.mark.parametrize("command", re.findall(r"^headatlas papers (site .+)$", PAGE, re.M))
def test_a_command_in_the_docs_builds_a_site(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tmp_path / "atlas" / "gpt2" / "run"
    run.mkdir(parents=True)
    seen = {"layer": 3, "head": 2, "score": 0.5, "verdict": "group"}
    (run / "atlas.json").write_text(json.dumps(atlas("gpt2", "2026-01-01", [seen])))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert "pages)" in result.output
    head = read((tmp_path / "public" / "heads" / "induction-head.html").read_text("utf-8")).text
    assert ("3.2 group" in head) == ("--atlas" in command)


def test_the_docs_name_what_is_there(files: dict[str, str]):
    for path in re.findall(r"`([a-z]+(?:/[a-z]+)?\.(?:html|xml|bib|csv|json))`", PAGE):
        assert path in files, path


def test_groups_of_before_are_untested():
    old = atlas("gpt2", "2026-01-01T00:00", [{"layer": 3, "head": 2, "score": 0.5, "verdict": "group"}])
    del old["detectors"][0]["group"]
    sighting = sightings([("old.json", old)])["induction-head"][0]
    assert (sighting.with_verdict("group"), sighting.with_verdict("untested")) == (0, 1)
