"""What tests ask of an open page of the site."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page

Visit = Callable[..., Page]


def shown(page: Page) -> list[str]:
    """Ids of the papers that the list shows, in its order."""
    items = page.locator("#papers > li:visible")
    return [str(id_) for id_ in items.evaluate_all("items => items.map((item) => item.dataset.id)")]


def address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)
