"""What public functions are given: a model that was loaded, numbers that are some, names alone or in a list."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import operator
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from headatlas.choices import demand_seed
from headatlas.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def checked(function: F) -> F:
    """The function as the package hands it out, which raises BadInput before it begins: where its first parameter is a `Model`
    and is given a name, a transformers module or anything else that is none; where a seed is no whole number from 0 to
    2**31 - 1; where other numbers, its own or of an options object, are none, or none that is whole. Where it takes a sequence
    of names, one name may be given alone.
    """
    parameters = inspect.signature(function).parameters
    kinds = {name: str(one.annotation) for name, one in parameters.items()}
    by_place = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]

    def taken(name: str, value: Any) -> Any:
        """A value that is right for the parameter `name`; those of former names are the function's own business."""
        kind = kinds.get(name, "")
        if name in by_place[:1] and kind in ("Model", "Model | Tokenizer"):
            _demand_loaded(value, f"{function.__name__}({name})", "Tokenizer" in kind)
        _demand_number(name, kind, value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            demand_numbers(value)
        return [value] if isinstance(value, str) and _are_names(kind) else value

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        first = [taken(name, value) for name, value in zip(by_place, args, strict=False)]
        return function(*first, *args[len(first) :], **{name: taken(name, value) for name, value in options.items()})

    return run  # type: ignore[return-value]


def demand_numbers(options: Any) -> None:
    """Raise BadInput where a field of a dataclass is annotated as a number and holds none of that kind.

    For options that compare their numbers when they are made, before any function sees them.
    """
    for field in dataclasses.fields(options):
        _demand_number(field.name, str(field.type), getattr(options, field.name, None))


def _demand_number(name: str, kind: str, value: Any) -> None:
    """Raise BadInput where a number is annotated and `value` is not one of its kind, or a seed that is none."""
    kind, optional, _ = kind.partition(" | None")
    if kind not in ("int", "float") or (optional and value is None):
        return
    if name == "seed":
        return demand_seed(value)
    whole = kind == "int"
    try:
        fits = operator.index(value) is not None if whole else math.isfinite(value)
    except TypeError:
        fits = False
    if not fits:
        raise BadInput(f"{name} is {value!r}.", f"Give a {'whole' if whole else 'finite'} number.")


def _are_names(annotation: str) -> bool:
    """Whether an annotation is a sequence of strings, among other things in it, and nothing but that or None."""
    found = re.fullmatch(r"Sequence\[([^\[\]]*)\]( \| None)?", annotation)
    return found is not None and "str" in found[1].split(" | ")


def _demand_loaded(given: Any, where: str, or_tokenizer: bool) -> None:
    from headatlas.model import Model, Tokenizer  # takes torch with it

    if isinstance(given, (Model, Tokenizer) if or_tokenizer else Model):
        return
    if isinstance(given, (str, os.PathLike)):
        what, do = f"the name {os.fspath(given)!r}", f"Load it first: headatlas.load({os.fspath(given)!r})."
    elif hasattr(given, "named_modules"):
        what, do = f"a {type(given).__name__}", "Load it first: headatlas.load(module)."
    else:
        what, do = f"a {type(given).__name__}", "Load one first: headatlas.load(NAME)."
    raise BadInput(f"{where} takes a loaded model, not {what}.", do)
