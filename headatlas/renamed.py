"""Names of version 0.1 that have a new one: they still work for one version, with a DeprecationWarning that says the new name.

`MODULES` has the modules that moved, `NAMES` what in them was renamed. Attributes and arguments are marked where they are:

    class Batch:
        at = Renamed("positions")

    @renamed_arguments(logits_at="logit_positions")
    def forward(...): ...
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def warn(old: str, new: str, level: int = 3) -> None:
    """Say that `old` is called `new` now; `level` as in warnings.warn, so that the caller's line is named."""
    warnings.warn(
        f"{old} is called {new} now; the old name goes in the next version.", DeprecationWarning, stacklevel=level
    )


class Renamed:
    """A class attribute under its old name: reading it warns and gives the new one."""

    def __init__(self, new: str) -> None:
        self.new, self.old, self.owner = new, "", ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.old, self.owner = name, owner.__name__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        warn(f"{self.owner}.{self.old}", f"{self.owner}.{self.new}")
        return getattr(owner if instance is None else instance, self.new)


def renamed_arguments(**names: str) -> Callable[[F], F]:
    """Let a function take keyword arguments under their old names, `old="new"`. Raises TypeError where both are given."""

    def wrap(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not names.keys().isdisjoint(kwargs):
                kwargs = current_arguments(kwargs, names, function.__qualname__)
            return function(*args, **kwargs)

        return cast(F, call)

    return wrap


def current_arguments(
    given: Mapping[str, Any], names: Mapping[str, str], function: str, level: int = 4
) -> dict[str, Any]:
    """Keyword arguments with old names (`names`: old -> new) replaced by the new ones. Raises TypeError where both are given."""
    found = dict(given)
    for old, new in names.items():
        if old in found:
            if new in found:
                raise TypeError(f"{function}() got both '{new}' and its old name '{old}'.")
            warn(f"The argument '{old}' of {function}", f"'{new}'", level)
            found[new] = found.pop(old)
    return found


def old_names(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that stood in it and moved: name -> "module:name"."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, _, new = names[name].partition(":")
        warn(f"{package}.{name}", f"{module}.{new}")
        return getattr(importlib.import_module(module), new)

    return find


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules under the names they had; stands last, so that it is asked for what is not there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module called `fullname` before it moved, None where it never was."""
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Let the old module hand out what the new one has, under the old names too."""
        old, new = module.__name__, MODULES[module.__name__]
        warn(old, new, level=5)
        home, names = importlib.import_module(new), NAMES.get(new, {})

        def find(name: str) -> Any:
            current = names.get(name, name)
            where, _, current = current.rpartition(":")
            place = importlib.import_module(where) if where else home
            if current != name and not name.startswith("__"):
                warn(f"{old}.{name}", f"{place.__name__}.{current}")
            return getattr(place, current)

        vars(module)["__getattr__"] = find


def install() -> None:
    """Let moved modules be imported under their old names; done once, by `import headatlas`."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
