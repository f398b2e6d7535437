"""How hidden states become logits: the linear map that a model ends in, and the norm in front of it."""

from __future__ import annotations

from torch import Tensor, nn

from headatlas.model.core.linear_and_norm import matrix, norm_gain, norm_shift


class Unembedding:
    """How a vector in the residual stream bears on logits: the final norm, then W_U.

    head: the linear map. norm: the norm in front of it; centers: whether it subtracts the mean.
    """

    def __init__(self, head: nn.Module, norm: nn.Module, d_model: int) -> None:
        self.head, self.norm, self._width = head, norm, d_model
        self.centers = norm_gain(norm, d_model)[1]

    @property
    def gain(self) -> Tensor:
        """The norm's gain now, [d_model]: it may have been trained since the model was opened."""
        return norm_gain(self.norm, self._width)[0]

    @property
    def shift(self) -> Tensor:
        """What the norm adds to everything now, [d_model]."""
        return norm_shift(self.norm, self._width)

    @property
    def weight(self) -> Tensor:
        """W_U as [d_model, vocab]."""
        return matrix(self.head)

    def directions(self, written: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`written` [example, ..., d_model] through the final norm's gain, and W_U's columns of tokens [example, m] -> [example, m, d_model]."""
        if self.centers:
            written = written - written.mean(-1, keepdim=True)
        return written * self.gain, self.weight.T[tokens].float()


def unembedding_of(model: nn.Module) -> nn.Module | None:
    """The map from hidden states to logits, or None."""
    getter = getattr(model, "get_output_embeddings", None)
    found: nn.Module | None = getter() if getter is not None else None
    return found
