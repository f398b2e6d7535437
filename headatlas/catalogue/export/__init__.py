"""The catalogue in other formats: JSON and CSV, BibTeX, an Atom feed, the list as one Markdown page."""

from headatlas.renamed import old_names

__getattr__ = old_names(__name__)
