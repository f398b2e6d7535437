"""Finding plugins by walking a package: one plugin is one object in one small file, and no list is kept.

A plugin may have hooks: functions of its file under fixed names (`control`, `planted` ... of a detector). A file is
checked when it is loaded, so that a misspelt hook is refused instead of ignored: whatever public function or class it
defines must be a plugin or a hook. Constants and imported names are free, helper functions start with an underscore.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, cast

from headatlas.errors import HeadAtlasError, UnknownName


class Named(Protocol):
    """Anything with a name that users type."""

    @property
    def name(self) -> str: ...  # noqa: D102


T = TypeVar("T", bound=Named)
_LOOSE = "headatlas_own_"  # what names of modules of loose files begin with
_TEXT = "__headatlas_text__"  # the text that such a module was made of


class Hook(NamedTuple):
    """A function that goes with a plugin: it stands in the plugin's file under this name.

    parameters: what it is called with, as one writes it, such as "layer, batch".
    """

    name: str
    parameters: str
    required: bool = False

    def __str__(self) -> str:
        return f"{self.name}({self.parameters})"


class Hooked:
    """Base of plugins whose files may hold hooks. HOOKS: all that are known; `module`: the file's module.

    A hook goes with every plugin of its file that knows it.
    """

    HOOKS: ClassVar[tuple[Hook, ...]] = ()
    module: str

    @functools.cached_property
    def _hooks(self) -> Mapping[str, Any]:
        module = importlib.import_module(self.module)
        names = {hook.name: f"{self._own}_{hook.name}" for hook in self.HOOKS}
        found = {name: vars(module).get(own, vars(module).get(name)) for name, own in names.items()}
        plain = [name for name, own in names.items() if found[name] is not None and own not in vars(module)]
        others = {id(one) for one in vars(module).values() if isinstance(one, Hooked)}
        if self.module == "__main__" and plain and len(others) > 1:  # whose they are in a notebook, no file says
            raise HeadAtlasError(
                f"The function '{plain[0]}' could be a hook of any of {len(others)} plugins defined here.",
                f"Call this one's {names[plain[0]]}, or write each plugin in a file of its own.",
            )
        for hook in self.HOOKS:
            if found[hook.name] is not None:
                demand_parameters(found[hook.name], hook.parameters, f"{_file(module)}: the hook '{hook.name}'")
        return found

    @property
    def _own(self) -> str:
        """What its own hooks' names begin with, where several plugins have hooks of one name."""
        return str(getattr(self, "name", "")).replace("-", "_")

    def hook(self, name: str) -> Any:
        """The function `name` of the plugin's file; None where there is none.

        Raises HeadAtlasError where it is missing and required, or cannot be called as the hook is.
        """
        function = self._hooks[name]
        if function is None and (wanted := next(hook for hook in self.HOOKS if hook.name == name)).required:
            file = _file(importlib.import_module(self.module))
            raise HeadAtlasError(f"{file} defines no '{name}', which its plugins need.", f"Add a function {wanted}.")
        return function


class _Source(NamedTuple):
    """A module that may hold plugins. entry: how another package announced it; None for the package's own."""

    module: str
    entry: EntryPoint | None = None


def discover(package: str, kind: type[T]) -> Mapping[str, T]:
    """All objects of type `kind` in the modules of `package` and of its entry-point group, by name.

    Raises HeadAtlasError for a file that breaks the contract, with the name of the package that it comes from.
    """
    return cast("Mapping[str, T]", _walk(package, kind))


@functools.cache
def _walk(package: str, kind: type) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for source in _sources(package):
        for plugin in _load(source, kind):
            if plugin.name in found and found[plugin.name] is not plugin:
                origin = _whose(source.entry) if source.entry else f"one of them in {source.module}"
                raise HeadAtlasError(
                    f"Two plugins in {package} are called '{plugin.name}' ({origin}).", _removal(source)
                )
            found[plugin.name] = plugin
    return dict(sorted(found.items()))


def _sources(package: str) -> Iterator[_Source]:
    home = importlib.import_module(package)
    names = [info.name for info in pkgutil.iter_modules(home.__path__) if not info.name.startswith("_")]
    yield from (_Source(f"{package}.{name}") for name in sorted(names))
    # Third parties add modules through an entry-point group with the package's own name.
    yield from (_Source(entry.module, entry) for entry in entry_points(group=package))


def _load(source: _Source, kind: type) -> list[Named]:
    """The plugins of one module, which keeps the contract."""
    if source.entry is None:
        return _plugins(importlib.import_module(source.module), kind)
    try:
        return _plugins(importlib.import_module(source.module), kind)
    except Exception as error:  # whatever stops another package's module, the user must hear which package it is
        said = (
            str(error)
            if isinstance(error, HeadAtlasError)
            else f"{type(error).__name__}: {' '.join(str(error).split())}"
        )
        raise HeadAtlasError(f"{_whose(source.entry)} cannot be loaded: {said}", _removal(source)) from error


