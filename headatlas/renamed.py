"""Names of version 0.1 that have a new one: they still work for one version, with a DeprecationWarning that says the new name.

renamed.json has the modules that moved ("modules": old -> new) and what in them was renamed or went elsewhere ("names": old
module -> name -> "module:name"), and detectors that have another name ("detectors": old -> new); it is read when an old name is asked for. Attributes and arguments are marked where they are:

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
import importlib.resources
import json
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


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
        owned_by = self.owner if instance is None else type(instance).__name__
        warn(f"{owned_by}.{self.old}", f"{owned_by}.{self.new}")
        return getattr(owner if instance is None else instance, self.new)


def renamed_fields(**names: str) -> Callable[[type[T]], type[T]]:
    """Let a dataclass be made with, and read by, the old names of fields: `old="new"`; stands above `@dataclass`."""

    def wrap(kind: type[T]) -> type[T]:
        for old, new in names.items():
            attribute = Renamed(new)
            attribute.__set_name__(kind, old)
            setattr(kind, old, attribute)
        made: Any = kind
        made.__init__ = renamed_arguments(**names)(made.__init__)
        return kind

    return wrap


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


@functools.cache
def _tables() -> dict[str, dict[str, Any]]:
    text = importlib.resources.files("headatlas").joinpath("renamed.json").read_text("utf-8")
    tables: dict[str, dict[str, Any]] = json.loads(text)
    return tables


def _find(module: str, name: str) -> Any:
    """What `name` of `module` is called now; raises AttributeError where it never was."""
    moved: str | None = _tables()["modules"].get(module)
    now: str | None = _tables()["names"].get(module, {}).get(name)
    if now is None and moved is not None and hasattr(importlib.import_module(moved), name):
        now = f"{moved}:{name}"
    if now is None or name.startswith("__"):
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    home, _, current = now.partition(":")
    return home, current


def current_detector(name: str) -> str:
    """What the detector of this name is called now; with a warning where that is another name."""
    now: str = _tables()["detectors"].get(name, name)
    if now != name:
        warn(f"The detector '{name}'", f"'{now}'")
    return now


def old_names(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that stood in it and moved: `__getattr__ = old_names(__name__)`."""

    def find(name: str) -> Any:
        home, current = _find(module, name)
        warn(f"{module}.{name}", f"{home}.{current}")
        return getattr(importlib.import_module(home), current)

    return find


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules under the names they had; stands last, so that it is asked for what is not there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module called `fullname` before it moved, None where it never was."""
        if not fullname.startswith("headatlas.") or fullname not in _tables()["modules"]:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: types.ModuleType) -> None:
        """Let the old module hand out what the new one has, under the old names too."""
        old = module.__name__
        warn(f"The module {old}", _tables()["modules"][old])

        def find(name: str) -> Any:
            home, current = _find(old, name)
            return getattr(importlib.import_module(home), current)

        vars(module)["__getattr__"] = find


def install() -> None:
    """Let moved modules be imported under their old names; done once, by `import headatlas`."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
