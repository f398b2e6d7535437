"""Tiny models, and the masked ones that smaller checkpoints are held against: made with torch alone, not by edits."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from headatlas.heads import HeadId
from headatlas.model import Model, attach
from headatlas.model.families.tiny_models import family
from headatlas.task import Batch


@functools.cache
def attached(name: str, **changes: object) -> Model:
    """A tiny model of a family, opened; shared, so leave it as it is."""
    return attach(family(name).build(**changes))


def batch(n: int = 6, length: int = 20, seed: int = 0) -> Batch:
    """Random tokens, every one of which is predicted."""
    tokens = torch.randint(3, 150, (n, length), generator=torch.Generator().manual_seed(seed))
    predict = torch.arange(length - 1).expand(n, -1)
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": predict})


def logits(model: Model, tokens: Tensor, removed: Iterable[HeadId], means: Mapping | None = None) -> Tensor:
    """What a plain copy of a model gives where heads' outputs are set to zero, or to means, in front of the output projection."""
    hf, gone = copy.deepcopy(model.hf), list(removed)
    modules = dict(hf.named_modules())
    for layer in model.layers:
        name = next(path for path, part in model.hf.named_modules() if part is layer.projection)
        mine = [head for head in gone if head.layer == layer.index]

        def masked(_: nn.Module, args: tuple[Tensor, ...], layer=layer, mine=mine):
            z = args[0].unflatten(-1, (layer.n_heads, layer.d_value)).clone()
            for head in mine:
                z[..., head.head, :] = 0 if means is None else means[layer.stack, layer.index][head.head]
            return (z.flatten(-2), *args[1:])

        modules[name].register_forward_pre_hook(masked)
    with torch.no_grad():
        return Model.read(hf(input_ids=tokens))


def some(model: Model, share: float, seed: int) -> list[HeadId]:
    """Heads by lot, wherever they are."""
    order = torch.randperm(len(model.heads), generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(model.heads[i] for i in order[: round(share * len(order))])
