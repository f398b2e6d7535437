"""What the field's critique asks of a verdict, each a named check that can be switched on and off.

The checks that make a verdict (`own_effect` ... `false_discoveries`) are always asked; these are printed beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from headatlas.detector import Detector
from headatlas.errors import BadInput, UnfitTask, UnknownName, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.mining.checks import removals
from headatlas.mining.checks.judging import Bench
from headatlas.mining.checks.records import Check, DetectorVerdict
from headatlas.mining.checks.relation import AtRelation
from headatlas.mining.checks.removals import Removals
from headatlas.mining.checks.same_answer import SameAnswer
from headatlas.mining.checks.transfer import EXAMPLES, Transfer
from headatlas.model import Model
from headatlas.progress import AtMost, Progress, Silent
from headatlas.registry import did_you_mean
from headatlas.task import Batch, Metric, Task

CheckName = Literal["removals", "same-answer", "transfer", "relation", "prompts", "twin", "shuffled", "all", "none"]
ALL: tuple[str, ...] = tuple(name for name in get_args(CheckName) if name not in ("all", "none"))
JUDGING = ("removals", "same-answer", "transfer", "relation")  # asked of verdicts; the others of scores
DEFAULT = (*JUDGING, "prompts")  # the cheap ones


def chosen(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """The checks meant by names ("removals,transfer", a list of them, "all", "none"); None: those that are cheap.

    Raises UnknownName, and BadInput for all or none beside others.
    """
    if names is None:
        return DEFAULT
    if not names:
        return ()
    parts = [part.strip() for one in ([names] if isinstance(names, str) else names) for part in one.split(",")]
    if {"all", "none"} & set(parts) and len(set(parts)) > 1:
        raise BadInput("--checks takes all, none, or names of checks, not both.", f"Names are {', '.join(ALL)}.")
    for name in parts:
        if name not in get_args(CheckName):
            hint = did_you_mean(name, ALL) or f"There are {', '.join(ALL)}; or write all, or none."
            raise UnknownName(f"There is no check '{name}'.", hint)
    return () if parts == ["none"] else ALL if parts[0] == "all" else tuple(name for name in ALL if name in parts)


def steps(observed: int, chosen: Sequence[str]) -> int:
    """How many steps `Critics.ask` reports for so many observed heads: removed heads, swaps, and examples of the other family."""
    each = {
        "removals": removals.steps(observed),
        "same-answer": 2 * observed,
        "transfer": EXAMPLES + observed,
        "relation": observed,
    }
    return sum(each[name] for name in JUDGING if name in chosen)


class Critics:
    """The chosen checks on one task; what several detectors need is measured once."""

    def __init__(
        self,
        model: Model,
        task: Task,
        metric: Metric,
        detectors: Sequence[Detector],
        *,
        smallest: float,
        seed: int,
        chosen: Sequence[str],
    ) -> None:
        self.chosen = [name for name in JUDGING if name in chosen]
        self.seconds = dict.fromkeys(self.chosen, 0.0)
        self._smallest = smallest
        self._known: dict[int, Removals] = {}
        self._same_answer = SameAnswer(model, task, metric, seed)
        self._relation = AtRelation(model, task, metric, seed)
        self._transfer = Transfer(model, task, metric, detectors, smallest=smallest, seed=seed)

    def ask(
        self,
        detector: Detector,
        judged: DetectorVerdict,
        bench: Bench,
        removing: Callable[[Batch], Removal],
        progress: Progress | None = None,
        *,
        told: Mapping[HeadId, str] | None = None,
    ) -> DetectorVerdict:
        """The verdict on a detector with the chosen checks of each of its observed heads. `progress` moves on by `steps` in all.

        told: what the detector says of a head in words.
        """
        heads = list(judged.heads)
        moved = AtMost(progress or Silent(), "verdict", steps(len(heads), self.chosen))
        asked: dict[str, Callable[[], Mapping[HeadId, Check]]] = {
            "removals": lambda: self._removals(bench).check(heads, self._smallest, moved),
            "same-answer": lambda: self._same_answer.check(heads, moved),
            "transfer": lambda: self._transfer.check(detector, judged, removing, moved),
            "relation": lambda: self._relation.check(detector, told or {}, heads, bench, moved),
        }
        found: dict[HeadId, list[Check]] = {head: [] for head in heads}
        for name in self.chosen:
            began = time.perf_counter()
            try:
                checks = asked[name]()
            except (UnsupportedModel, UnfitTask, BadInput) as error:  # the verdict stands without what cannot be asked
                checks = dict.fromkeys(heads, Check(name.replace("-", " "), "does not apply", note=str(error)))
            for head, check in checks.items():
                found[head].append(check)
            self.seconds[name] += time.perf_counter() - began
        moved.ends()
        return judged.with_heads(
            {head: replace(one, checks=(*one.checks, *found[head])) for head, one in judged.heads.items()}
        )

    def _removals(self, bench: Bench) -> Removals:
        found = self._known.get(id(bench))
        if found is None or found.bench is not bench:
            found = self._known[id(bench)] = Removals(bench)
        return found
