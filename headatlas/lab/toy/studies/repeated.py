"""Random words again and again: an induction head forms, and late tokens become cheap at once. Olsson et al. 2022."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from headatlas.lab.construct.transformer import save
from headatlas.lab.construct.words import tokenizer, words
from headatlas.lab.measure import attend
from headatlas.lab.toy.data import repeated_tokens
from headatlas.lab.toy.probes import losses
from headatlas.lab.toy.repeats import COPYING_PANEL, Sizes, copying, trained_on_repeats
from headatlas.lab.toy.study import Claim, Panel, Study, held_out
from headatlas.lab.training.loop import Measure, Training
from headatlas.lab.training.options import TrainOptions

_SIZES, _EXAMPLES = Sizes(vocab=128, length=96, width=128, heads=2, batch=32), 64


def _measure(seed: int) -> Measure:
    tokens = repeated_tokens(_EXAMPLES, _SIZES.length, _SIZES.vocab, held_out(seed))
    attention = copying(tokens)

    def measured(model: Any) -> dict[str, float]:
        patterns, logits = attend(model, tokens)
        each = losses(logits, tokens)
        early, late = float(each[:, 1:8].mean()), float(each[:, -32:].mean())
        return {
            "held-out loss": float(each.mean()), "early": early, "late": late, "icl": late - early,
            **attention(patterns),
        }  # fmt: skip

    return measured


def _save(model: Any, folder: Path) -> None:
    save(model, folder)
    tokenizer(words(_SIZES.vocab), _SIZES.length).save_pretrained(folder)


def _rise(run: Training, name: str) -> tuple[float, float]:
    """The steps in which a number goes from a fifth to four fifths of the way from its first value to its highest.

    Infinite where that way is below 0.2, so that a toy that learns nothing keeps no bound.
    """
    values = run.series(name)
    start, way = values[0], max(values) - values[0]
    if way < 0.2:
        return math.inf, math.inf
    return run.reaches(name, start + 0.2 * way), run.reaches(name, start + 0.8 * way)


def _together(run: Training) -> float:
    """1 where the stretch in which prefix matching rises and that in which the late loss falls have a step in common."""
    (begins, ends), values = _rise(run, "prefix matching"), run.series("icl")
    start, way = values[0], min(values) - values[0]
    falls, fallen = run.falls_to("icl", start + 0.2 * way), run.falls_to("icl", start + 0.8 * way)
    return float(begins <= fallen and falls <= ends)


repeated = Study(
    name="repeated",
    about="128 words, random ones again and again with another period in each text",
    paper="olsson-2022-induction-heads",
    variants=(replace(trained_on_repeats(_SIZES, TrainOptions(1200, per_decade=24), _measure), save=_save),),
    claims=(
        Claim("prefix matching of the best head at the end", lambda r: r["plain"].last("prefix matching"), least=0.85),
        Claim("previous-token attention of the best head", lambda r: r["plain"].last("previous token"), least=0.8),
        Claim("phase change: steps in which prefix matching rises from a fifth to four fifths, as a share of all",
              lambda r: (lambda rise: rise[1] - rise[0])(_rise(r["plain"], "prefix matching")) / 1200, most=0.25),
        Claim("the in-context learning score falls as the head forms (1: the stretches overlap)",
              lambda r: _together(r["plain"]), least=1.0),
        Claim("late loss at the end (nats; it is 4.84 without context)", lambda r: r["plain"].last("late"), most=0.1),
    ),
    panels=(
        Panel("loss (nats)", {"early tokens": ("plain", "early"), "late tokens": ("plain", "late")}),
        COPYING_PANEL,
    ),
    ablated="late",
)  # fmt: skip
