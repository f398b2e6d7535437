"""What of a command line can be wrong without a model, told within a second: nothing here imports torch.

A `Check` stands beside an option in its `Annotated`, and is asked before the command runs; every `--seed` is checked. What
hangs on several options is the command's own function `before`, in its file, which is given those of its arguments that it
names.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas.choices import demand_seed, demand_some
from headatlas.errors import BadInput, StoreError, UnknownName

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Check:
    """demand(value) raises HeadAtlasError where a value that was given, or each of several, cannot be right."""

    demand: Callable[[Any], object]


def checked(command: Callable[..., None], before: Callable[..., None] | None) -> Callable[..., None]:
    """The command, which runs only after the checks of its options and its own `before` let its arguments pass."""
    kinds = typing.get_type_hints(command, include_extras=True)
    checks = {
        name: [part.demand for part in getattr(kind, "__metadata__", ()) if isinstance(part, Check)]
        for name, kind in kinds.items()
    }

    @functools.wraps(command)
    def run(**given: Any) -> None:
        if given.get("seed") is not None:
            demand_seed(given["seed"])
        for name, value in given.items():
            for demand in checks.get(name, ()):
                for one in value if isinstance(value, list) else [value]:
                    if one is not None:
                        demand(one)
        if before is not None:
            before(**{name: given[name] for name in inspect.signature(before).parameters})
        command(**given)

    return run


# ---- of single options ------------------------------------------------------------------------------------------------
def task(name: str) -> None:
    """Raise UnknownName where no task or generated benchmark has this name, BadInput where a benchmark's files cannot be read."""
    from headatlas.tasks._names import benchmark_names, task_names

    names, (own, equals, source) = task_names(), name.partition("=")
    if equals or (name not in names and name in benchmark_names()):
        _known(own.strip(), benchmark_names(), "benchmark", "See: headatlas list benchmarks")
        if not source or Path(source).expanduser().exists() or "/" not in source or source.startswith((".", "/", "~")):
            from headatlas.task import find_task

            find_task(name)  # what lies on the Hub is fetched when it is needed
        return
    _known(name, names, "task", "See: headatlas list tasks")


def intervention(name: str) -> None:
    """Raise UnknownName where no intervention has this name."""
    from importlib.metadata import entry_points
    from pkgutil import iter_modules

    from headatlas.apply import interventions

    names = [info.name.replace("_", "-") for info in iter_modules(interventions.__path__) if info.name[0] != "_"]
    if name not in names and entry_points(group=interventions.__name__):
        from headatlas.apply.recipe import intervention as known

        names = list(known.interventions())
    _known(name, names, "intervention", "See: headatlas list interventions")


def recipe(path: str) -> None:
    """Raise StoreError where no recipe lies."""
    for name in ("recipe.json", "recipe.safetensors"):
        if not (Path(path) / name).is_file():
            raise StoreError(f"{path} holds no recipe: it has no {name}.", "Give a folder that `apply NAME fit` made.")


def pattern(path: str) -> None:
    """Raise StoreError where no DuoAttention pattern lies."""
    for name in ("full_attention_heads.tsv", "config.json"):
        if not (Path(path) / name).is_file():
            raise StoreError(
                f"{path} holds no DuoAttention pattern: it has no {name}.",
                "Give a folder with full_attention_heads.tsv and config.json.",
            )


def cache_plan(path: str) -> None:
    """Raise StoreError where no cache plan lies."""
    if not Path(path).is_file():
        raise StoreError(f"There is no file {path}.", "Give a file that `cache plan` wrote.")


def new_folder(path: str) -> None:
    """Raise StoreError where something is there already, or no folder can be written."""
    folder(path)
    if Path(path).exists():
        raise StoreError(f"{path} exists already.", "Choose another folder with --out, or remove it.")


def detector(name: str) -> None:
    """Raise UnknownName where no detector has this name."""
    from importlib.metadata import entry_points

    from headatlas.catalogue.detector_names import detector_names
    from headatlas.renamed import current_detector

    name = current_detector(name)
    names = [one for group in detector_names().values() for one in group]
    if name not in names and entry_points(group="headatlas.detectors"):
        from headatlas.detector import detectors

        names = list(detectors())
    _known(name, names, "detector", "See: headatlas list detectors")


def _known(name: str, names: Sequence[str], what: str, see: str) -> None:
    from headatlas.registry import did_you_mean

    if name not in names:
        raise UnknownName(
            f"There is no {what} called '{name}'.", " ".join(part for part in (did_you_mean(name, names), see) if part)
        )


def toy(name: str) -> None:
    """Raise UnknownName where no toy has this name; each is a file of its own that bears it."""
    import pkgutil

    folder = Path(__file__).parents[1] / "lab" / "toy" / "studies"
    names = [*(info.name.replace("_", "-") for info in pkgutil.iter_modules([str(folder)])), "translation"]
    _known(name, names, "toy", f"Known: {', '.join(names)}.")


def score(name: str) -> None:
    """Raise BadInput where nothing that `headatlas score` measures has this name."""
    from headatlas.choices import demand_metric

    if name.lower() != "aoc":
        demand_metric(name)


def checks(names: str) -> None:
    """Raise UnknownName for a name of a check that there is not."""
    from headatlas.choices import CHECKS

    for name in names.split(","):
        _known(
            name.strip(), [*CHECKS, "all", "none"], "check", f"There are {', '.join(CHECKS)}; or write all, or none."
        )


def heads(text: str) -> None:
    """Raise BadInput for what is no head and no pattern of heads; which heads a pattern names is for the model to say."""
    from headatlas.heads import parse_named

    parse_named(text)


