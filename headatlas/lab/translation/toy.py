"""A translator trained here, pruned and made sparse, with what must come out of it checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from headatlas.errors import BadInput
from headatlas.lab.construct.transformer import save
from headatlas.lab.translation import checks as measured
from headatlas.lab.translation.checks import Check, PrunedPoint, Rates, Removed, Role
from headatlas.lab.translation.model import HEADS, LAYERS, Translator
from headatlas.lab.translation.spelling import tokenizer
from headatlas.lab.translation.training import pruned, sparse, trained
from headatlas.render import plots
from headatlas.render.palette import SERIES
from headatlas.store import new_folder
from headatlas.treebanks.language_pair import Language, Sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCHEMA = "headatlas/translation-toy/1"
STEPS, FURTHER = 400, 200  # of training, and from there on of each pruned and of the sparse model
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3)
HELD_OUT = 300  # sentences


@dataclass(frozen=True)
class TranslationToy:
    """A trained translator. roles: of its encoder heads. removed: what it still does without each head, of every stack.

    curve: what is left of it under growing penalties on open heads. alphas: by attention those that the sparse model learned.
    checks: what must come out, with its bounds (docs/lab.md says when they were set).
    """

    seed: int
    model: Translator
    rates: Rates
    roles: tuple[Role, ...]
    removed: tuple[Removed, ...]
    curve: tuple[PrunedPoint, ...]
    alphas: Mapping[str, tuple[float, ...]]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks are."""
        return all(check.passed for check in self.checks)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the Marian model with its tokenizer, the copy layer, toy.json and curve.svg, whole or not at all. Raises StoreError, HeadAtlasError."""
        from safetensors.torch import save_file

        target = Path(folder)
        with new_folder(target) as partial:
            save(self.model.marian, partial)
            tokenizer().save_pretrained(partial)
            save_file({"copying.weight": self.model.copying.weight.detach().contiguous()}, partial / "copy.safetensors")
            facts = {
                "schema": _SCHEMA,
                "seed": self.seed,
                "rates": asdict(self.rates),
                "roles": [{**asdict(role), "head": str(role.head)} for role in self.roles],
                "removed": {str(one.head): asdict(one.rates) for one in self.removed},
                "curve": [{**asdict(point), "open": point.open} for point in self.curve],
                "alphas": dict(self.alphas),
                "checks": [{**asdict(check), "passed": check.passed} for check in self.checks],
            }
            (partial / "toy.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            (partial / "curve.svg").write_text(drawn(self.curve, self.rates), encoding="utf-8")
        return target


def train_translation(
    *, seed: int = 0, steps: int | None = None, say: Callable[[str], None] | None = None
) -> TranslationToy:
    """Train the translator from `seed`, prune it, make it sparse, and check what came out; about a minute on one core.

    steps: of the first training, default 400. say: told how it goes. On one thread, so that the same seed gives the same toy.
    Raises BadInput.
    """
    if steps is not None and steps < 1:
        raise BadInput(f"A toy needs at least 1 step, got {steps}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained(seed, steps or STEPS, say or (lambda _: None))
    finally:
        torch.set_num_threads(threads)


def _trained(seed: int, steps: int, say: Callable[[str], None]) -> TranslationToy:
    held_out, unseen = (
        Sentences.of(Language(np.random.default_rng([seed, 3 + only]), unseen=bool(only)).pairs(HELD_OUT))
        for only in (0, 1)
    )
    further = min(FURTHER, steps)
    model = trained(seed, steps, say)
    whole, strange = measured.rates(model, held_out), measured.rates(model, unseen)
    found, offset = measured.roles(model, held_out)
    error, diagonal = measured.alignment_error(model.cross_attention.pattern[:, 0], held_out)
    without = measured.removed(model, held_out)  # behind it, since each run leaves patterns of its own
    curve = []
    for penalty in PENALTIES:
        less, gates = pruned(model, penalty, seed, further)
        curve.append(measured.pruned_point(less, penalty, gates, held_out))
        say(
            f"penalty {penalty}: {curve[-1].open} of {LAYERS * HEADS} encoder heads open, {curve[-1].rates.sentences:.3f} right"
        )
    other = sparse(model, seed, further)
    alphas, zeros = measured.sparsity(other, held_out)
    best = max(found, key=lambda role: role.subject)
    checks = measured.checks_of(
        whole,
        strange,
        error,
        diagonal,
        best,
        offset,
        curve,
        alphas,
        zeros,
        measured.rates(other, held_out),
        without[-1].rates,
    )
    return TranslationToy(seed, model, whole, tuple(found), without, tuple(curve), alphas, checks)


def drawn(curve: tuple[PrunedPoint, ...], whole: Rates) -> str:
    """The pruning curve as SVG: what is right, over how many encoder heads are open. Raises HeadAtlasError without matplotlib."""
    points = [(LAYERS * HEADS, whole), *((point.open, point.rates) for point in curve)]
    points.sort(key=lambda one: one[0])

    def paint(figure: Figure) -> None:
        axes = figure.subplots(gridspec_kw={"left": 0.1, "right": 0.95, "top": 0.88, "bottom": 0.14})
        axes.set(
            title="What is right, by encoder heads that L0 gates leave open", xlabel="open encoder heads", ylim=(0, 1.02),
            xlim=(-0.2, LAYERS * HEADS + 0.2),
        )  # fmt: skip
        axes.grid(axis="y")
        for number, (name, label) in enumerate((("verbs", "verbs"), ("others", "all other words"))):
            axes.plot(
                [heads for heads, _ in points], [getattr(rates, name) for _, rates in points], color=SERIES[number],
                marker="o", label=label, gid=f"line-{name}",
            )  # fmt: skip
        axes.legend(loc="lower right")

    return plots.svg(560, 360, "Words translated right, by open encoder heads", paint)
