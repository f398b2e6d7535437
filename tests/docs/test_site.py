"""docs/ as a site: it builds without a broken link, asks nothing of the network, and fits a phone. A minute: make test-slow."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.pages import ROOT

pytestmark = pytest.mark.slow
LOOKED_AT = ("index", "first-hour", "which-method", "models", "reference/methods", "reference/detectors", "notebooks/own-detector")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_every_page_of_docs_is_on_the_site(site: Path):
    for path in (ROOT / "docs").rglob("*.md"):
        name = "index" if path.stem in ("README", "index") else path.stem
        assert (site / path.relative_to(ROOT / "docs").with_name(f"{name}.html")).exists(), path


def test_nothing_is_loaded_from_elsewhere(site: Path):
    loaded = r'<(?:script|img|iframe|source)[^>]*\ssrc="(https?:[^"]*)"|<link[^>]*\srel="(?:stylesheet|preconnect|icon)"[^>]*href="(https?:[^"]*)"'  # fmt: skip
    for path in site.rglob("*.html"):
        if path.parent.name != "atlas":  # reports, which have tests of their own
            assert re.findall(loaded, path.read_text(encoding="utf-8")) == [], path


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_open_from_the_folder_and_fit(site: Path, browser: Browser, width: int):
    page = browser.new_page(viewport={"width": width, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in LOOKED_AT:
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, name
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


def test_the_search_works_without_a_server(site: Path, browser: Browser):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.goto((site / "index.html").as_uri())
    page.fill("input.md-search__input", "path patching")
    page.wait_for_selector(".md-search-result__item a[href*='path-patching']", timeout=20_000)
    page.close()
