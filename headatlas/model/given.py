"""What public functions are given: a model that was loaded, seeds that are some, names alone or in a list."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from headatlas.choices import demand_seed
from headatlas.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """The function as the package hands it out. It raises BadInput where its first parameter is a `Model` and is given a name,
    a transformers module or anything else that is none, and where its `seed`, or that of an options object, is no whole number
    from 0 to 2**31 - 1. Where it takes a sequence of names, one name may be given alone.
    """
    signature = inspect.signature(function)
    several = {name for name, one in signature.parameters.items() if _are_names(str(one.annotation))}
    first = next(iter(signature.parameters.values()), None)
    loaded = str(first.annotation) if first is not None else ""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        bound = signature.bind_partial(*args, **options)
        given = bound.arguments
        if first is not None and first.name in given and loaded in ("Model", "Model | Tokenizer"):
            _demand_loaded(given[first.name], f"{function.__name__}({first.name})", "Tokenizer" in loaded)
        for name, value in given.items():
            seed = (
                value if name == "seed" else getattr(value, "seed", None) if dataclasses.is_dataclass(value) else None
            )
            if seed is not None:
                demand_seed(seed)
            if name in several and isinstance(value, str):
                given[name] = [value]
        return function(*bound.args, **bound.kwargs)

    return run  # type: ignore[return-value]


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