def receiver(text: str) -> None:
    """Raise BadInput for what is no receiver of path patching."""
    what, _, names = text.partition("@")[0].strip().partition(":")
    if what in ("q", "k", "v") and names:
        heads(names)
    elif text != "logits" and not (what == "mlp" and names.isdigit()):
        raise BadInput(
            f"'{text}' is not a receiver.",
            "Write logits, mlp:5, or q, k or v of heads such as 'q:9.6 9.9', '@end' behind.",
        )


def memory(text: str) -> None:
    """Raise BadInput for what is no amount of memory."""
    from headatlas.choices import parse_size

    parse_size(text)


def alphas(text: str) -> None:
    """Raise BadInput for what is no list of numbers."""
    from headatlas.choices import parse_alphas

    parse_alphas(text)


def at_least(least: int, what: str) -> Check:
    """A number that must not be smaller; what: what there would be too few of."""
    return Check(lambda value: demand_some(value, what, least))


def number(name: str, least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite number that must lie between two, themselves included."""

    def demand(value: float) -> None:
        if not (math.isfinite(value) and least <= value <= most):
            ends = [f"from {least:g}"] * (least > -math.inf) + [f"to {most:g}"] * (most < math.inf)
            raise BadInput(f"The {name} is {value:g}.", f"Give a number {' '.join(ends) or 'that is finite'}.")

    return Check(demand)


def share(what: str) -> Check:
    """A number from 0 to 1; what: of what it is a share."""
    return number(f"share of {what}", 0, 1)


def device(text: str) -> None:
    """Raise BadInput for what torch would not take as a device."""
    if not re.fullmatch(r"[a-z]+(:\d+)?", text):
        raise BadInput(f"'{text}' is not a device.", "Write cpu, cuda, cuda:1 or mps.")


def model(name: str, revision: str | None = None) -> None:
    """Raise UnknownName, BadInput or SourceError for a name that leads to no model, as far as no network is asked."""
    from headatlas.model.sources.resolve import look

    look(name, revision)


def checkpoints(name: str) -> None:
    """Raise what `model` raises for a name that leads to no folder and to no model, with or without revisions."""
    base, _, revisions = name.partition("@")
    if not Path(name).expanduser().is_dir() and not (revisions and Path(base).expanduser().is_dir()):
        model(f"{base}@{revisions.partition(',')[0]}" if revisions else name)


def known_model(name: str) -> None:
    """Raise UnknownName for what the catalogue knows no model by."""
    from headatlas.catalogue.model_names import demand_model

    demand_model(name)


def folder(path: str) -> None:
    """Raise StoreError where no folder can be written."""
    place = Path(path)
    if place.exists() and not place.is_dir():
        raise StoreError(f"{place} is a file.", "Name a folder with --out.")
    _demand_writable(place)


def file(path: str) -> None:
    """Raise StoreError where no file can be written."""
    place = Path(path)
    if place.is_dir():
        raise StoreError(f"{place} is a folder.", "Name a file with --out.")
    _demand_writable(place)


def page(path: str) -> None:
    """Raise BadInput for a page that is not Markdown, StoreError where no file can be written."""
    if Path(path).suffix != ".md":
        raise BadInput(f"No board is written to {path}.", "Give a name that ends in .md.")
    file(path)


def new_file(path: str) -> None:
    """Raise StoreError where a file is there already, or none can be written."""
    file(path)
    if Path(path).exists():
        raise StoreError(f"{path} exists already.", "Choose another file with --out, or remove it.")


def route_file(path: str) -> None:
    """Raise BadInput for an ending in which no route is written, StoreError where no file can be."""
    from headatlas.choices import ROUTE_FILE

    ROUTE_FILE.demand(Path(path).suffix)
    file(path)


def map_file(path: str) -> None:
    """Raise BadInput for an ending in which no map of heads is drawn, StoreError where no file can be written."""
    from headatlas.choices import MAP_FILE

    MAP_FILE.demand(Path(path).suffix)
    file(path)


def curve_file(path: str) -> None:
    """Raise BadInput for an ending in which no curve is drawn, StoreError where no file can be written, HeadAtlasError without matplotlib."""
    from headatlas.choices import CURVE_FILE
    from headatlas.render import plots

    CURVE_FILE.demand(Path(path).suffix)
    file(path)
    plots.require()


def run(path: str) -> None:
    """Raise StoreError where no finished run lies."""
    from headatlas.atlas import Atlas

    _ = Atlas(path).run


def circuit(text: str) -> None:
    """Raise BadInput for a file that is not there, a head that is none, or an id that the catalogue has not."""
    place = Path(text)
    if place.is_file():
        return
    if text.endswith(".json"):
        raise BadInput(f"There is no file {text}.", "Name a circuit's file, heads, or an id such as ioi.")
    if any(part[:1].isdigit() or part[:1] == "*" for part in text.split()):
        heads(" ".join(part.partition("@")[0] for part in text.replace(",", " ").split()))
        return
    from headatlas import catalogue
    from headatlas.registry import lookup

    lookup(catalogue.load().circuits, text, "circuit", "See: headatlas papers show circuit/ioi")


def _demand_writable(place: Path) -> None:
    above = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    if above != place and not above.is_dir():
        raise StoreError(f"{place} cannot be written: {above} is a file.", "Choose another place with --out.")
    if not os.access(above, os.W_OK):
        raise StoreError(
            f"{place} cannot be written: {above} may not be written to.", "Choose another place with --out."
        )
