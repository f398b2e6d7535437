"""One row of the table of families put to the test: what headatlas gives against what is true of untouched copies."""

from __future__ import annotations

import copy
import dataclasses
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from headatlas.errors import HeadAtlasError
from headatlas.model import attach
from headatlas.model.families.build import CannotBuild, FamilyRow, sample
from tests.families import truth, writers
from tests.families.cached import chosen_eager, generation, in_type
from tests.families.steps import (
    every_layer,
    longer_and_shorter,
    padding,
    pattern_edit,
    patterns,
    plain_use,
    residual_edit,
    unwatched,
    watching,
    zeroing,
)
from tests.families.trial import CLOSE, Refused, Trial
from tests.families.truth import run

SAME = 1e-6  # the model's own computation: no difference but rounding of another order
HALF = 2e-2  # in half precision


@dataclass
class Verdict:
    """exact, refused, wrong, crash or not built; numbers of every step, and why."""

    row: str
    status: str
    why: str = ""
    right: bool | None = None  # of a refusal: whether the probe shows what it claims
    steps: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


STEPS: dict[str, Callable[[Trial], float | str]] = {
    "unwatched": unwatched,
    "watched": watching,
    "other lengths": longer_and_shorter,
    "layers": every_layer,
    "pattern": patterns,
    "zeroed head": zeroing,
    "pattern edit": pattern_edit,
    "residual edit": residual_edit,
    "right padding": padding("right"),
    "left padding": padding("left"),
}
MORE: dict[str, Callable[[Trial], float | str]] = {
    "generation": generation("plain"),
    "generation, zeroed head": generation("zero"),
    "generation, zeroed at a place": generation("place"),
    "bfloat16": in_type(torch.bfloat16),
    "float16": in_type(torch.float16),
    "chosen eager": chosen_eager,
    "plain use after all": plain_use,
}
LIMITS = {"unwatched": SAME, "watched": SAME, "other lengths": SAME, "plain use after all": SAME}
LIMITS |= {"bfloat16": HALF, "float16": HALF}
# Steps that may not be refused once a model is open; the others may, with a reason.
MUST_NOT_REFUSE = {
    name: ("refused",) for name in ("unwatched", "watched", "other lengths", "zeroed head", "right padding")
}


def judge(row: FamilyRow, *, everything: bool = True) -> Verdict:
    """Build a row, open it, and compare. everything: also generation, half precision and the user's own eager choice."""
    began = time.perf_counter()
    try:
        hf = row.build()
    except CannotBuild as error:
        return Verdict(row.name, "not built", str(error))
    verdict = _judge(row, hf, everything)
    verdict.seconds = round(time.perf_counter() - began, 1)
    return verdict


def _judge(row: FamilyRow, hf: nn.Module, everything: bool) -> Verdict:
    fresh = copy.deepcopy(hf)  # before anything is opened
    try:
        model = attach(hf)
    except HeadAtlasError as error:
        right, shown = reachable(fresh, row.needs)
        return Verdict(row.name, "refused", str(error), right, facts={"probe": shown})
    except Exception as error:
        return Verdict(row.name, "crash", crash(error))
    trial = Trial(model, fresh)
    verdict = Verdict(row.name, "exact", facts=trial.facts)
    steps: dict[str, Callable[[], float | str]] = dict(STEPS | MORE if everything else STEPS)
    for name, step in steps.items():
        try:
            value: Any = step(trial)  # type: ignore[call-arg]
        except Refused as error:
            value = f"refused: {error}"
        except HeadAtlasError as error:
            value = f"refused: {error}"
        except Exception as error:
            value = f"crash: {crash(error)}"
        verdict.steps[name] = value
        limit = LIMITS.get(name, CLOSE)
        if isinstance(value, float) and not value <= limit:
            verdict.failed.append(name)
        if isinstance(value, str) and value.startswith(("crash", "wrong", *MUST_NOT_REFUSE.get(name, ()))):
            verdict.failed.append(name)
    if verdict.failed:
        crashed = all(str(verdict.steps[name]).startswith("crash") for name in verdict.failed)
        verdict.status = "crash" if crashed else "wrong"
        verdict.why = "; ".join(f"{name}: {verdict.steps[name]}" for name in verdict.failed)
    return verdict


def crash(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}"
        for f in frames
        if "headatlas" in f.filename or "models/" in f.filename
    ]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} @ {' < '.join(reversed(ours[-5:]))}"


def reachable(hf: nn.Module, needs: str) -> tuple[bool, str]:
    """Whether a refusal is right: on an untouched copy, does some attention not come through the interface?"""
    given = sample(hf)
    try:
        _, seen = run(hf, given)
    except Exception as error:
        return True, f"does not run on text alone: {type(error).__name__}: {str(error)[:100]}" + (
            f" ({needs})" * bool(needs)
        )
    kinds = sorted({type(call.module).__name__ for call in seen.calls})
    if "decoder_input_ids" in given and any(truth.stack_of(call, given) == "joint" for call in seen.calls):
        return True, "one softmax over the tokens of two stacks"
    if seen.calls:
        where = writers.writer(hf, given, seen.calls[0])
        if where is None or not (where.exact or where.own_columns):
            return True, f"no linear map takes the outputs of single heads of {kinds[0]}"
        if writers.attends_several_times(hf, given):
            return True, f"one pass of {kinds[0]} mixes several attention calls"
    shown = f"{len(seen.calls)} calls of the interface ({', '.join(kinds)}), {len(seen.outside)} attentions outside it"
    return not seen.calls or bool(seen.outside), shown
