"""A function of the package that takes a model is handed one that was loaded: anything else is told so in one line."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

from headatlas.errors import BadInput
from headatlas.model.core.model import Model
from headatlas.model.text.tokenizer import Tokenizer

F = TypeVar("F", bound=Callable[..., Any])


def with_loaded_model(function: F) -> F:
    """`function`, which raises BadInput where its first parameter, a `Model`, is given a name, a transformers module or
    anything else that is no Model; as it is where it takes none.
    """
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or str(first.annotation) not in ("Model", "Model | Tokenizer"):
        return function
    name = first.name

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        if args or name in options:  # else Python says what is missing
            _check(
                args[0] if args else options[name], f"{function.__name__}({name})", "Tokenizer" in str(first.annotation)
            )
        return function(*args, **options)

    return checked  # type: ignore[return-value]


def _check(given: Any, where: str, or_tokenizer: bool) -> None:
    if isinstance(given, (Model, Tokenizer) if or_tokenizer else Model):
        return
    if isinstance(given, (str, os.PathLike)):
        what, do = f"the name {os.fspath(given)!r}", f"Load it first: headatlas.load({os.fspath(given)!r})."
    elif hasattr(given, "named_modules"):
        what, do = f"a {type(given).__name__}", "Load it first: headatlas.load(module)."
    else:
        what, do = f"a {type(given).__name__}", "Load one first: headatlas.load(NAME)."
    raise BadInput(f"{where} takes a loaded model, not {what}.", do)
