"""What an intervention is: a function that fits a recipe to a model on prompts, with what it is measured by. One file each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from headatlas.apply.recipe.outcome import ELSEWHERE, Gain, Outcome, outcome_of
from headatlas.apply.recipe.recipe import Recipe, fit_facts
from headatlas.choices import parse_alphas
from headatlas.errors import BadInput
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.model import Model
from headatlas.model.given import demand_numbers
from headatlas.progress import Progress, Silent
from headatlas.registry import Hook, Hooked, demand_parameters, discover, lookup
from headatlas.task import Batch, Metric
from headatlas.task.answers import find_metric

DRAWS = 5  # rivals unless told


@dataclass(frozen=True)
class RecipeOptions:
    """What of an intervention may be chosen; what it does not know is refused. None: its own choice.

    heads: which heads. pick: how many heads it chooses. alpha: strengths to try ("2,5,10"), of which the one that does best on a
    part of the prompts that is held back is kept. direction: how directions are found. label: which label of the prompts. toward: to which side. steps, rate: of what is
    learned. draws: rivals that are fitted or drawn beside it. seed: of splits, draws and learning.
    """

    heads: Heads | None = None
    pick: int | None = None
    alpha: str | float | Sequence[float] | None = None
    direction: str | None = None
    label: str | None = None
    toward: str | None = None
    steps: int | None = None
    rate: float | None = None
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        demand_numbers(self)
        if self.draws < 1:
            raise BadInput(f"{self.draws} draws are too few.", "Give 1 or more.")
        for name in ("pick", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} is {value}.", "Give 1 or more.")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise BadInput(f"rate is {self.rate:g}.", "Give a number above 0.")
        _ = self.alphas

    @property
    def alphas(self) -> list[float]:
        """Strengths to try, as numbers; none where none were given. Raises BadInput."""
        if self.alpha is None:
            return []
        given = self.alpha if isinstance(self.alpha, (str, Sequence)) else [self.alpha]
        return parse_alphas(given if isinstance(given, str) else " ".join(map(str, given)))

    def heads_of(self, model: Model) -> tuple[HeadId, ...] | None:
        """The heads that were named, of this model; None where none were. Raises BadInput."""
        if self.heads is None:
            return None
        found = parse_heads(self.heads, model.heads)
        model.require(found)
        return found


Fit = Callable[[Model, Batch, RecipeOptions, Progress], Recipe]
_FREE = ("draws", "seed")  # options that every intervention has


@dataclass(frozen=True)
class Intervention(Hooked):
    """One intervention of a paper; made by `intervention`.

    tasks: names of the prompts that it is fitted and measured on unless told, "" where its file makes its own (hook
    `prompts`). metrics: names of what is measured; the first is what it is for. takes: options that it knows. control: what
    its rivals are, "directions", "heads", or those that the fit left in the recipe: "fitted" on random heads, or the same numbers "shuffled" among heads. papers: ids of the catalogue.
    """

    HOOKS: ClassVar[tuple[Hook, ...]] = (
        Hook("prompts", "tokenizer, n, rng, half"),
        Hook("measures", "recipe"),
        Hook("gains", "model, recipe, batch, rivals"),
    )

    name: str
    run: Fit
    tasks: tuple[str, str]
    metrics: tuple[str, ...]
    takes: tuple[str, ...]
    control: str
    papers: tuple[str, ...]
    doc: str
    module: str

    def __repr__(self) -> str:
        return f"Intervention({self.name}, measured by {', '.join(self.metrics)})"

    @property
    def about(self) -> str:
        """Its first line."""
        return self.doc.partition("\n")[0]

    def demand_options(self, options: RecipeOptions) -> None:
        """Raise BadInput for an option that this intervention does not know."""
        for one in fields(options):
            if getattr(options, one.name) != one.default and one.name not in (*self.takes, *_FREE):
                raise BadInput(f"{self.name} knows no {one.name}.", f"It takes {', '.join((*self.takes, *_FREE))}.")

    def fit(
        self, model: Model, batch: Batch, options: RecipeOptions | None = None, progress: Progress | None = None
    ) -> Recipe:
        """Fit it to a model on prompts. Raises BadInput, UnsupportedModel."""
        options = options or RecipeOptions()
        self.demand_options(options)
        recipe = self.run(model, batch, options, progress or Silent())
        facts = fit_facts(model, batch, seed=options.seed)
        return replace(recipe, intervention=self.name, facts={**facts, **recipe.facts})

    def measure(
        self,
        model: Model,
        recipe: Recipe,
        batch: Batch,
        *,
        draws: int = DRAWS,
        elsewhere: Sequence[str] = ELSEWHERE,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Outcome:
        """What a recipe gains on prompts that it was not fitted on, beside rivals of its size, and what it costs elsewhere.

        draws: random rivals, where the fit left none. elsewhere: tasks to look for damage on. Raises BadInput.
        """
        rivals = recipe.rivals or tuple(recipe.random(model, seed + 1 + draw, self.control) for draw in range(draws))
        own = self.hook("gains")
        if own is not None:  # of what it reads; the model is left as it is, so that there is no damage
            found: list[Gain] = own(model, recipe, batch, rivals)
            return Outcome(tuple(found), (), {"n_rivals": len(rivals), "skipped": {}})
        return outcome_of(
            model, recipe, batch, self.metrics_of(recipe), rivals=rivals, elsewhere=elsewhere, seed=seed,
            progress=progress,
        )  # fmt: skip

    def metrics_of(self, recipe: Recipe) -> list[Metric]:
        """What a recipe of it is measured by, what it is for first."""
        own = self.hook("measures")
        found: list[Metric] = [find_metric(name) for name in self.metrics] if own is None else list(own(recipe))
        return found


def intervention(
    *,
    tasks: tuple[str, str] = ("", ""),
    metrics: tuple[str, ...],
    takes: tuple[str, ...],
    control: str,
    papers: tuple[str, ...],
) -> Callable[[Fit], Intervention]:
    """Make an Intervention of a function `(model, batch, options, progress) -> Recipe`, called like its file. See the fields there."""

    def wrap(run: Fit) -> Intervention:
        demand_parameters(run, "model, batch, options, progress", f"{run.__module__}: the intervention")
        name = getattr(run, "__name__", "").strip("_").replace("_", "-")
        doc = (run.__doc__ or "").strip()
        return Intervention(name, run, tasks, metrics, takes, control, papers, doc, run.__module__)

    return wrap


def interventions() -> Mapping[str, Intervention]:
    """Every intervention of the package and of its plugins, by name."""
    return discover("headatlas.apply.interventions", Intervention)


def find_intervention(name: str) -> Intervention:
    """The intervention called `name`. Raises UnknownName."""
    return lookup(interventions(), name, "intervention", f"There are {', '.join(interventions())}.")
