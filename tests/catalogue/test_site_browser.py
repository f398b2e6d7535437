"""The site in a browser, from the disk: search, facets, keyboard, both colour schemes, narrow screens, accessibility."""

from __future__ import annotations

import functools
import http.server
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page

from headatlas.catalogue import load
from headatlas.catalogue.detector_names import detector_names
from headatlas.catalogue.filters import Filters, select
from headatlas.catalogue.site.atlases import sightings
from headatlas.catalogue.site.build import build
from headatlas.catalogue.site.context import SiteContext
from tests.catalogue.test_site import atlas, hostile

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
)
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "a folder" / "site"
    out.parent.mkdir()
    head = {"layer": 5, "head": 1, "score": 0.9, "verdict": "causal"}
    seen = sightings([("a", atlas("gpt2", "2026-01-01T00:00", [head]))])
    build(SiteContext(load(), detector_names(), seen), out)
    return out


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Visit]:
    """`visit("papers/index.html?q=x", width=390)` -> page; errors, dialogs and network requests fail the test."""
    problems: list[str] = []
    contexts = []

    def go(path: str, *, folder: str = site.as_uri(), width: int = 1280, **more: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce", **more)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: problems.append(f"{path}: console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"{path}: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"{path}: dialog {dialog.message}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(folder) else problems.append(f"{path}: {request.url}"),
        )
        page.goto(f"{folder}/{path}")
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []


def shown(page: Page) -> list[str]:
    """Ids of the papers that the list shows, in its order."""
    items = page.locator("#papers > li:visible")
    return [str(id_) for id_ in items.evaluate_all("items => items.map((item) => item.dataset.id)")]


def address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


SEARCHES = (
    ("olsson", "olsson-2022-induction-heads"),
    ("Neel Nanda", "nanda-2023-fact-finding"),
    ("induction head", "olsson-2022-induction-heads"),
    ("S-Inhibition", "wang-2023-ioi"),
    ("previous token", "wang-2023-ioi"),
    ("inducton", "olsson-2022-induction-heads"),
    ("sucessor", "gould-2024-successor-heads"),
    ("retr", "wu-2024-retrieval-head"),
    ("function vect", "todd-2024-function-vectors"),
    ("gpt2 acronyms", "garcia-carrasco-2024-acronyms"),
    ("2211.00593", "wang-2023-ioi"),
    ("García", "garcia-carrasco-2024-acronyms"),
    ("garcia", "garcia-carrasco-2024-acronyms"),
)


def test_search_finds_by_author_head_alias_word_and_typo(visit: Visit):
    page = visit("papers/index.html")
    assert len(shown(page)) == len(load().papers)
    for query, wanted in SEARCHES:
        page.fill("#q", query)
        found = shown(page)
        assert wanted in found, query
        assert len(found) < 30, query
        assert page.inner_text("#count") == f"{len(found)} of {len(load().papers)} papers"


def test_title_words_with_a_letter_left_out_are_understood(visit: Visit):
    page = visit("papers/index.html")
    typos = [
        (word[:2] + word[3:], paper.id)
        for paper in load().papers.values()
        for word in {word.lower() for word in re.findall(r"[A-Za-z]{6,}", paper.title)}
    ]
    find = """typos => { const find = headatlas.createSearch(headatlasIndex.papers, {name: 4, about: 2, summary: 1});
              return typos.filter(([typo, id]) => [...find(typo).scores.keys()].some((paper) => paper.id === id)).length; }"""
    assert len(typos) > 200
    assert page.evaluate(find, [list(typo) for typo in typos]) > 0.98 * len(typos)


def test_every_alias_finds_the_papers_of_its_head_type(visit: Visit):
    page = visit("papers/index.html")
    aliases = [(alias, head) for head in load().heads.values() for alias in head.aliases]
    assert aliases
    for alias, head in aliases:
        page.fill("#q", alias)
        assert {paper.id for paper in load().papers_for(head.id)} <= set(shown(page)), alias


def test_search_says_what_it_read_and_leads_to_pages_of_that_name(visit: Visit):
    page = visit("papers/index.html")
    page.fill("#q", "S-Inhibiton")
    assert "“inhibiton” read as “inhibition”" in page.inner_text("#understood")
    link = page.locator("#pages a", has_text="Inhibition Head").first
    link.click()
    assert page.url.endswith("/heads/inhibition-head.html")
    page.go_back()
    page.fill("#q", "zzzzzz")
    assert shown(page) == []
    assert "nothing has “zzzzzz”" in page.inner_text("#understood")
    page.click("#clear")
    assert len(shown(page)) == len(load().papers)


def test_an_author_who_was_cut_off_is_shown_when_asked_for(visit: Visit):
    paper = load().papers["olsson-2022-induction-heads"]
    page = visit("papers/index.html?q=" + paper.authors[-1].split()[-1])
    assert paper.authors[-1] in page.inner_text(f"li[data-id={paper.id}] .authors")


