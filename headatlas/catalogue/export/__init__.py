"""The catalogue in other formats: JSON and CSV, BibTeX, an Atom feed, the list as one Markdown page."""
