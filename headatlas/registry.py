"""Finding plugins by walking a package: one plugin is one object in one small file, and no list is kept."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Protocol, TypeVar, cast

from headatlas.errors import HeadAtlasError, UnknownName


class Named(Protocol):
    """Anything with a name that users type."""

    @property
    def name(self) -> str: ...  # noqa: D102


T = TypeVar("T", bound=Named)


@functools.cache
def _walk(package: str, kind: type) -> dict[str, Named]:
    found: dict[str, Named] = {}
    home = importlib.import_module(package)
    modules = [
        f"{package}.{info.name}" for info in pkgutil.iter_modules(home.__path__) if not info.name.startswith("_")
    ]
    loaded = [(name, importlib.import_module(name)) for name in sorted(modules)]
    # Third parties add modules through an entry-point group with the package's own name.
    loaded += [(entry.value, importlib.import_module(entry.module)) for entry in entry_points(group=package)]
    for origin, module in loaded:
        holds = vars(module).values()  # a module may hold its plugins by name, or many alike in a tuple
        for thing in [one for value in holds for one in (value if isinstance(value, tuple) else (value,))]:
            if not isinstance(thing, kind) or getattr(thing, "module", module.__name__) != module.__name__:
                continue
            name = cast(Named, thing).name
            if name in found and found[name] is not thing:
                raise HeadAtlasError(f"Two plugins in {package} are called '{name}' (one of them in {origin}).")
            found[name] = cast(Named, thing)
    return dict(sorted(found.items()))


def discover(package: str, kind: type[T]) -> Mapping[str, T]:
    """All objects of type `kind` in the modules of `package` and of its entry-point group, by name."""
    return cast("Mapping[str, T]", _walk(package, kind))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A closing sentence such as "Did you mean 'induction'?", or "" where nothing is near."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else ""


def lookup(found: Mapping[str, T], name: str, what: str, see: str = "") -> T:
    """The plugin called `name`; raises UnknownName with the nearest name and where to see them all."""
    if name in found:
        return found[name]
    hint = " ".join(part for part in (did_you_mean(name, found), see) if part)
    raise UnknownName(f"There is no {what} called '{name}'.", hint)
