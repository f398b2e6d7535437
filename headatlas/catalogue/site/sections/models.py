"""All models that papers speak of, and a page for each: papers, claims, circuits, what runs saw in it."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.site.atlases import VERDICTS
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.facets import facets
from headatlas.catalogue.site.models import model_pages


def _pages(context: SiteContext) -> Iterator[Page]:
    models, families = model_pages(context), facets(context).model_values
    yield Page("models/index.html", "models.html.j2", {"models": models})
    for model in models:
        family = next((families[name] for name in model.names if name in families), None)
        yield Page(model.path, "model.html.j2", {"model": model, "family": family, "verdicts": VERDICTS})


MODELS = Section("models", _pages, "Models", 3)
