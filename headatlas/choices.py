"""What can be chosen where a method has a few ways to go: said once, for the library and for commands before a model is loaded.

Nothing here imports torch, so that a word that is no choice is refused at once.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass

from headatlas.errors import BadInput

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True)
class Choice:
    """The values that one option has; refused: what is said of another, with {} in the place of what was given."""

    values: tuple[str, ...]
    refused: str

    def demand(self, given: str) -> None:
        """Raise BadInput unless `given` is one of the values."""
        if given not in self.values:
            raise BadInput(self.refused.format(given), f"Choose one of {', '.join(self.values)}.")


CHECKS = (
    "removals",
    "same-answer",
    "transfer",
    "relation",
    "prompts",
    "twin",
    "shuffled",
)  # what can be asked of verdicts
DTYPE = Choice(("auto", "float32", "float16", "bfloat16", "float64"), "'{}' is not a dtype.")
DEVICE_MAP = Choice(("auto", "balanced", "balanced_low_0", "sequential"), "'{}' is no device map.")
ENGINE = Choice(("local", "ray"), "There is no engine '{}'.")
EDIT = Choice(("mean", "zero", "resample", "input"), "Unknown ablation '{}'.")
REMOVED = Choice(("mean", "zero"), "Unknown ablation '{}'.")
PRUNING = Choice(
    ("michel", "l0", "mean-ablation", "zero-ablation", "random"), "Heads are not pruned in an order called '{}'."
)
SPREAD = Choice(("model", "layer", "group", "queries"), "Removed heads are not spread by '{}'.")
MEAN = Choice(("overall", "position", "template"), "Unknown mean '{}'.")
DIRECTION = Choice(("denoising", "noising"), "Unknown direction '{}'.")
PATCHED = Choice(("z", "q", "k", "v", "pattern"), "Heads are not patched at '{}'.")
ATTRIBUTED = Choice(("z", "q", "k", "v"), "Heads are not attributed at '{}'.")
ATTRIBUTION = Choice(("direct", "atp", "eap", "eap-ig"), "Unknown method '{}'.")
IMPORTANCE = Choice(("mask", "gradient", "lrp"), "There is no importance by '{}'.")
METRIC = Choice(  # those of headatlas.task.answers
    ("kl", "logit-difference", "logit-margin", "logit-lead", "next-token-loss", "log-probability", "mean-log-probability",
     "probability", "probability-difference", "rank", "accuracy", "exact-match", "format", "hit@10", "icl-score", "truth-margin",
     "mc1", "mc2"), "There is no metric called '{}'.",
)  # fmt: skip
NUMBERED = re.compile(
    r"(hit)@(\d{1,6})|icl-score@(\d{1,6})-(\d{1,6})"
)  # metrics with numbers of the user's in their names
MLPS = Choice(("recomputed", "frozen"), "MLPs cannot be '{}'.")
PROBE = Choice(("linear", "mlp"), "Unknown probe '{}'.")
CIRCUIT_SEARCH = Choice(("attribution", "greedy"), "Unknown method '{}'.")
CIRCUIT_RIVAL = Choice(("none", "eap-ig"), "Circuits are not compared with '{}'.")
CACHE_PLAN = Choice(
    ("razor", "retrieval", "gates", "spans", "recency", "random"), "There is no way to plan a cache called '{}'."
)


def demand_needle(task: str) -> None:
    """Raise BadInput unless a task hides a needle in a long text."""
    if not task.startswith("needle"):
        raise BadInput(f"'{task}' has no needle.", "Give needle, needle-1024, needle-2048, needle-4096 or needle-8192.")


KEPT = Choice(("answer", "hidden"), "Gates are not learned to keep '{}'.")
RATIO = Choice(("ratio-of-means", "mean-of-ratios"), "Unknown ratio '{}'.")
ROUTE_FILE = Choice((".json", ".svg", ".html", ".graphml"), "No route is written to a file that ends in '{}'.")
MAP_FILE = Choice((".svg",), "No map is written to a file that ends in '{}'.")
CURVE_FILE = Choice((".svg",), "No curve is drawn to a file that ends in '{}'.")
COMPARISON_FILE = Choice((".html", ".md", ".json"), "No comparison is written to a file that ends in '{}'.")
INTERVENTION = Choice(("clamp", "ablate", "freeze", "regularise"), "Heads cannot be changed in training by '{}'.")
PATTERN = Choice(("previous-token", "induction", "current", "first"), "Attention cannot be clamped to '{}'.")
FORM = Choice(("effective", "embedding", "mlp"), "There is no form '{}' of embeddings.")
VIEW = Choice(("copying", "ov", "qk", "svd", "compose"), "Unknown view '{}'.")
SYNTAX = Choice(
    ("dependencies", "trees", "constituents", "coreference", "sieve", "probe", "surface", "likeness"),
    "There is no measure '{}'.",
)
WORD_ROWS = Choice(("mean", "last"), "The rows of a split word cannot be its '{}'.")
ROW_DISTANCE = Choice(("hellinger", "jsd"), "There is no distance '{}' of attention rows.")
STEERING = Choice(("mean", "probe", "pca", "random"), "Unknown direction '{}'.")


def demand_some(number: int, what: str, least: int = 1) -> None:
    """Raise BadInput unless there are at least so many of what is counted."""
    if number < least:
        raise BadInput(f"{number} {what} are too few.", f"Give {least} or more.")


SEEDS = 2**31  # what all that draw numbers take, with room for the seeds that are made of one


def demand_seed(seed: object) -> None:
    """Raise BadInput unless `seed` is a whole number from 0 to 2**31 - 1."""
    try:
        fits = 0 <= operator.index(seed) < SEEDS  # type: ignore[arg-type]
    except TypeError:
        fits = False
    if not fits:
        raise BadInput(f"{seed!r} is no seed.", f"Give a whole number from 0 to {SEEDS - 1}.")


MOST_AT_ONCE = 1024  # threads or workers, beyond what one machine has


def demand_engine(engine: str, workers: int | None, threads: int | None, address: str | None) -> None:
    """Raise BadInput for an engine that there is not, or for what the chosen one cannot be told."""
    ENGINE.demand(engine)
    if engine == "local" and (workers is not None or address is not None):
        what = "--workers" if workers is not None else "--address"
        raise BadInput(f"{what} is for the engine ray; the engine local is this program.", "Add --engine ray.")
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None:
            demand_some(value, name)
        if value is not None and value > MOST_AT_ONCE:
            raise BadInput(f"{value} {name} are too many.", f"Give {MOST_AT_ONCE} or fewer.")


def demand_metric(name: str) -> None:
    """Raise BadInput where no metric has this name."""
    if not NUMBERED.fullmatch(name.lower()):
        METRIC.demand(name.replace("_", "-").lower())


def demand_head(head: object, view: str) -> None:
    """Raise BadInput where a view of weights looks at one head, and none is named."""
    if head is None and view != "copying":
        raise BadInput(f"--{view} looks at one head.", "Add --head LAYER.HEAD, such as --head 18.6.")


def parse_size(text: str) -> int:
    """Bytes of "4GB", "500 MB" or a number of bytes. Raises BadInput."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    if match is None or float(match[1]) == 0:
        raise BadInput(f"'{text}' is not an amount of memory.", "Write for example 4GB or 500MB.")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_alphas(text: str) -> list[float]:
    """The numbers of "5,10,-15". Raises BadInput."""
    try:
        found = [float(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise BadInput(f"'{text}' is not a list of numbers.", "Write --alpha 5,10,15.") from error
    if not found or not all(math.isfinite(value) for value in found):
        raise BadInput(f"'{text}' is not a list of numbers.", "Write --alpha 5,10,15.")
    return found