def _whose(entry: EntryPoint) -> str:
    """Such as: The plugin 'more = more.heads' of the package more-heads 1.0."""
    origin = f"the package {entry.dist.name} {entry.dist.version}" if entry.dist else "a package without a name"
    return f"The plugin '{entry.name} = {entry.value}' of {origin}"


def _removal(source: _Source) -> str:
    if source.entry is None or source.entry.dist is None:
        return ""
    return f"Repair that package, or remove it: pip uninstall {source.entry.dist.name}."


def _plugins(module: ModuleType, kind: type) -> list[Named]:
    """The plugins that a module defines, after a check of everything else that it defines."""
    values = vars(module).values()  # a module may hold its plugins by name, or many alike in a tuple
    held = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    found = [
        one for one in held if isinstance(one, kind) and getattr(one, "module", module.__name__) == module.__name__
    ]
    what = kind.__name__.lower()
    known = {hook.name for one in (kind, *map(type, found)) if issubclass(one, Hooked) for hook in one.HOOKS}
    own = {f"{one._own}_{hook.name}" for one in found if isinstance(one, Hooked) for hook in one.HOOKS}
    for name, value in vars(module).items():
        if (
            not name.startswith("_")
            and name not in known | own
            and not isinstance(value, kind)
            and _is_own(value, module)
        ):
            raise HeadAtlasError(
                f"{_file(module)} defines '{name}', which is neither a {what} nor a hook of one.", _advice(name, known)
            )
    if not found:
        raise HeadAtlasError(
            f"{_file(module)} holds no {what}.", "Define one there, or let the file's name start with an underscore."
        )
    demand_hooks(found)
    return [cast(Named, plugin) for plugin in found]


def demand_hooks(plugins: Iterable[object]) -> None:
    """Raise HeadAtlasError where a plugin lacks a hook that it needs, or has one that cannot be called as it is."""
    for plugin in plugins:
        if isinstance(plugin, Hooked):
            for hook in plugin.HOOKS:
                plugin.hook(hook.name)


def plugins_of_file(path: Path, kind: type[T]) -> list[T]:
    """The plugins of a loose Python file, which keeps the contract. Raises HeadAtlasError, naming the file."""
    if not path.is_file():
        raise HeadAtlasError(f"There is no file {path}.", "Give the path of a Python file.")
    text = path.read_bytes()
    name = f"{_LOOSE}{hashlib.sha256(str(path.resolve()).encode() + text).hexdigest()[:16]}"
    add_loose(name, path, text)
    return cast("list[T]", _plugins(sys.modules[name], kind))


def add_loose(name: str, path: Path, text: bytes) -> None:
    """Make a module of the text of a loose file, under the name that functions and hooks of it are looked up by. Raises HeadAtlasError."""
    if name in sys.modules:
        return
    module = ModuleType(name)
    module.__file__ = str(path)
    vars(module)[_TEXT] = (
        text  # the file may be changed, or be looked for from another folder, by the time it is asked for
    )
    sys.modules[name] = module
    try:
        exec(compile(text, str(path), "exec"), vars(module))
    except Exception as error:  # whatever stops a user's file, the user must hear which it is
        del sys.modules[name]
        raise HeadAtlasError(
            f"{path} cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def loose_modules() -> dict[str, tuple[str, bytes]]:
    """The modules that were made of loose files: their names, with the file as it was named and the text that was read."""
    return {
        name: (str(one.__file__), vars(one)[_TEXT])
        for name, one in list(sys.modules.items())
        if name.startswith(_LOOSE) and _TEXT in vars(one)
    }


def _is_own(value: object, module: ModuleType) -> bool:
    """Whether a value is a function or a class that the module itself defines."""
    if isinstance(value, functools.partial):  # it belongs where its function does
        value = value.func
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _advice(name: str, known: Iterable[str]) -> str:
    if not known:
        return "Start helper functions with an underscore."
    hooks = f"Hooks: {', '.join(sorted(known))}; start helper functions with an underscore."
    return " ".join(part for part in (did_you_mean(name, known), hooks) if part)


def demand_parameters(function: object, parameters: str, what: str) -> None:
    """Raise HeadAtlasError unless `function` can be called with these positional arguments ("layer, batch")."""
    if not callable(function):
        raise HeadAtlasError(f"{what} is no function but a {type(function).__name__}.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some functions written in C do not say what they take
    try:
        signature.bind(*parameters.split(", "))
    except TypeError:
        raise HeadAtlasError(f"{what} takes {signature}, but is called with ({parameters}).") from None


def _file(module: ModuleType) -> str:
    """The file of a module within its package, such as headatlas/detectors/induction.py; a loose file by its path."""
    if module.__name__.startswith(_LOOSE):
        return str(module.__file__)
    if module.__name__ == "__main__":
        return "This notebook or program"
    folder = hasattr(module, "__path__")
    return module.__name__.replace(".", "/") + ("/__init__.py" if folder else ".py")


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
