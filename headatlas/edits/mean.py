"""Mean ablation: a head's output replaced by its mean over a reference, overall, per position or per template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from headatlas.edits.base import Heads, Layers, OnHeads, Positions, Where, among, fit, named_on
from headatlas.edits.collect import means
from headatlas.edits.replace import Stored, Values
from headatlas.errors import BadInput

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.model.core.view import LayerView
    from headatlas.task import Batch


class Mean(Stored):
    """Replace what heads compute by its mean over a reference (mean ablation).

    values: (stack, layer) -> [head, width]; per position [position, head, width]; with `template` one of these for each
    template, in front: template [example] says which one each example takes. For k and v read group for head, for the
    residual stream there is one. See `Mean.over`.
    """

    template: Tensor | None

    def __init__(
        self, heads: Heads | Layers, values: Values, template: Tensor | None = None, **where: Unpack[Where]
    ) -> None:
        super().__init__(heads, values, **where)
        self._set(template=template)

    @classmethod
    def over(
        cls,
        model: Model,
        heads: Heads | Layers,
        reference: Batch,
        *,
        per_position: bool = False,
        tokens: Positions = None,
        template: str | None = None,
        target: Batch | None = None,
        **where: Unpack[Where],
    ) -> Mean:
        """The mean over `reference`: over its `tokens` ([n] or [example, n] positions), else all, padding left out.

        per_position: a mean for each position instead. template: a label of `reference` and `target` (the batch to be edited,
        else the reference itself); each example takes the mean over reference examples with its label.
        """
        if per_position and tokens is not None:
            raise BadInput("A mean per position is not taken over chosen tokens.", "Give per_position or tokens.")
        heads = named_on(model, heads, where)
        what = OnHeads(heads, **where)
        own = _labels(reference, template)
        ids, values, counts = means(model, reference, what, per_position=per_position, tokens=tokens, groups=own)
        named = _labels(target if target is not None else reference, template)
        strange = sorted(set(named.tolist()) - set(ids.tolist()))
        if strange:
            raise BadInput(f"The reference has no example with {template} {strange[0]}.", "Use a larger reference.")
        index = torch.searchsorted(ids, named)
        if per_position:
            for stack, count in counts.items():
                _demand_covered(what, count, index, None if target is None else target.side(stack))
        if template is None:
            return cls(heads, {key: value[0] for key, value in values.items()}, **where)
        return cls(heads, values, index, **where)

    @property
    def per_position(self) -> bool:
        """Whether there is a mean for each position."""
        return next(iter(self.values.values())).ndim - (self.template is not None) == 3

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """The means."""
        value = self._value(layer, x, index)
        value = value[self.template.to(x.device)] if self.template is not None else value[None]
        fit(len(value), len(x), repr(self))
        value = self._at_tokens(layer, value, len(x)) if self.per_position else value[:, None]
        return value.expand(x.shape)

    def rows(self, index: Tensor | slice) -> OnHeads:
        """See OnHeads.rows."""
        other = super().rows(index)
        return other if self.template is None else other.with_values(template=self.template[index])

    def details(self) -> list[str]:
        """Per position, per template."""
        texts = ["per position"] if self.per_position else []
        return texts + (["per template"] if self.template is not None else [])

    def options(self) -> dict[str, Any]:
        """Values and template."""
        return {**super().options(), "template": self.template}


def _labels(batch: Batch, name: str | None) -> Tensor:
    """[example] the label that examples are grouped by; all 0 without one. Raises BadInput."""
    if name is None:
        return torch.zeros(len(batch), dtype=torch.long)
    if name not in batch.labels:
        known = ", ".join(sorted(batch.labels)) or "no labels"
        raise BadInput(f"There is no label '{name}' to group examples by.", f"The batch has {known}.")
    return batch.labels[name].cpu()


def _demand_covered(what: OnHeads, count: Tensor, index: Tensor, target: Batch | None) -> None:
    """Raise BadInput where a token to be edited stands at a position of which the reference has no mean."""
    if target is None:
        if bool((count == 0).any()):
            raise BadInput(
                "The reference has positions at which no example has a token, so there is no mean for them.",
                "Say which batch is to be edited (target=...), or take the mean over all positions.",
            )
        return
    length = target.tokens.shape[1]
    covered = torch.zeros(len(target), length, dtype=torch.bool)
    covered[:, : count.shape[1]] = (count > 0)[index][:, :length]
    wanted = target.mask.cpu() & ~covered
    if what.positions is not None:
        wanted &= among(torch.arange(length)[None], what.positions.cpu(), len(target), repr(what))
    if bool(wanted.any()):
        example, position = wanted.nonzero()[0].tolist()
        raise BadInput(
            f"Example {example + 1} has a token at position {position}, where no reference example of its kind has one.",
            "Use a larger reference, or take the mean over all positions.",
        )
