"""A recipe: what an intervention has learned of one model, in a form that can be kept, put in force and taken elsewhere.

Every intervention here comes down to numbers by head: factors and shifts of its output z, and vectors that are added to
the residual stream at the entry of a block. So one object holds them all, one file keeps them, and one module serves them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headatlas.edits import OnHeads, directions
from headatlas.edits.affine import Affine
from headatlas.edits.base import Positions
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.model import Model
from headatlas.model.core.hooks import Args, Kwargs, own_hooks
from headatlas.model.core.refusals import demand_in_memory
from headatlas.ops.types import LayerKey
from headatlas.task import Batch

ALWAYS, ANSWERING = "always", "answering"


@dataclass(frozen=True, eq=False)
class Recipe:
    """What an intervention has learned of one model.

    intervention: its name. scale, shift: head -> [d_value]: z becomes scale * z + shift; heads that one of them lacks are
    left alone by it. stream: (stack, layer) -> [d_model] what is added to the residual stream at the entry of that block.
    query: head -> [d_head, d_model] what is added to the weights of its queries, at every token. reads: heads whose attention
    is read, and that are left as they are.
    when: "always" (at every token) or "answering" (at the last token of the prompt and at each generated one). facts:
    where it comes from: model, weights, the hash of the prompts that it was fitted on, what was chosen. rivals: recipes
    that were fitted in the same way on other heads, for comparison; empty where random ones are drawn (`random`).
    """

    intervention: str
    scale: Mapping[HeadId, Tensor] = field(default_factory=dict)
    shift: Mapping[HeadId, Tensor] = field(default_factory=dict)
    stream: Mapping[LayerKey, Tensor] = field(default_factory=dict)
    query: Mapping[HeadId, Tensor] = field(default_factory=dict)
    reads: tuple[HeadId, ...] = ()
    when: str = ANSWERING
    facts: Mapping[str, Any] = field(default_factory=dict)
    rivals: tuple[Recipe, ...] = ()

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """The heads that it changes, or that it reads, in order."""
        return tuple(
            sorted(
                {*self.scale, *self.shift, *self.query, *self.reads},
                key=lambda head: (head.stack, head.layer, head.head),
            )
        )

    @property
    def changes(self) -> list[str]:
        """The heads, and the layers at whose entry something is added, as text."""
        layers = [f"layer {at}" if stack == "decoder" else f"{stack} layer {at}" for stack, at in sorted(self.stream)]
        return [*map(str, self.heads), *layers]

    def __repr__(self) -> str:
        names = self.changes
        shown = " ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        return f"Recipe({self.intervention} of {self.facts.get('model', 'a model')}: {shown}; {self.acts})"

    @property
    def acts(self) -> str:
        """When it acts: always, answering, or never, where it only reads."""
        return "reads only" if self.reads else self.when

    def demand_change(self, what: str) -> None:
        """Raise BadInput where it only reads heads, so that there is nothing to put in force."""
        if self.reads:
            raise BadInput(
                f"{self.intervention} reads heads and leaves the model as it is; there is nothing to {what}.",
                "Measure it with apply NAME test, or use it as its page says.",
            )

    def edits(self, positions: Positions = None, *, newest: bool = False) -> list[OnHeads]:
        """Its edits: at positions of a batch, at the newest token of each pass, or everywhere."""
        found: list[OnHeads] = []
        if self.scale or self.shift:
            found.append(
                Affine(
                    tuple(dict.fromkeys((*self.scale, *self.shift))),
                    self.scale,
                    self.shift,
                    newest,
                    positions=positions,
                )
            )
        if self.stream:
            places = sorted(self.stream)
            found.append(Affine(places, None, self.stream, newest, component="residual", positions=positions))
        return found

    def edits_for(self, positions: Tensor) -> list[OnHeads]:
        """Its edits on a batch whose next tokens are read at positions [example, n]: there, or everywhere where it acts always."""
        return self.edits(positions if self.when == ANSWERING else None)

    def demand_model(self, model: Model, *, other_weights: bool = False) -> None:
        """Raise BadInput unless it was fitted on this very model; other_weights: the same shape is enough."""
        model.require(self.heads)
        for stack, layer in self.stream:
            model.layer(layer, stack)
        sizes = {str(head): (len(value), model.layer(head.layer, head.stack).d_value)
                 for values in (self.scale, self.shift) for head, value in values.items()}  # fmt: skip
        sizes |= {
            f"the queries of {head}": (value.numel(), query_rows(model, head)[1].numel())
            for head, value in self.query.items()
        }
        sizes |= {f"layer {layer}": (len(value), model.d_model) for (_, layer), value in self.stream.items()}
        for name, (given, wanted) in sizes.items():
            if given != wanted:
                raise BadInput(
                    f"This recipe has {given} numbers for {name}, {model.name} has {wanted}.",
                    "It was fitted on another model; fit it on this one.",
                )
        known = self.facts.get("weights")
        if known is not None and known != model.sha256() and not other_weights:
            raise BadInput(
                f"This recipe was fitted on {self.facts.get('model')}, and {model.name} has other weights.",
                "Fit it on this model, or allow other weights of the same shape with --force (other_weights=True).",
            )

    @contextlib.contextmanager
    def on(self, model: Model, *, other_weights: bool = False) -> Iterator[nn.Module]:
        """The plain transformers model with the recipe in force, for its own generate(). Raises BadInput for another model.

        Texts of several lengths are padded on the left, as generate() wants them: a recipe that acts while the model is
        answering acts at the last token of each pass.
        """
        self.demand_change("generate with")
        self.demand_model(model, other_weights=other_weights)
        with self.tuned(model), model.edited(self.edits(newest=self.when == ANSWERING)) as hf:
            yield hf

    @contextlib.contextmanager
    def tuned(self, model: Model) -> Iterator[None]:
        """What it adds to weights of queries in force, which is no edit. Raises UnsupportedModel."""
        with contextlib.ExitStack() as stack:
            for head, value in self.query.items():
                stack.enter_context(added_to_queries(model, head, value))
            yield

    def random(self, model: Model, seed: int, control: str) -> Recipe:
        """A recipe of the same size that knows nothing: random directions in the same heads, or the same numbers in random heads.

        control: "directions" (shifts and stream vectors of the same lengths) or "heads" (others of the same layers).
        """
        if control == "directions":
            shift: dict[Any, Tensor] = dict(directions.random(dict(sorted(self.shift.items())), seed))
            stream: dict[Any, Tensor] = dict(directions.random(dict(sorted(self.stream.items())), seed))
            return replace(self, shift=shift, stream=stream, rivals=())
        free = sorted(set(model.heads) - set(self.heads))
        drawn = sorted(matched(self.heads, free, np.random.default_rng(seed)))
        other = dict(zip(self.heads, drawn, strict=False))  # fewer where hardly any head is left
        scale, shift = ({other[h]: v for h, v in values.items() if h in other} for values in (self.scale, self.shift))
        reads = tuple(drawn) if self.reads else ()
        return replace(self, scale=scale, shift=shift, reads=reads, rivals=())


def query_rows(model: Model, head: HeadId) -> tuple[nn.Linear, Tensor]:
    """The layer's query projection, and its rows [d_head, d_model] for one head. Raises UnsupportedModel where it is no layer of its own."""
    demand_in_memory(model.hf, "Tuning queries")
    layer = model.layer(head.layer, head.stack)
    linear = getattr(layer.module, "q_proj", None)
    if not isinstance(linear, nn.Linear) or linear.out_features % layer.n_heads:
        raise UnsupportedModel(
            f"The queries of {model.name} have no weights of their own (q_proj), which are tuned here."
        )
    size = linear.out_features // layer.n_heads
    return linear, linear.weight[head.head * size : (head.head + 1) * size]


