"""What each key-value group of a model keeps of a text: everything, or its first and its most recent tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headatlas.errors import BadInput
from headatlas.methods.protected_groups import Group
from headatlas.model import Model
from headatlas.model.holding.cache import HeadwiseCache, cache_shapes, in_force
from headatlas.model.holding.own import OwnCache
from headatlas.model.holding.span import LayerShape, Span


@dataclass(frozen=True)
class CachePlan:
    """What each group keeps; made by `plan_cache`, `read_cache_plan` or by hand.

    shapes: of the layers of the decoder, from 0. spans: [layer][group], None where all is kept. method: how groups were chosen.
    scores: group -> what they were chosen by. model, weights: name and sha256 of what it was made for; empty: for any of
    this shape. facts: how it was made.
    """

    shapes: tuple[LayerShape, ...]
    spans: tuple[tuple[Span | None, ...], ...]
    method: str = "by hand"
    scores: Mapping[Group, float] = field(default_factory=dict)
    model: str = ""
    weights: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        have, want = [len(row) for row in self.spans], [shape.n_groups for shape in self.shapes]
        if have != want:
            raise BadInput(
                f"A plan for {have} groups a layer does not fit layers of {want}.",
                "Give each key-value group of each layer one span.",
            )

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group, in the order of the model."""
        return groups_of(self.shapes)

    @property
    def whole(self) -> tuple[Group, ...]:
        """The groups that keep all that their layer lets them see."""
        return tuple(group for group in self.groups if self.span(group) is None)

    @property
    def shortened(self) -> frozenset[Span]:
        """The different spans of the groups that do not keep everything."""
        return frozenset(span for row in self.spans for span in row if span is not None)

    def span(self, group: Group) -> Span | None:
        """What a group keeps; None: everything."""
        return self.spans[group.layer][group.group]

    def tokens(self, group: Group, n_tokens: int) -> int:
        """How many keys a group holds once a text of this many tokens was read, the mean of dropped ones counted as one."""
        span, shape = self.span(group), self.shapes[group.layer]
        if span is None:
            return shape.seen(n_tokens)
        span = span.within(shape.window)
        most = span.sinks + min(span.recent_of(n_tokens), shape.seen(n_tokens))
        return min(n_tokens, most) + (span.compensate and n_tokens > most)

    def n_bytes(self, n_tokens: int, *, itemsize: int = 4) -> int:
        """Bytes of keys and values after a text of this many tokens, one example; itemsize: bytes of a number (float32: 4, bfloat16: 2)."""
        return sum(self.tokens(group, n_tokens) * self.shapes[group.layer].numbers * itemsize for group in self.groups)

    def share(self, n_tokens: int) -> float:
        """Bytes as a share of what the model's own cache takes, in which windows of its own are counted."""
        return self.n_bytes(n_tokens) / everything(self.shapes).n_bytes(n_tokens)

    def cache(self, model: Model) -> HeadwiseCache:
        """An empty cache for one text, or one batch of texts: hf.generate(..., past_key_values=plan.cache(model)). Raises BadInput."""
        self.demand_fit(model)
        return HeadwiseCache(self.shapes, self.spans)

    @contextlib.contextmanager
    def on(self, model: Model) -> Iterator[nn.Module]:
        """The plain transformers model, whose `forward` and `generate` take caches of this plan in here, in this thread. Raises BadInput."""
        self.demand_fit(model)
        with in_force(model):
            yield model.hf

    def evicted(self, model: Model, past: OwnCache, starts: Tensor | None = None) -> HeadwiseCache:
        """What this plan leaves of a model's own cache, which is not changed: a text is read once, and evicted in several ways.

        past: of a forward pass with use_cache=True. starts [example]: the first column that is no padding, 0 unless given. Raises BadInput.
        """
        self.demand_fit(model)
        return evicted(self, model, past, starts)

    def demand_fit(self, model: Model) -> None:
        """Raise BadInput unless the plan was made for this model; UnsupportedModel where its cache cannot hold less."""
        if self.shapes != cache_shapes(model):
            raise BadInput(
                f"The plan is for a cache of {len(self.shapes)} layers of other shapes than {model.name} has.",
                "Make one for this model: headatlas cache plan.",
            )
        if self.weights and self.weights != model.sha256():
            raise BadInput(
                f"The plan was made for other weights than those of {model.name} ({self.model}).",
                "Make one for this model, or take the hash out of the plan to use it all the same.",
            )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each group: what it keeps, and by what score."""
        spans = [(group, self.span(group)) for group in self.groups]
        return [
            {"group": str(group), "keeps": "all" if span is None else span.data, "score": self.scores.get(group)}
            for group, span in spans
        ]

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data, a row for each group."""
        return {
            **self.facts, "model": self.model, "weights": self.weights, "method": self.method,
            "layers": [shape._asdict() for shape in self.shapes], "groups": self.rows,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"CachePlan({self.method}: {len(self.whole)} of {len(self.groups)} key-value groups keep everything)"


def evicted(plan: CachePlan, model: Model, past: OwnCache, starts: Tensor | None = None) -> HeadwiseCache:
    """`CachePlan.evicted`, of a plan that is known to fit."""
    cache, n_tokens = HeadwiseCache(plan.shapes, plan.spans), past.get_seq_length()
    owns: list[Any] = list(past.layers)
    for layer, own, attention in zip(cache.headwise, owns, model.layers, strict=True):
        first = torch.zeros(len(own.keys), dtype=torch.long) if starts is None else starts
        layer.fill(own.keys, own.values, n_tokens, first, attention.n_heads // attention.n_groups)
    return cache


def groups_of(shapes: Sequence[LayerShape]) -> tuple[Group, ...]:
    """Every key-value group of layers of these shapes, in order."""
    return tuple(Group(layer, group) for layer, shape in enumerate(shapes) for group in range(shape.n_groups))


def everything(shapes: Sequence[LayerShape]) -> CachePlan:
    """The plan by which every group keeps all that its layer lets it see."""
    return CachePlan(tuple(shapes), tuple((None,) * shape.n_groups for shape in shapes), "everything")


def plan_of(
    shapes: Sequence[LayerShape], whole: Iterable[Group], span: Span, *, method: str = "by hand", **more: Any
) -> CachePlan:
    """The plan by which these groups keep everything, and all others one span. Raises BadInput for a group that there is not."""
    chosen = set(whole)
    for group in sorted(chosen - set(groups_of(shapes))):
        raise BadInput(f"There is no key-value group {group}.", f"There are {len(shapes)} layers, from 0.")
    spans = tuple(
        tuple(None if Group(layer, group) in chosen else span for group in range(shape.n_groups))
        for layer, shape in enumerate(shapes)
    )
    return CachePlan(tuple(shapes), spans, method, **more)


def within_budget(
    shapes: Sequence[LayerShape], ranking: Sequence[Group], span: Span, *, keep: float, n_tokens: int
) -> tuple[Group, ...]:
    """The groups of a ranking, best first, that can keep everything while all bytes stay within a share of the full cache's.

    A group that is too large for what is left is passed over (layers with windows of their own are cheaper than others).
    Raises BadInput where even no group at all is too much.
    """
    if not 0 < keep <= 1:
        raise BadInput(f"A cache of {keep:g} times the full one's bytes is none.", "Give a share above 0 and up to 1.")
    full = everything(shapes)
    most = keep * full.n_bytes(n_tokens)
    smallest = plan_of(shapes, (), span)
    used = smallest.n_bytes(n_tokens)
    if used > most:
        raise BadInput(
            f"{span.sinks} first and {span.recent_of(n_tokens)} recent tokens for all groups take {used / full.n_bytes(n_tokens):.2f} of the full "
            f"cache at {n_tokens} tokens, more than {keep:g}.",
            "Keep fewer recent tokens, or more of the cache.",
        )
    chosen = []
    for group in ranking:
        more = (full.tokens(group, n_tokens) - smallest.tokens(group, n_tokens)) * shapes[group.layer].numbers * 4
        if used + more <= most:
            used += more
            chosen.append(group)
    return tuple(chosen)


def rebudgeted(plan: CachePlan, *, keep: float, n_tokens: int) -> CachePlan:
    """The same ranking of groups and the same span under another budget. Raises BadInput for a plan without scores of its groups."""
    if len(plan.shortened) > 1 or set(plan.scores) != set(plan.groups):
        raise BadInput("The plan ranks no groups by a score.", "Make it by razor, retrieval or gates.")
    (span,) = plan.shortened or {Span()}
    order = sorted(plan.groups, key=lambda group: (-plan.scores[group], group))
    whole = within_budget(plan.shapes, order, span, keep=keep, n_tokens=n_tokens)
    spans = plan_of(plan.shapes, whole, span).spans
    return replace(plan, spans=spans, facts={**plan.facts, "keep": keep, "n_tokens": n_tokens})


def widest(shapes: Sequence[LayerShape], span: Span, *, keep: float, n_tokens: int) -> Span:
    """The span with the most recent tokens that all groups can keep within a share of the full cache's bytes. Raises BadInput."""
    within_budget(shapes, (), replace(span, recent=1), keep=keep, n_tokens=n_tokens)
    low, high = 1, n_tokens
    while low < high:
        middle = (low + high + 1) // 2
        fits = plan_of(shapes, (), replace(span, recent=middle)).share(n_tokens) <= keep
        low, high = (middle, high) if fits else (low, middle - 1)
    return replace(span, recent=low)


def as_recent(plan: CachePlan, n_tokens: int) -> CachePlan:
    """The plan of no more bytes by which all groups keep the same first and recent tokens."""
    span = Span(
        max((one.sinks for one in plan.shortened), default=0), 1, 0.0, any(one.compensate for one in plan.shortened)
    )
    return replace(
        plan_of(plan.shapes, (), widest(plan.shapes, span, keep=plan.share(n_tokens) + 1e-9, n_tokens=n_tokens), method="recency"),
        model=plan.model, weights=plan.weights,
    )  # fmt: skip


def shuffled(plan: CachePlan, seed: int = 0) -> CachePlan:
    """The same spans, given to random groups among layers of the same shape."""
    rng = np.random.default_rng(seed)
    spans = [list(row) for row in plan.spans]
    for shape in dict.fromkeys(plan.shapes):
        places = [group for group in plan.groups if plan.shapes[group.layer] == shape]
        for group, other in zip(places, [places[i] for i in rng.permutation(len(places))], strict=True):
            spans[group.layer][group.group] = plan.span(other)
    return replace(plan, spans=tuple(map(tuple, spans)), method="random", scores={}, facts={})
