"""Heads by which a decoder attends to the source word that a target word translates, where the alignment is known."""

from torch import Tensor

from headatlas.detector import Measured, Planted, detector
from headatlas.detectors._measures.links import found_links, pointing, settled, straight, words
from headatlas.model.core.view import LayerView
from headatlas.task import Batch
from headatlas.tasks.translation import translation


@detector(head_type="alignment-head", task=translation, version=1, minimum_effect=0.1, attention="cross")
def alignment(layer: LayerView, batch: Batch) -> Tensor:
    """Share of target words whose most attended source word is the one that they translate: 0 none, 1 all; 1 less the alignment error rate.

    Formula: 1 - AER of the links (target word, argmax_j A[i, j]), end token left out, which with one sure link a word is the share of
    words that are linked right (Och & Ney 2003; Garg et al. 2019). i is the decoder's step that writes the word or the next one,
    which reads it, whichever the head aligns better at on one half of the examples; scored on the other. Chance: the best fixed
    offset from target to source place over the same sentences.
    """
    return found_links(layer, batch, *_gold(batch))


def _gold(batch: Batch) -> tuple[Tensor, Tensor]:
    """[example, link] places of linked words in what decoder and encoder read, -1 for none."""
    assert batch.encoder is not None
    return batch.positions["aligned"], batch.encoder.positions["aligned"]


def settle(found: Tensor) -> Measured:
    """The step at which a head aligns, chosen on half of the examples."""
    return settled(found)


def told(found: Tensor) -> list[str]:
    """At which step each head aligns, with the share of words and that of the best offset."""
    return words(found)


def planted(batch: Batch) -> Planted:
    """The step that writes a word attends to the word that it translates."""
    return pointing(batch, *_gold(batch))


def look_alike(batch: Batch) -> Planted:
    """A head on the diagonal, which finds the words that keep their places."""
    return straight(batch)