@contextlib.contextmanager
def added_to_queries(model: Model, head: HeadId, value: Tensor) -> Iterator[None]:
    """W_Q of a head plus value [d_head, d_model], by a hook, so that the weights stay and gradients reach the value.

    In passes that are begun in here, in this context, edits in force (`Model.edited`) among them.
    """
    linear, rows = query_rows(model, head)
    start = head.head * len(rows)

    def add(_: nn.Module, args: Args, __: Kwargs, out: Tensor) -> Tensor:
        more = args[0] @ value.to(device=out.device, dtype=out.dtype).T
        return out + torch.nn.functional.pad(more, (start, out.shape[-1] - start - len(rows)))

    with own_hooks() as hooks:
        hooks.after(linear, add)
        yield


def fit_facts(model: Model, batch: Batch, **more: Any) -> dict[str, Any]:
    """Where a recipe comes from: model, hash of its weights, number and hash of the prompts that it was fitted on; and more."""
    return {
        "model": model.name,
        "architecture": model.architecture,
        "weights": model.sha256(),
        "data": {"n": len(batch), "sha256": data_hash(batch)},
        **more,
    }


def data_hash(batch: Batch) -> str:
    """sha256 of the prompts and labels that something was fitted on, whatever stands in their padding."""
    digest = hashlib.sha256()
    for number in range(len(batch)):
        digest.update(batch.tokens[number][batch.mask[number]].cpu().numpy().astype("<i8").tobytes() + b"|")
    for name in sorted(batch.labels):
        value = batch.labels[name].cpu()
        kind = "<f8" if value.is_floating_point() else "<i8"
        digest.update(name.encode() + b"=" + value.numpy().astype(kind).tobytes())
    return digest.hexdigest()


def scaled(model: Model, factors: Mapping[HeadId, float]) -> dict[HeadId, Tensor]:
    """head -> [d_value] one factor for all dimensions of each head."""
    return {
        head: torch.full((model.layer(head.layer, head.stack).d_value,), factor) for head, factor in factors.items()
    }


def names(heads: Sequence[HeadId]) -> list[str]:
    """Heads as text."""
    return [str(head) for head in heads]
