"""A browser that opens reports from the disk and fails a test on any script error or network request."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from headatlas.report import html
from tests.report.synthetic_words import extras

Open = Callable[..., Page]


def unpack(page: str) -> dict[str, Any]:
    """What a report hands to its script."""
    found = re.search(r'<script type="text/plain" id="atlas">([^<]*)</script>', page)
    assert found is not None
    return json.loads(zlib.decompress(base64.b64decode(found[1])))


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """`open_report(atlas, extras, "head=17.4", width=390, **context)` -> page; what goes wrong in it fails the test."""
    problems: list[str] = []
    pages: list[Page] = []

    def visit(
        atlas: dict[str, Any],
        words: dict[str, Any] | None = None,
        fragment: str = "",
        *,
        width: int = 1280,
        **more: Any,
    ) -> Page:
        file = tmp_path / f"report{len(pages)}.html"
        file.write_text(html(atlas, extras(atlas) if words is None else words), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce", **more)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: None if request.url.split("#")[0] == file.as_uri() else problems.append(request.url),
        )
        page.goto(f"{file.as_uri()}#{fragment}" if fragment else file.as_uri())
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.context.close()
    assert problems == []
