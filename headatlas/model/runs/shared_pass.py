"""One forward pass for all who would each have made it: they look on, and some get slopes of the metric that is read there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor

from headatlas.errors import UnfitTask, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model.core.model import Model
from headatlas.model.core.view import LayerView
from headatlas.ops.types import LayerKey
from headatlas.task import Batch, Metric

Watch = Callable[[LayerView], None]


class Alongside(Protocol):
    """What takes its numbers out of passes over the parts of a batch that are made anyway.

    metric: what those passes must read (its positions, its scores); None: anything. slopes: whether it wants those of the metric.
    """

    @property
    def metric(self) -> Metric | None: ...  # noqa: D102
    @property
    def slopes(self) -> bool: ...  # noqa: D102
    def looking(self, part: Batch) -> AbstractContextManager[Watch]:
        """Entered for the pass over `part`; what it gives is shown each layer, without gradients."""

    def passed(self, part: Batch, logits: Tensor, slopes: Mapping[LayerKey, Tensor]) -> None:
        """The pass has ended: logits at the metric's positions, slopes [example, position, head, d_value] in z by layer."""

    def measured(self) -> Any:
        """What is found on all parts, once all have passed."""


class Leaf:
    """An edit that changes nothing, from which gradients are counted, so that weights need none."""

    component = "residual"
    heads: tuple[HeadId, ...] = ()

    def __init__(self, key: LayerKey) -> None:
        self.layers = frozenset([key])

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        """`x`, as if nothing came before it."""
        return x.detach().requires_grad_(True)


def leaves(model: Model) -> list[Leaf]:
    """The edits from which the gradients of a pass are counted; none where only weights can bear them."""
    first = model.layers[0]
    return [Leaf((first.stack, first.index))] if model.restarts and len(model.stacks) == 1 else []


def demand_gradients(model: Model) -> None:
    """Raise UnsupportedModel for weights through which gradients do not flow; frozen ones are fine."""
    quantised = getattr(model.hf, "is_quantized", False) or any(
        not weight.is_floating_point() for weight in model.hf.parameters()
    )
    if quantised or any(weight.is_inference() for weight in model.hf.parameters()):
        raise no_gradient(model)


def no_gradient(model: Model) -> UnsupportedModel:
    """What to say where gradients are needed and there are none."""
    return UnsupportedModel(
        f"No gradient flows through {model.name} (quantised, or loaded for inference only).",
        "Load it in float32, bfloat16 or float16, or measure exactly (headatlas patch without --triage).",
    )


def slopes_of(model: Model, score: Tensor, tensors: Mapping[LayerKey, Tensor]) -> dict[LayerKey, Tensor]:
    """The slope of score [example] in the tensor of each layer, 0 where nothing behind it reads one. Raises UnsupportedModel."""
    if not score.requires_grad:
        raise no_gradient(model)
    found = torch.autograd.grad(score.sum(), list(tensors.values()), allow_unused=True)
    return {
        key: torch.zeros_like(x) if slope is None else slope
        for (key, x), slope in zip(tensors.items(), found, strict=True)
    }


class SharedPass:
    """Passes over the parts of a batch with all of `along` looking on, by name; `metric` is what they read.

    metric: None for that of the first who wants one. Those that want another metric, or that this model refuses, are let go:
    `measured` leaves them out. strict: a refusal is raised.
    """

    def __init__(
        self,
        model: Model,
        along: Mapping[str, Callable[[], Alongside]],
        metric: Metric | None,
        *,
        strict: bool = False,
    ) -> None:
        self.model, self.strict = model, strict
        self.along: dict[str, Alongside] = {}
        for name, make in along.items():
            self._try(name, functools.partial(self._begin, name, make))
        self.metric = metric or next((one.metric for one in self.along.values() if one.metric is not None), None)
        self.along = {name: one for name, one in self.along.items() if one.metric in (None, self.metric)}
        self._each(lambda one: demand_gradients(model) if one.slopes else None)

    def run(self, part: Batch, watch: Watch | None = None) -> Tensor | None:
        """One pass: the metric's [example], None without a metric. watch: sees the layers first."""
        metric, steep = self.metric, any(one.slopes for one in self.along.values())
        z: dict[LayerKey, Tensor] = {}
        with ExitStack() as stack:
            shown = self._each(lambda one: stack.enter_context(one.looking(part)))

            def look(layer: LayerView) -> None:
                if steep:
                    z[layer.stack, layer.index] = layer.z
                with torch.no_grad():
                    if watch is not None:
                        watch(layer)
                    self._each(lambda one: shown[id(one)](layer))

            wanted = metric.positions(part) if metric is not None else torch.zeros(1, dtype=torch.long)
            edits = leaves(self.model) if steep else []
            logits = self.model.forward(part, watch=look, edits=edits, logit_positions=wanted, grad=steep)
        with torch.set_grad_enabled(steep):
            score = metric.score(logits.cpu(), part) if metric is not None else None
        slopes = self._slopes(score, z) if steep and score is not None else {}
        z.clear()  # the pass knows its watcher, which would keep the whole graph
        logits = logits.detach()
        with torch.no_grad():
            self._each(lambda one: one.passed(part, logits, slopes))
        return None if score is None else score.detach()

    def measured(self) -> dict[str, Any]:
        """By name, what each of those that have looked on to the end has found."""
        found = self._each(lambda one: one.measured())
        return {name: found[id(one)] for name, one in self.along.items()}

    def _begin(self, name: str, make: Callable[[], Alongside]) -> None:
        self.along[name] = make()

    def _slopes(self, score: Tensor, z: Mapping[LayerKey, Tensor]) -> dict[LayerKey, Tensor]:
        try:
            return slopes_of(self.model, score, z)
        except UnsupportedModel:
            if self.strict:
                raise
            self.along = {name: one for name, one in self.along.items() if not one.slopes}
            return {}

    def _each(self, call: Callable[[Alongside], Any]) -> dict[int, Any]:
        """What `call` gives for each, by its id; those that refuse are let go, and say why when they are asked alone."""
        return {id(one): self._try(name, functools.partial(call, one)) for name, one in list(self.along.items())}

    def _try(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (UnsupportedModel, UnfitTask):
            if self.strict:
                raise
            self.along.pop(name, None)
            return None


def alone(model: Model, parts: Sequence[Batch], one: Alongside) -> Any:
    """What `one` finds in passes of its own over the parts of a batch. Raises what it raises."""
    passes = SharedPass(model, {"": lambda: one}, one.metric, strict=True)
    for part in parts:
        passes.run(part)
    return passes.measured()[""]
