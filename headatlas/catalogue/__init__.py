"""The catalogue: what the literature says of attention heads, as data that programs and readers can search.

>>> from headatlas.catalogue import load
>>> load().head_type("S-Inhibition").stage     # doctest: +SKIP
"""

from __future__ import annotations

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.extras import extras, head_type, papers_for, stage_of
from headatlas.catalogue.gather import gather
from headatlas.catalogue.load import load
from headatlas.catalogue.problem import CatalogueError, Problem

__all__ = ["Catalogue", "CatalogueError", "Problem", "extras", "gather", "head_type", "load", "papers_for", "stage_of"]
