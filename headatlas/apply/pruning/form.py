"""Which shape holds the heads that are left: one number of query heads and of key-value heads for all layers.

transformers' configurations have one number for all layers, and attend query head h to key-value head h // (queries a group).
So each layer lays out the heads it kept in groups of `queries`; a group that has more gets its keys and values a second time, and
places that are left over are filled with zeros. With as many queries a group as before, whole KV groups are dropped; with fewer,
the same number of queries of each; with one, every head has keys and values of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.ops.types import LayerKey


@dataclass(frozen=True)
class Form:
    """heads: (stack, layer) -> for each new query head the old one, None for a filler; groups: the same of key-value heads."""

    n_heads: int
    n_groups: int
    heads: Mapping[LayerKey, tuple[int | None, ...]]
    groups: Mapping[LayerKey, tuple[int | None, ...]]

    @property
    def repeated(self) -> int:
        """How many key-value heads are copies of another one of their layer."""
        real = [[group for group in own if group is not None] for own in self.groups.values()]
        return sum(len(own) - len(set(own)) for own in real)

    @property
    def fillers(self) -> int:
        """How many query heads are zeros."""
        return sum(own.count(None) for own in self.heads.values())


def forms(layers: Sequence[AttentionLayer], removed: Collection[HeadId]) -> list[Form]:
    """The shapes that hold the heads which are left and have fewer weights than the model's own, the smallest first.

    Raises BadInput where there is none.
    """
    before, n_groups = layers[0].n_heads, layers[0].n_groups
    kept = {
        (layer.stack, layer.index): _by_group(layer, removed) for layer in layers
    }  # of each group the heads that are left
    found = []
    for queries in range(1, before // n_groups + 1):
        need = max(1, *(sum(-(-len(group) // queries) for group in own) for own in kept.values()))
        # Weights are as many as query heads and key-value heads: of equal ones, fewer of the latter mean a smaller cache.
        for number in range(need, before + 1):
            if number * (queries + 1) < before + n_groups:
                laid = {key: _laid_out(own, queries, number) for key, own in kept.items()}
                heads = {key: one for key, (one, _) in laid.items()}
                groups = {key: one for key, (_, one) in laid.items()}
                found.append(Form(queries * number, number, heads, groups))
    if not found:
        full = max(layers, key=lambda layer: sum(map(len, kept[layer.stack, layer.index])))
        most = sum(map(len, kept[full.stack, full.index]))
        raise BadInput(
            f"No smaller shape holds these heads: layer {full.index} keeps {most} of its {before}"
            + (f" in {n_groups} KV groups" if n_groups < before else "")
            + ", and all layers have the same number.",
            "Remove heads evenly (--spread layer, group or queries), or keep fewer.",
        )
    return sorted(found, key=lambda form: (form.n_heads + form.n_groups, form.n_groups))


def _by_group(layer: AttentionLayer, removed: Collection[HeadId]) -> list[list[int]]:
    size = layer.n_heads // layer.n_groups
    left = [head.head for head in layer.heads if head not in removed]
    return [[head for head in left if head // size == group] for group in range(layer.n_groups)]


def _laid_out(
    groups: Sequence[Sequence[int]], queries: int, number: int
) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Old heads and old groups in their new places: pieces of at most `queries` heads, each with its group's keys and values."""
    pieces = [
        (group, heads[i : i + queries]) for group, heads in enumerate(groups) for i in range(0, len(heads), queries)
    ]
    fill: list[int | None] = [None]
    new_heads = [head for _, piece in pieces for head in [*piece, *fill * (queries - len(piece))]]
    empty = number - len(pieces)
    return (*new_heads, *fill * (empty * queries)), (*(group for group, _ in pieces), *fill * empty)
