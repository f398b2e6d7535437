"""docs/detectors/found.md is what its script makes of the shipped atlases."""

import runpy

from headatlas.detector import detectors
from tests import pages


def test_the_page_of_where_detectors_find_something_is_that_of_its_script():
    script = runpy.run_path(str(pages.ROOT / "examples" / "where_found.py"))
    atlases = sorted((pages.ROOT / "docs" / "atlas").glob("*.html"))
    page = pages.text("detectors/found.md")
    assert script["page_of"](atlases) == page.rstrip("\n")
    assert all(f"| {name} | " in page for name in detectors())
