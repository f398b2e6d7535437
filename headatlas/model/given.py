"""What public functions are given: a model that was loaded, and seeds that are some. All else is told so in one line."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

from headatlas.choices import demand_seed
from headatlas.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """The function, which raises BadInput where its first parameter is a `Model` and is given a name, a transformers module
    or anything else that is none, and where its `seed`, or that of an options object, is no whole number from 0 to 2**31 - 1.
    """
    parameters = inspect.signature(function).parameters
    first = next(iter(parameters.values()), None)
    loaded = str(first.annotation) if first is not None else ""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        given = dict(zip(parameters, args, strict=False)) | options
        if first is not None and first.name in given and loaded in ("Model", "Model | Tokenizer"):
            _demand_loaded(given[first.name], f"{function.__name__}({first.name})", "Tokenizer" in loaded)
        for name, value in given.items():
            seed = (
                value if name == "seed" else getattr(value, "seed", None) if dataclasses.is_dataclass(value) else None
            )
            if seed is not None:
                demand_seed(seed)
        return function(*args, **options)

    return run  # type: ignore[return-value]


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
