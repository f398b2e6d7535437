"""Heads by which a decoder attends to the source token that equals a target token, where no alignment is known."""

import torch
from torch import Tensor

from headatlas.detector import Measured, Planted, detector
from headatlas.detectors._measures.links import found_links, pointing, settled, straight, words
from headatlas.model.core.view import LayerView
from headatlas.task import Batch
from headatlas.tasks.reordered import reordered


@detector(head_type="alignment-head", task=reordered, version=1, minimum_effect=0.1, attention="cross")
def alignment_copy(layer: LayerView, batch: Batch) -> Tensor:
    """Share of copied tokens whose most attended source token is the same token: 0 none, 1 all.

    Formula: as `alignment`, 1 - AER of the links (target token, argmax_j A[i, j]), where the gold links are pairs of equal tokens that both
    texts have once: names, numbers, places. The decoder reads the encoder's sentences in another order; of a translator, which is
    asked for its own output, what it writes by itself (the first 24 tokens). Chance: the best fixed offset from target to source
    place over the same texts. Differs: Garg et al. 2019 count against links made by people, of all words.
    """
    return found_links(layer, batch, *_same(batch))


def _same(batch: Batch) -> tuple[Tensor, Tensor]:
    """[example, link] places of each token of labels["kept"] in what decoder and encoder read; -1 where that has it not, or not once."""
    assert batch.encoder is not None
    kept, read = batch.labels["kept"], batch.encoder
    return _once(batch.tokens, batch.mask, kept), _once(read.tokens, read.marks["word"] >= 0, kept)


def _once(tokens: Tensor, among: Tensor, ids: Tensor) -> Tensor:
    here = (tokens[:, None] == ids[..., None]) & among[:, None]  # [example, id, pos]
    return torch.where((here.sum(-1) == 1) & (ids >= 0), here.float().argmax(-1), -1)


def settle(found: Tensor) -> Measured:
    """The step at which a head aligns, chosen on half of the examples."""
    return settled(found)


def told(found: Tensor) -> list[str]:
    """At which step each head aligns, with the share of tokens and that of the best offset."""
    return words(found)


def planted(batch: Batch) -> Planted:
    """The step that writes a token attends to the same token of the source."""
    return pointing(batch, *_same(batch))


def look_alike(batch: Batch) -> Planted:
    """A head on the diagonal, which finds the tokens that keep their places."""
    return straight(batch)
