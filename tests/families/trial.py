"""An opened model beside its untouched copies, and the edits that are tried on it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.model.families.build import sample
from tests.families import truth, writers
from tests.families.truth import relative, run
from tests.families.writers import Writer

CLOSE = 1e-4  # computed another way


class Refused(Exception):
    """A step that headatlas refused in words; not wrong, but a limit."""


class Trial:
    """An opened model, its untouched copies, and the truths that several steps need."""

    def __init__(self, model: Model, fresh: nn.Module) -> None:
        self.model, self.fresh = model, fresh
        self.plain = copy.deepcopy(fresh)
        self.given = sample(fresh)
        self.logits, self.seen = run(self.plain, self.given)
        self.facts: dict[str, Any] = {
            "kind": model.kind, "stacks": model.stacks, "path": model.path, "fast": model.fast,
            "left_padding": model.left_padding, "restarts": model.restarts, "layers": len(model.layers),
            "calls": len(self.seen.calls), "outside": len(self.seen.outside),
            "editable": all(layer.pattern_editable for layer in model.layers),
        }  # fmt: skip
        try:
            self.eager: nn.Module | None = truth.eager_copy(fresh)
            logits, self.eager_seen = run(self.eager, self.given)
            self.facts["eager against own"] = relative(logits, self.logits)
        except Exception as error:
            self.eager = None
            self.facts["eager"] = f"{type(error).__name__}: {str(error)[:80]}"
        self.writers: list[Writer | None] = []

    @property
    def comparable(self) -> bool:
        """Whether the model's own eager attention computes what its default one does."""
        return self.eager is not None and self.facts["eager against own"] < CLOSE

    def call_numbers(self) -> list[int | None]:
        """Which call of the interface each layer is, by the path of its module; None where it asks none."""
        paths = {module: path for path, module in self.plain.named_modules()}
        by_path: dict[str, list[int]] = {}
        for call in self.seen.calls:
            by_path.setdefault(paths[call.module], []).append(call.number)
        found: list[int | None] = []
        used: dict[str, int] = {}
        for layer in self.model.layers:
            numbers, n = by_path.get(layer.name, []), used.get(layer.name, 0)
            found.append(numbers[n] if n < len(numbers) else None)
            used[layer.name] = n + 1
        return found

    def find_writers(self) -> list[Writer | None]:
        if not self.writers:
            for layer, number in zip(self.model.layers, self.call_numbers(), strict=True):
                if number is not None:
                    found = writers.writer(self.plain, self.given, self.seen.calls[number])
                else:
                    module = self.plain.get_submodule(layer.name)
                    found = writers.last_map(self.plain, self.given, module, layer.n_heads)
                self.writers.append(found)
            self.facts["writers"] = sorted(
                {"none" if one is None else one.path.rsplit(".", 1)[-1] for one in self.writers}
            )
        return self.writers


@dataclass(frozen=True)
class LookAtFirst:
    """A pattern edit: a head looks at the first key alone."""

    head: HeadId
    component: str = "pattern"

    @property
    def heads(self) -> tuple[HeadId, ...]:
        return (self.head,)

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset({(self.head.stack, self.head.layer)})

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, self.head.head] = 0
        x[:, self.head.head, :, 0] = 1
        return x


@dataclass(frozen=True)
class AddVector:
    """A residual edit: a vector is added to what enters a block."""

    place: tuple[str, int]
    vector: Tensor
    component: str = "residual"
    heads: tuple[HeadId, ...] = ()

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        return frozenset({self.place})

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        if x.ndim != 3:
            raise AssertionError(f"a residual edit was given {tuple(x.shape)}, not [example, pos, d_model]")
        return x + self.vector.to(x.dtype)
