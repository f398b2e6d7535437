"""The style sheet that all pages begin with, and how a page's own files of styles and scripts become one text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from headatlas.render.palette import css_variables


@cache
def base() -> str:
    """The colours as variables, then base.css: type, links, focus, fields, tables."""
    return f"{css_variables()}{(files(__package__) / 'base.css').read_text('utf-8')}"


@cache
def joined(package: str, suffix: str) -> str:
    """All files of the package's `static/` with this suffix, in the order of their names, as one text."""
    folder = files(package) / "static"
    parts = [item for item in sorted(folder.iterdir(), key=lambda item: item.name) if item.name.endswith(suffix)]
    return "\n".join(part.read_text("utf-8") for part in parts)
