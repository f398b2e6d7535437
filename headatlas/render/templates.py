"""Templates of pages: every value is escaped, an unknown name is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(package: str) -> Environment:
    """The templates in the folder `templates` of a package, such as "headatlas.report"."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # the terminal needs none

    return Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
