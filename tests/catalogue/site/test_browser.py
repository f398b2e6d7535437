"""The site in a browser, from the disk: keyboard, both colour schemes, narrow screens, accessibility."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest

from headatlas.catalogue import load
from headatlas.catalogue.filters import Filters, select
from headatlas.catalogue.site.build import build
from headatlas.catalogue.site.context import SiteContext
from tests.catalogue.site.open_page import Visit, shown
from tests.catalogue.site.samples import hostile

KINDS = (
    *(
        "index.html",
        "404.html",
        "trends/index.html",
        "about/index.html",
        "papers/index.html",
        "papers/wang-2023-ioi.html",
    ),
    *("heads/index.html", "heads/induction-head.html", "circuits/index.html", "circuits/ioi.html"),
    *("methods/index.html", "methods/mean-ablation.html", "benchmarks/index.html", "benchmarks/ioi.html"),
    *("models/index.html", "models/gpt-2-small.html", "survey/index.html", "survey/limitations.html"),
    "replications/index.html",
)


def test_the_figure_dims_what_is_not_asked_for(visit: Visit):
    page = visit("index.html")
    seen = page.locator("svg.stages.wide a.chip[href='heads/induction-head.html']")
    other = page.locator("svg.stages.wide a.chip[href='heads/trajectory-stabilizer-head.html']")
    opacity = "element => getComputedStyle(element).opacity"
    for kind in ("detector", "models"):
        page.click(f"button[data-show={kind}]")
        assert page.get_attribute(f"button[data-show={kind}]", "aria-pressed") == "true"
        page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished))")  # it fades
        assert (seen.evaluate(opacity), float(other.evaluate(opacity)) < 0.5) == ("1", True)
    seen.click()
    assert page.url.endswith("/heads/induction-head.html")
    assert "Seen in these models" in page.inner_text("main")


def test_the_keyboard_reaches_everything(visit: Visit):
    page = visit("papers/index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("mover/")
    assert page.input_value("#q") == "mover/"
    page.keyboard.press("Escape")
    assert page.input_value("#q") == ""
    page.focus("input[name=stage][value=ep]")
    page.keyboard.press("Space")
    assert page.is_checked("input[name=stage][value=ep]")
    assert page.evaluate("document.activeElement.value") == "ep"
    assert set(shown(page)) == {paper.id for paper in select(load(), Filters(stage="ep"))}
    page = visit("circuits/ioi.html")
    node = page.locator("svg.circuit a").first
    node.focus()
    assert page.locator("svg.circuit .wire.near").count() > 0
    page.keyboard.press("Enter")
    page.wait_for_url("**/heads/previous-head.html")


def test_colours_are_chosen_and_kept(visit: Visit):
    page = visit("index.html", color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.click("#theme")
    page.click("#theme")
    assert page.inner_text("#theme") == "Colours: dark"
    dark = page.evaluate(colour)
    assert dark != light
    page.goto(page.url.replace("index.html", "about/index.html"))
    assert page.evaluate(colour) == dark


def test_the_citation_is_copied(visit: Visit):
    page = visit("papers/wang-2023-ioi.html")
    page.click("button[data-copy=bibtex]")
    page.wait_for_function("/Copied|Selected/.test(document.querySelector('button[data-copy]').innerText)")


def test_the_head_list_narrows(visit: Visit):
    page = visit("heads/index.html")
    page.fill("#narrow-heads", "S-Inhibition")
    assert page.locator(".head-list > li:visible").all_inner_texts()[0].strip().startswith(("▲", "△"))
    assert page.locator(".head-list > li:visible").count() == 1
    assert page.inner_text("#narrow-count") == f"1 of {len(load().heads)}"
    page.fill("#narrow-heads", "")
    assert page.locator(".head-list > li:visible").count() == len(load().heads)


def test_no_page_is_wider_than_a_phone(visit: Visit, site: Path):
    page = visit(KINDS[0], width=390)
    for path in KINDS:
        page.goto(f"{site.as_uri()}/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_without_scripts_the_lists_are_there(visit: Visit):
    page = visit("papers/index.html", java_script_enabled=False)
    assert page.locator("#papers > li").count() == len(load().papers)
    assert not page.is_visible("#q")


def test_hostile_data_run_nothing(visit: Visit, tmp_path: Path):
    build(SiteContext(hostile()), tmp_path / "bad")
    folder = (tmp_path / "bad").as_uri()
    page = visit(KINDS[0], folder=folder)
    for path in (
        "index.html",
        "papers/wang-2023-ioi.html",
        "heads/induction-head.html",
        "circuits/ioi.html",
        "papers/index.html",
    ):
        page.goto(f"{folder}/{path}")
        assert page.title() != "hacked"
        if path == "papers/index.html":
            page.fill("#q", "script")
            assert "<script>" in page.inner_text("#papers > li:visible >> nth=0")
            assert page.locator("#papers img").count() == 0


def test_it_works_below_a_path_of_a_web_server(visit: Visit, site: Path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.parent))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = visit("index.html", folder=f"http://127.0.0.1:{server.server_port}/site")
        page.click("nav >> text=Papers")
        page.fill("#q", "olsson")
        assert "olsson-2022-induction-heads" in shown(page)
        page.reload()
        assert "olsson-2022-induction-heads" in shown(page)
        server.shutdown()


def axe() -> str:
    """The text of axe-core, which is not part of this repository: `npm pack axe-core` has it."""
    home = Path(os.environ.get("HEADATLAS_HOME", Path.home() / ".cache" / "headatlas"))
    file = Path(os.environ.get("HEADATLAS_AXE", home / "axe-core" / "axe.min.js"))
    if not file.is_file():
        pytest.skip(f"axe-core is not at {file}: npm pack axe-core, unpack axe.min.js there, or set HEADATLAS_AXE.")
    return file.read_text("utf-8")


@pytest.mark.parametrize(
    ("scheme", "width", "paths"),
    [
        ("light", 1280, [*KINDS, "papers/index.html?q=induction&stage=lr"]),
        ("dark", 390, ["index.html", "papers/index.html?stage=lr", "heads/induction-head.html", "circuits/ioi.html"]),
    ],
)
def test_axe_finds_nothing(visit: Visit, site: Path, scheme: str, width: int, paths: list[str]):
    script = axe()
    page = visit(KINDS[0], width=width, color_scheme=scheme, bypass_csp=True)
    found = []
    for path in paths:
        page.goto(f"{site.as_uri()}/{path}")
        if width == 390 and path.startswith("papers/index"):
            page.click("#facets-toggle")
        page.evaluate(script)
        # `preload` would make axe ask for style sheets by itself, which pages from the disk may not.
        faults = page.evaluate("axe.run(document, {preload: false, resultTypes: ['violations']})")["violations"]
        found += [(path, fault["impact"], fault["id"], fault["nodes"][0]["html"][:200]) for fault in faults]
    assert found == []