def test_facets_combine_with_each_other_and_the_search_and_survive_a_reload(visit: Visit):
    page = visit("papers/index.html")
    page.check("input[name=year][value='2024']")
    page.check("input[name=stage][value=lr]")
    both = {paper.id for paper in select(load(), Filters(year=2024, stage="lr"))}
    assert set(shown(page)) == both
    page.check("input[name=code]")
    wanted = {paper.id for paper in select(load(), Filters(year=2024, stage="lr", has_code=True))}
    assert set(shown(page)) == wanted
    assert 0 < len(wanted) < len(both)
    assert address(page) == {"year": ["2024"], "stage": ["lr"], "code": ["yes"]}
    page.check("input[name=year][value='2025']")
    more = {paper.id for paper in select(load(), Filters(year=2025, stage="lr", has_code=True))}
    assert set(shown(page)) == wanted | more
    page.fill("#q", "induction")
    before = shown(page)
    assert 0 < len(before) < len(wanted | more)
    page.reload()
    assert shown(page) == before
    assert page.input_value("#q") == "induction"
    assert page.is_checked("input[name=stage][value=lr]")
    assert page.locator("#chosen button").all_inner_texts() == ["2025", "2024", "Latent Reasoning", "Has code"]
    page.click("#chosen button >> text=Latent Reasoning")
    assert not page.is_checked("input[name=stage][value=lr]")
    assert "stage" not in address(page)


def test_counts_of_a_facet_say_what_choosing_the_value_would_give(visit: Visit):
    page = visit("papers/index.html?year=2024")
    box = page.locator("label:has(input[name=method][value=probing])")
    promised = int(box.locator(".count").inner_text())
    box.click()
    assert len(shown(page)) == promised
    assert promised == len(select(load(), Filters(year=2024, method="probing")))


def test_back_undoes_a_facet_and_nonsense_in_the_address_is_ignored(visit: Visit):
    page = visit("papers/index.html?year=1066&colour=red&stage=lr&sort=sideways")
    lr = {paper.id for paper in select(load(), Filters(stage="lr"))}
    assert set(shown(page)) == lr
    page.check("input[name=year][value='2024']")
    page.go_back()
    assert set(shown(page)) == lr
    assert not page.is_checked("input[name=year][value='2024']")


def test_the_order_can_be_turned(visit: Visit):
    page = visit("papers/index.html")
    newest = shown(page)
    page.select_option("#sort", "oldest")
    assert shown(page) == newest[::-1]
    page.reload()
    assert shown(page) == newest[::-1]


def test_a_value_of_a_long_facet_is_found_by_name(visit: Visit):
    page = visit("papers/index.html")
    facet = page.locator("fieldset[data-facet=head]")
    value = facet.locator("input[value=successor-head]")
    assert not value.is_visible()
    facet.locator("input.narrow").fill("succ")
    value.check()
    assert shown(page) == ["gould-2024-successor-heads"]


def test_links_of_entries_into_the_list_choose_something(visit: Visit):
    page = visit("papers/garcia-carrasco-2024-acronyms.html")
    page.click("aside a >> text=GPT-2 small")
    page.wait_for_url("**/papers/index.html?*")
    assert "garcia-carrasco-2024-acronyms" in shown(page)
    assert len(shown(page)) < 40
    page = visit("heads/induction-head.html")
    page.click("text=in the list")
    page.wait_for_url("**/papers/index.html?*")
    assert len(shown(page)) == len(load().papers_for("induction-head"))


def test_the_home_page_searches(visit: Visit):
    page = visit("index.html")
    page.fill("#q", "name mover")
    page.press("#q", "Enter")
    page.wait_for_url("**/papers/index.html?q=name+mover")
    assert "wang-2023-ioi" in shown(page)


def test_the_figure_dims_what_is_not_asked_for(visit: Visit):
    page = visit("index.html")
    seen = page.locator("svg.stages.wide a.chip[href='heads/induction-head.html']")
    other = page.locator("svg.stages.wide a.chip[href='heads/mover-head.html']")
    opacity = "element => getComputedStyle(element).opacity"
    for kind in ("detector", "models"):
        page.click(f"button[data-show={kind}]")
        assert page.get_attribute(f"button[data-show={kind}]", "aria-pressed") == "true"
        page.wait_for_timeout(250)
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


def test_the_list_is_usable_within_a_second(visit: Visit):
    times, longest = [], 0.0
    for _ in range(3):
        page = visit("papers/index.html")
        times.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
        type_ = """text => { const box = document.getElementById("q"); const start = performance.now();
                   box.value = text; box.dispatchEvent(new Event("input")); return performance.now() - start; }"""
        longest = max(longest, min(page.evaluate(type_, "inducton hed gpt") for _ in range(3)))
    assert min(times) < 1000
    assert longest < 200


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
