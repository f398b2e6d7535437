"""Keyword arguments that methods took in version 0.1: still understood for one version, each with a warning."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from headatlas.methods.prompts import Prompts
from headatlas.renamed import current_arguments, warn
from headatlas.task import Batch

F = TypeVar("F", bound=Callable[..., Any])


class _Ticks:
    """A Progress that tells a function (done, total), as `tick` was called."""

    def __init__(self, tick: Callable[[int, int], None]) -> None:
        self.tick, self.total, self.done = tick, dict[str, int](), dict[str, int]()

    def plan(self, steps: Sequence[tuple[str, int]]) -> None:
        """Note how long the steps are."""
        self.total.update(steps)

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        """Tell how far the step has come."""
        self.done[step] = self.done.get(step, 0) + amount
        self.tick(self.done[step], of or self.total.get(step, self.done[step]))

    def say(self, line: str) -> None:
        """Nobody is told."""


def former_arguments(options: type | None = None, keyword: str = "options", **names: str) -> Callable[[F], F]:
    """Let a method take what is a field of `options` today as keyword arguments of its own, and others by old names.

    metric becomes `Prompts(batch=..., metric=...)`, tick a Progress. names: old="new". Raises TypeError where an argument
    comes in both ways.
    """
    grouped = tuple(field.name for field in fields(options)) if options is not None else ()

    def wrap(function: F) -> F:
        @functools.wraps(function)
        def call(model: Any, batch: Any, *args: Any, **given: Any) -> Any:
            given = current_arguments(given, names, function.__name__)
            if options is not None and (old := [name for name in grouped if name in given]):
                known = given.get(keyword)
                own = {field.name for field in fields(known)} if known is not None else set[str]()
                if both := [name for name in old if name in own]:
                    raise TypeError(f"{function.__name__}() got '{both[0]}' and {keyword}, which has it.")
                warn(f"The argument '{old[0]}' of {function.__name__}", f"{keyword}={options.__name__}({old[0]}=...)")
                had = {name: getattr(known, name) for name in own}
                given[keyword] = options(**had, **{name: given.pop(name) for name in old})
            if (
                "metric" in given
                and "metric" not in function.__annotations__
                and isinstance(batch, Batch)
                and "Prompts" in str(function.__annotations__.get("batch"))
            ):
                warn(f"The argument 'metric' of {function.__name__}", "Prompts(batch=..., metric=...)")
                batch = Prompts(batch=batch, metric=given.pop("metric"))
            if "tick" in given:
                warn(f"The argument 'tick' of {function.__name__}", "'progress'")
                given["progress"] = _Ticks(given.pop("tick"))
            return function(model, batch, *args, **given)

        return cast(F, call)

    return wrap
