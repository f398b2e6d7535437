"""The version of the package; results carry it, and pyproject.toml reads it from here."""

__version__ = "0.1.0"
