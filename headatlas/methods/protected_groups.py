"""Which key-value groups must keep their whole cache: RazorAttention's choice of echo and induction heads.

Tang et al. 2024 (RazorAttention): random tokens several times over; a head's echo score is its attention on earlier copies of
the current token, its induction score that on the tokens behind them. The groups of the best 14% by induction and of the best 1% by
echo are protected, a group counting as its best query head, since heads that share keys and values share a cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.model import LayerView, Model
from headatlas.ops.types import Array
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated_four


class Group(NamedTuple):
    """The heads of a layer that share one key and value head. layer, group: its place, both counted from 0."""

    layer: int
    group: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.group}"


@dataclass(frozen=True)
class ProtectedGroups:
    """What each key-value group scores, and which are protected.

    groups: in the order of the model. echo, induction: [group] the score of its best head, 0 to 1. echo_head, induction_head: [group] which
    head that is. by_echo, by_induction: the groups protected for either reason, best first. facts: how they were measured.
    """

    groups: tuple[Group, ...]
    echo: Array
    induction: Array
    echo_head: tuple[HeadId, ...]
    induction_head: tuple[HeadId, ...]
    by_echo: tuple[Group, ...]
    by_induction: tuple[Group, ...]
    facts: Mapping[str, Any]

    @property
    def protected(self) -> tuple[Group, ...]:
        """The groups that keep their cache, in the order of the model; those of both reasons count once."""
        chosen = {*self.by_echo, *self.by_induction}
        return tuple(group for group in self.groups if group in chosen)

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data, a row per group."""
        rows = zip(self.groups, self.echo, self.echo_head, self.induction, self.induction_head, strict=True)
        return {
            **self.facts,
            "protected": [str(group) for group in self.protected],
            "groups": [
                {
                    "group": str(group), "echo": float(echo), "echo_head": str(one), "induction": float(induction),
                    "induction_head": str(other), "by_echo": group in self.by_echo,
                    "by_induction": group in self.by_induction,
                }
                for group, echo, one, induction, other in rows
            ],
        }  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"ProtectedGroups({len(self.protected)} of {len(self.groups)} key-value groups: "
            f"{', '.join(map(str, self.protected[:8]))}{', ...' if len(self.protected) > 8 else ''})"
        )


def on_earlier_copies(layer: LayerView, batch: Batch, keys: str) -> Tensor:
    """[example, head] attention from positions["query"] to positions[keys], summed over a query's keys, mean over queries."""
    queries = batch.positions["query"]
    n_queries = len(queries[0].unique())
    # What a window does not reach gets nothing.
    return layer.entries(queries, batch.positions[keys]).float().nan_to_num(0.0).sum(-1) / n_queries


@torch.no_grad()
def protected_groups(
    model: Model, *, echo: float = 0.01, induction: float = 0.14, n: int = 8, seed: int = 0
) -> ProtectedGroups:
    """The key-value groups whose cache RazorAttention keeps whole, by attention on `n` texts of random tokens given four times.

    echo, induction: share of the groups that either score protects, rounded up; 0 protects none. The paper has 2,500 tokens four
    times; here they are as many as `repeated-four` has (50 where the context allows). Only decoders have such a cache. Raises BadInput, UnfitTask.
    """
    for name, share in (("echo", echo), ("induction", induction)):
        if not 0 <= share <= 1:
            raise BadInput(f"The share of {name} groups is {share}.", "Give a share from 0 to 1.")
    if model.kind != "decoder":
        raise BadInput(f"{model.name} is no decoder, so it has no cache of what it has read.", "Take a decoder.")
    batch = repeated_four(model.tokenizer, n, seed)
    scores: dict[str, list[Tensor]] = {"echo_key": [], "follow_key": []}
    home: list[Group] = []  # of each head

    def watch(layer: LayerView) -> None:
        home.extend(Group(layer.index, layer.kv_group(head.head)) for head in layer.attention.heads)
        for keys, found in scores.items():
            found.append(on_earlier_copies(layer, batch, keys).mean(0).cpu())

    model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    by_head = {keys: torch.cat(found).double().numpy() for keys, found in scores.items()}
    members: dict[Group, list[int]] = {}
    for place, group in enumerate(home):
        members.setdefault(group, []).append(place)
    groups = tuple(members)
    best = {keys: [own[int(np.argmax(values[own]))] for own in members.values()] for keys, values in by_head.items()}
    value = {keys: by_head[keys][best[keys]] for keys in best}

    def taken(keys: str, share: float) -> tuple[Group, ...]:
        order = np.argsort(-value[keys], kind="stable")[: int(np.ceil(share * len(groups) - 1e-9))]
        return tuple(groups[int(i)] for i in order)

    facts = {
        "model": model.name, "echo_share": echo, "induction_share": induction, "n": n, "seed": seed,
        "period": batch.facts["period"],
    }  # fmt: skip
    heads = {keys: tuple(model.heads[i] for i in best[keys]) for keys in best}
    return ProtectedGroups(
        groups, value["echo_key"], value["follow_key"], heads["echo_key"], heads["follow_key"],
        taken("echo_key", echo), taken("follow_key", induction), facts,
    )  # fmt: skip
