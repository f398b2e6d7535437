"""A kind of head that can be planted: its recipe, and where such a head is meant to attend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.terms import Outcome, Recipe
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.registry import Hook, Hooked, demand_parameters

Targets = Callable[[Tensor, Head, Words], Tensor]


@dataclass(frozen=True)
class Kind(Hooked):
    """A kind of head that can be planted.

    recipe(head, plan) -> Recipe. options: the fields of Head beyond strength and write that the kind reads.
    head_type: what the catalogue calls such heads, None where it has no name. probe: the sequences that show it at work.
    outcome: what attending to a token does to the prediction: its logit rises or falls (copies, suppresses), that of
    the next member of its sequence rises (advances), or nothing happens (none). module: the file with the hook `targets`.
    """

    HOOKS: ClassVar[tuple[Hook, ...]] = (Hook("targets", "tokens, head, words", required=True),)

    name: str
    head_type: str | None
    options: tuple[str, ...]
    probe: str
    outcome: Outcome
    recipe: Callable[[Head, Plan], Recipe]
    doc: str
    module: str

    @property
    def targets(self) -> Targets:
        """The hook `targets(tokens, head, words)`: [example, query, key] True where the head is meant to attend."""
        found: Targets = self.hook("targets")
        return found


def kind(
    *, head_type: str | None, options: tuple[str, ...] = (), probe: str = "repeated", outcome: Outcome = "none"
) -> Callable[[Callable[[Head, Plan], Recipe]], Kind]:
    """Make a Kind of a function `(head, plan) -> Recipe`; its name is the function's with dashes.

    Raises HeadAtlasError for a function that takes something else.
    """

    def wrap(recipe: Callable[[Head, Plan], Recipe]) -> Kind:
        demand_parameters(recipe, "head, plan", f"{recipe.__module__}: the kind '{recipe.__name__}'")
        name = recipe.__name__.strip("_").replace("_", "-")
        return Kind(name, head_type, options, probe, outcome, recipe, (recipe.__doc__ or "").strip(), recipe.__module__)

    return wrap
