"""Whether a smaller model gives the logits of the masked one: as near as rounding allows, and never guessed.

In float32 a model whose heads were taken away at random can move by thousandths of a logit when sums are taken in another order. So
where the two differ by more than 1e-5 of the largest logit, both are computed in double precision: there they must agree to that, or at
least as well as the masked model in float32 agrees with itself in double (a mean in the bias is rounded once more).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headatlas.edits import OnHeads
from headatlas.errors import UnsupportedModel
from headatlas.model import Model, attach
from headatlas.model.structure.selfcheck import bound

SHARE = 1e-5  # of the largest logit: how far two float32 models that are equal may be apart


@dataclass(frozen=True)
class Agreement:
    """difference: the largest of two models' logits, in the model's own type; largest: the largest logit.

    in_double: the difference in double precision, rounding: how far the masked model is from itself there; None where nothing asked for them.
    """

    difference: float
    largest: float
    in_double: float | None = None
    rounding: float | None = None

    def __str__(self) -> str:
        if self.in_double is None:
            return f"{self.difference:.1e}"
        return (
            f"{self.in_double:.1e} in double precision ({self.difference:.1e} in float32, where the masked model is "
            f"{self.rounding:.1e} from itself in double)"
        )


def agreement(model: Model, edits: Sequence[OnHeads], smaller: nn.Module, inputs: Mapping[str, Tensor]) -> Agreement:
    """How far a smaller model, as it was loaded, is from the masked one on some inputs. Raises UnsupportedModel where too far.

    smaller is turned to double precision on the way, where that is asked for.
    """
    masked, found = model.forward(dict(inputs), edits=edits).cpu(), _plain(smaller, inputs)
    difference, largest = _apart(masked, found), float(masked.abs().max())
    if difference <= bound(model.dtype, SHARE, 5e-2) * max(largest, 1.0):
        return Agreement(difference, largest)
    if model.dtype != torch.float32:
        raise _differs(model, difference)
    wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with attach(copy.deepcopy(model.hf).double(), tokenizer=model.tokenizer) as precise:
        truth = precise.forward(wide, edits=edits).cpu()
    in_double, rounding = _apart(truth, _plain(smaller.double(), wide)), _apart(truth, masked)
    if not in_double <= max(SHARE * max(largest, 1.0), rounding):
        raise _differs(model, in_double)
    return Agreement(difference, largest, in_double, rounding)


@torch.no_grad()
def _plain(hf: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return Model.read(hf(**inputs)).cpu()


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def _differs(model: Model, difference: float) -> UnsupportedModel:
    return UnsupportedModel(
        f"The smaller {model.architecture} gives other logits than the masked model (by {difference:.1e}), so nothing was "
        "written: something in it hangs on how many heads there are.",
        "Remove heads by edits instead (headatlas.Zero).",
    )
