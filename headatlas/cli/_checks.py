"""What of a command line can be wrong without a model, told within a second: nothing here imports torch.

A `Check` stands beside an option in its `Annotated`, and is asked before the command runs. What hangs on several options is
the command's own function `before`, in its file, which is given those of its arguments that it names.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headatlas.errors import BadInput, StoreError, UnknownName


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
    """Raise UnknownName where no task has this name."""
    from headatlas.tasks._names import task_names

    _known(name, task_names(), "task", "See: headatlas list tasks")


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


def checks(names: str) -> None:
    """Raise UnknownName for a name of a check that there is not."""
    from headatlas.choices import CHECKS

    for name in names.split(","):
        _known(
            name.strip(), [*CHECKS, "all", "none"], "check", f"There are {', '.join(CHECKS)}; or write all, or none."
        )


def answers(path: str) -> None:
    """Raise BadInput where a file holds no prompts with answers."""
    if "answer" not in _first_line(path):
        raise BadInput(
            f"{path} has labelled texts, and no answers to measure.", 'Lines need "clean", "answer", "wrong".'
        )


def pairs(path: str) -> None:
    """Raise BadInput where a file holds no prompts with answers and corrupted prompts."""
    answers(path)
    if not {"corrupted", "counterfactual"} & _first_line(path).keys():
        raise BadInput(
            f"{path} has no corrupted prompts.",
            'Lines need "clean", "corrupted", "answer", "wrong", or "counterfactual".',
        )


def labelled(path: str) -> None:
    """Raise BadInput where a file holds no labelled texts."""
    if "label" not in _first_line(path):
        raise BadInput(f"{path} has no labelled texts.", 'Lines need "text" and "label".')


def _first_line(path: str) -> dict[str, Any]:
    from headatlas.reading.prompt_lines import is_former, prompt_lines

    if is_former(path):
        return prompt_lines(path)[0][1]
    from headatlas.own_prompts.rows import rows_of

    return rows_of(path, "prompt")[0].values


def prompts(path: str) -> None:
    """Raise BadInput where a file of prompts of either form cannot be read."""
    _first_line(path)


def text(given: str) -> None:
    """Raise BadInput for an empty text."""
    if not given:
        raise BadInput("A text is empty.", "Write at least one word.")


def chat(path: str) -> None:
    """Raise BadInput where a file holds no chat."""
    from headatlas.reading.chats import read_chats

    read_chats(path)


def heads(text: str) -> None:
    """Raise BadInput for what is no head; patterns such as 9.* are for the model to judge."""
    from headatlas.heads import parse_heads

    plain = [part for part in re.split(r"[,\s]+", text.strip()) if "*" not in part]
    if plain:
        parse_heads(" ".join(plain))


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

    def demand(value: int) -> None:
        if value < least:
            raise BadInput(f"{value} {what} are too few.", f"Give {least} or more.")

    return Check(demand)


def device(text: str) -> None:
    """Raise BadInput for what torch would not take as a device."""
    if not re.fullmatch(r"[a-z]+(:\d+)?", text):
        raise BadInput(f"'{text}' is not a device.", "Write cpu, cuda, cuda:1 or mps.")


def model(name: str) -> None:
    """Raise UnknownName where a path that can be nothing else than a path leads nowhere."""
    path = Path(name).expanduser()
    if (name.startswith(("/", "./", "../", "~")) or name.endswith(".gguf")) and not path.exists():
        raise UnknownName(f"There is no model called '{name}'.", "Check the path of its folder or .gguf file.")


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
    if any(part[:1].isdigit() for part in text.split()):
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


# ---- of several ---------------------------------------------------------------------------------------------------------
def one_source(**given: Any) -> None:
    """Raise BadInput unless exactly one of the options that say what is read was given."""
    names = [f"--{name}" for name, value in given.items() if value]
    if len(names) != 1:
        said = f"Both {' and '.join(names)} are given." if names else "Say what is read."
        forms = {"text": "--text TEXT", "task": "--task NAME (headatlas list tasks)", "prompts": "--prompts FILE.jsonl",
                 "chat": "--chat FILE.json"}  # fmt: skip
        known = [forms[name] for name in given]
        raise BadInput(said, f"Give either {', '.join(known[:-1])} or {known[-1]}.")
