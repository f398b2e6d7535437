"""Weights of a model's attention layers and unembedding, as they are or with the norm in front of them folded in."""

from __future__ import annotations

from torch import Tensor

from headatlas.errors import UnsupportedModel
from headatlas.model.core.head_weights import HeadWeights, fold_gain, of_layer
from headatlas.model.core.linear_and_norm import matrix, offset
from headatlas.model.core.model import Model


def weights_of(model: Model, layer: int, stack: str = "decoder") -> HeadWeights:
    """The weights of one attention layer. Raises BadInput for a layer that is not there, UnsupportedModel by name."""
    return of_layer(model.layer(layer, stack))


def folded(model: Model, layer: int, stack: str = "decoder") -> HeadWeights:
    """The same with the preceding norm's gain, shift and centring multiplied in, for residual streams scaled to variance 1.

    q = (x / scale) W_Q + b_Q, where x is the residual stream that the norm reads and scale its root mean square (after
    centring, in a LayerNorm). Raises UnsupportedModel where no norm hands its output straight to the projections.
    """
    return of_layer(model.layer(layer, stack), fold=True)


def folded_unembedding(model: Model) -> tuple[Tensor, Tensor | None]:
    """(W_U [d_model, vocab], bias [vocab] or None) with the final norm's gain, shift and centring multiplied in.

    What follows the logits' matrix (a cap, a constant scale) is not included. Raises UnsupportedModel without a read-out.
    """
    found = model.unembedding
    if found is None:
        raise UnsupportedModel(
            f"{model.architecture} has no linear read-out from hidden states to tokens.", "Load it with its head."
        )
    weight, bias = matrix(found.head).detach().clone(), offset(found.head)
    return fold_gain(weight, bias, found.gain, found.shift, found.centers)
