"""The whole site, built once, and its pages opened in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from headatlas.catalogue import load
from headatlas.catalogue.detector_names import detector_names
from headatlas.catalogue.site.atlases import sightings
from headatlas.catalogue.site.build import build
from headatlas.catalogue.site.context import SiteContext
from tests.catalogue.site.open_page import Visit
from tests.catalogue.site.samples import atlas


@pytest.fixture(scope="session")
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
