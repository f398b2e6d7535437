"""Reading what heads compute on a batch, by component: the values that edits put in place of others, and their means."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headatlas.edits.base import OnHeads, Positions, among, fit, parse_positions, token_stack
from headatlas.errors import BadInput
from headatlas.model.core.forward_pass import Tap
from headatlas.ops.positions import FROM_THE_START, demand_real
from headatlas.ops.types import LayerKey
from headatlas.renamed import renamed_arguments

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.model.core.view import LayerView
    from headatlas.task import Batch

_ONE = torch.zeros(1, dtype=torch.long)  # logits are computed at one position only, nobody needs them here
CHUNK = 4096  # tokens a pass


def read(model: Model, batch: Batch, what: OnHeads, show: Callable[[LayerKey, Tensor], None]) -> None:
    """One pass; `show` gets [example, token, head, width] at the component and each layer of `what` (groups for k, v)."""
    model.require_edits([what])

    def watch(layer: LayerView) -> None:
        if (layer.stack, layer.index) in what.layers and what.component != "residual":
            found: Any = getattr(layer, what.component)
            show((layer.stack, layer.index), found if what.component == "z" else found.transpose(1, 2))

    tap = Tap(what.layers, lambda key, x: show(key, x.unsqueeze(2)))
    edits = [tap] if what.component == "residual" else []
    model.forward(batch, watch=watch, edits=edits, logit_positions=_ONE)


def pieces(batch: Batch) -> list[Batch]:
    """The batch in pieces of about CHUNK tokens."""
    return batch.chunks(max(1, CHUNK // batch.tokens.shape[1]))


@renamed_arguments(at="positions")
def collect(model: Model, batch: Batch, what: OnHeads, *, positions: Positions = None) -> dict[LayerKey, Tensor]:
    """(stack, layer) -> [example, token, head, width] at the component and layers of `what`.

    positions: [example, n] the tokens wanted, so that [example, n, head, width] is all that is kept; -1 gives some other token's.
    """
    parts: dict[LayerKey, list[Tensor]] = {key: [] for key in what.layers}
    done, wanted = 0, parse_positions(positions)
    if wanted is not None:
        for stack in {token_stack(stack, what.component) for stack, _ in what.layers}:
            demand_real(wanted, batch.side(stack).mask, "collect")
        fit(len(wanted), len(batch), "collect")
        wanted = wanted.expand(len(batch), -1)
    for part in pieces(batch):
        index = (
            None if wanted is None else wanted[done : done + len(part)].clamp(min=0)[:, :, None, None].to(model.device)
        )
        done += len(part)

        def keep(key: LayerKey, x: Tensor, index: Tensor | None = index) -> None:
            x = x.detach()
            parts[key].append(x.clone() if index is None else x.gather(1, index.expand(-1, -1, *x.shape[2:])))

        read(model, part, what, keep)
    return {key: torch.cat(found) for key, found in parts.items()}


def means(
    model: Model,
    batch: Batch,
    what: OnHeads,
    *,
    per_position: bool = False,
    tokens: Positions = None,
    groups: Tensor | None = None,
) -> tuple[Tensor, dict[LayerKey, Tensor], dict[str, Tensor]]:
    """Means by group of examples: labels [group], (stack, layer) -> [group, (position,) head, width], counts [group, position].

    Counts are by the stack whose tokens they are. Where no example of a group has a token (count 0), the mean over the
    group's positions stands in, for padding.
    """
    labels = groups if groups is not None else torch.zeros(len(batch), dtype=torch.long)
    known = labels.unique()
    member = (labels[None] == known[:, None]).double()  # [group, example]
    stacks = sorted({token_stack(stack, what.component) for stack, _ in what.layers})
    # [group, example, token]
    weights = {stack: member[:, :, None] * _counted(batch.side(stack), tokens)[None] for stack in stacks}
    counts: dict[str, Tensor] = {}
    for stack, weight in weights.items():
        count = weight.sum(1) if per_position else weight.sum((1, 2))[:, None]
        counts[stack] = count[:, : int(count.ne(0).any(0).nonzero().max()) + 1]
    form = "get,ethd->gthd" if per_position else "get,ethd->ghd"
    sums: dict[LayerKey, Tensor] = {}
    start = 0
    for part in pieces(batch):
        rows = slice(start, start + len(part))
        start = rows.stop

        def add(key: LayerKey, x: Tensor, rows: slice = rows) -> None:
            # Summed in double precision, so that the mean does not depend on how the batch is cut.
            mine = weights[token_stack(key[0], what.component)][:, rows].to(model.device)
            sums[key] = sums.get(key, 0.0) + torch.einsum(form, mine, x.detach().double())

        read(model, part, what, add)
    values = {}
    for key, total in sums.items():
        count = counts[token_stack(key[0], what.component)].to(model.device)
        whole = count.sum(1)[:, None, None]
        if not per_position:
            values[key] = (total / whole).float()
            continue
        share = count[..., None, None]
        overall = (total.sum(1) / whole)[:, None]
        values[key] = torch.where(share > 0, total[:, : count.shape[1]] / share.clamp(min=1), overall).float()
    return known, values, counts


def _counted(batch: Batch, tokens: Positions) -> Tensor:
    """[example, token] double: 1 where a token counts."""
    if tokens is None:
        return batch.mask.double()
    everywhere = torch.arange(batch.tokens.shape[1])[None]
    chosen = parse_positions(tokens)
    assert chosen is not None
    counted = among(everywhere, chosen.cpu(), len(batch), "The mean") & batch.mask.cpu()
    if not bool(counted.any()):
        raise BadInput("The mean is over tokens that no example has.", FROM_THE_START)
    return counted.double()
