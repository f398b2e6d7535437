"""Loads the catalogue: every paper, head type, method, benchmark, claim and circuit, as checked, frozen objects."""

from __future__ import annotations

import functools
from pathlib import Path

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.gather import Gathered, gather
from headatlas.catalogue.problem import CatalogueError
from headatlas.catalogue.rules.integrity import integrity
from headatlas.renamed import old_names


@functools.cache
def _ours() -> Catalogue:
    return _checked(gather())


def _checked(gathered: Gathered) -> Catalogue:
    catalogue = gathered.catalogue()
    problems = sorted(gathered.problems) or sorted(integrity(gathered, catalogue))
    if problems:
        raise CatalogueError(problems)
    return catalogue


def load(folder: Path | None = None) -> Catalogue:
    """The catalogue in `folder`, or ours (read once a process). Raises CatalogueError where a file cannot be used."""
    return _ours() if folder is None else _checked(gather(folder))


__getattr__ = old_names(__name__)
