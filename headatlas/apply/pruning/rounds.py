"""How evenly heads go: an order cut into rounds, each of which takes the same from every layer or KV group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.model import Model


@dataclass(frozen=True)
class Rounds:
    """rounds: the heads that go together, in turn; guarded: heads that stay whatever is asked."""

    rounds: tuple[tuple[HeadId, ...], ...]
    guarded: frozenset[HeadId] = frozenset()

    def removed(self, share: float) -> tuple[HeadId, ...]:
        """The heads that are gone where about `share` of all heads is kept: whole rounds, as near as they come; sorted."""
        total = sum(map(len, self.rounds)) + len(self.guarded)
        ends = [0, *itertools.accumulate(map(len, self.rounds))]
        # Of two as near, the one that keeps more.
        number = min(range(len(ends)), key=lambda i: (round(abs((total - ends[i]) - share * total), 9), i))
        return tuple(sorted(itertools.chain(*self.rounds[:number])))


def rounds_of(model: Model, order: Sequence[HeadId], spread: str, guard: int = 0) -> Rounds:
    """An order as rounds under a spread (see `PruneOptions`).

    "layer", "queries": a round takes the first head left of each layer, or KV group. "group": the first KV group left of
    each layer, where a group stands for its last head in the order. guard: the last so many of each layer stay.
    Raises BadInput where a spread has nothing to be even about.
    """
    rank = {head: i for i, head in enumerate(order)}
    layers = [sorted(layer.heads, key=rank.__getitem__) for layer in model.layers]
    if guard:
        few = min(map(len, layers))
        if guard >= few:
            raise BadInput(
                f"A guard of {guard} heads keeps all heads of a layer with {few}.", f"Give {few - 1} at most."
            )
        kept = frozenset(head for heads in layers for head in heads[-guard:])
        return Rounds(tuple((head,) for head in order if head not in kept), kept)
    if spread == "model":
        return Rounds(tuple((head,) for head in order))
    if spread == "layer":
        return Rounds(_in_turn([[(head,) for head in heads] for heads in layers]))
    groups = [
        [layer.heads[i : i + size] for i in range(0, layer.n_heads, size)]
        for layer in model.layers
        for size in [layer.n_heads // layer.n_groups]
    ]
    if spread == "group":
        return Rounds(_in_turn([sorted(own, key=lambda one: max(rank[head] for head in one)) for own in groups]))
    if all(len(group) == 1 for own in groups for group in own):
        raise BadInput(
            f"No heads of {model.name} share keys and values, so no group has fewer queries.", "Take the spread layer."
        )
    return Rounds(
        _in_turn([[(head,) for head in sorted(group, key=rank.__getitem__)] for own in groups for group in own])
    )


def _in_turn(queues: Sequence[Sequence[tuple[HeadId, ...]]]) -> tuple[tuple[HeadId, ...], ...]:
    """The first of every queue, then the second of every queue, and so on."""
    turns = itertools.zip_longest(*queues, fillvalue=())
    return tuple(tuple(itertools.chain(*turn)) for turn in turns)
