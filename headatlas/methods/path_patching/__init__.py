"""Path patching: the effect of one head through chosen receivers alone."""

from headatlas.renamed import old_names

__getattr__ = old_names(__name__)
