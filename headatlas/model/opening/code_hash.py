"""A hash of code as it stands in memory, so that a function that was replaced at run time is told like an edited file.

Hashed are bytecode, constants and names of functions, the members of classes, and simple constants; not docstrings, line
numbers or the content of lists and dictionaries, which programs fill while they run.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterable
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis))


class CodeHash:
    """Takes functions, classes and modules one after the other; `hexdigest` names all that it was given."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._known: dict[int, int] = {}  # id -> number of what was hashed already; recursion ends there
        self._held: list[Any] = []  # so that no id is given away again

    def hexdigest(self) -> str:
        """The sha256 of everything so far."""
        return self._digest.hexdigest()

    def note(self, *words: object) -> None:
        """Take in words as they print."""
        self._digest.update("\0".join(map(str, words)).encode("utf-8", "surrogateescape") + b"\1")

    def add(self, value: Any) -> None:
        """Take in a function, a class, a constant; of any other object its type."""
        if isinstance(value, _PLAIN):
            self.note(repr(value))
        elif isinstance(value, tuple | frozenset) and all(isinstance(item, _PLAIN) for item in value):
            self.note(*sorted(map(repr, value))) if isinstance(value, frozenset) else self.note(repr(value))
        elif isinstance(value, staticmethod | classmethod | types.MethodType):
            self.note(type(value).__name__)
            self.add(value.__func__)
        elif isinstance(value, property):
            for part in (value.fget, value.fset):
                self.add(part)
        elif isinstance(value, functools.partial):
            self.add(value.func)
            for part in (*value.args, *sorted(value.keywords.items())):
                self.add(part)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        else:
            named = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
            self.note(getattr(named, "__module__", None), named.__qualname__)
            if hasattr(value, "__wrapped__"):
                self.add(value.__wrapped__)

    def add_class(self, kind: type) -> None:
        """Take in the members of a class; what it inherits is its parents' own."""
        self.note("class", kind.__module__, kind.__qualname__, *(base.__qualname__ for base in kind.__bases__))
        if self._new(kind):
            for name, value in vars(kind).items():
                if name not in ("__doc__", "__dict__", "__weakref__", "__annotations__", "__module__"):
                    self.note(name)
                    self.add(value)

    def add_module(self, name: str) -> None:
        """Take in what a module names: its own functions and classes whole, others' functions whole and classes by name."""
        self.note("module", name)
        for key, value in sorted(vars(sys.modules[name]).items()):
            # Texts that a module keeps decide no number, and some are new in every process.
            if key.startswith("__") or isinstance(value, types.ModuleType | str | bytes):
                continue
            self.note(key)
            if isinstance(value, type) and value.__module__ == name:
                self.add_class(value)
            else:
                self.add(value)

    def _function(self, function: types.FunctionType) -> None:
        self.note("function", function.__module__, function.__qualname__)
        if not self._new(function):
            return
        self._digest.update(_code(function.__code__))
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.add(value)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # not filled yet
                self.note("empty")

    def _new(self, value: Any) -> bool:
        """Whether this is the first time; what came before is noted by its number."""
        if id(value) in self._known:
            self.note(self._known[id(value)])
            return False
        self._known[id(value)] = len(self._known)
        self._held.append(value)
        return True


@functools.cache  # code never changes, and most of a key is code that the last key had too
def _code(code: types.CodeType) -> bytes:
    """The sha256 of bytecode, names and constants, which are simple or code themselves."""
    found = CodeHash()
    found._digest.update(code.co_code)
    found.note(*code.co_names, *code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found._digest.update(_code(constant))
        elif not (isinstance(constant, str) and constant is code.co_consts[0]):  # the docstring
            found.add(constant)
    return found._digest.digest()


def defining_modules(names: Iterable[str], package: str, *, far: bool = False) -> set[str]:
    """The modules of a package that define what these modules name, with the modules themselves; far: and so on."""
    found, new = set(names), set(names)
    while new:
        values = [value for name in new for value in list(vars(sys.modules[name]).values())]
        homes = {
            value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
            for value in values
        }
        new = {home for home in homes if isinstance(home, str) and home.startswith(package) and home in sys.modules}
        new -= found
        found |= new
        if not far:
            break
    return found
