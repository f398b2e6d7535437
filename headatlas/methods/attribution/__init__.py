"""Attribution: estimates of effects from gradients, of heads, MLPs and edges."""

from headatlas.renamed import old_names

__getattr__ = old_names(__name__)
