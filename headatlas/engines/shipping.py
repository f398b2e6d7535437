"""Work on its way to another process: packed so that what it finds there is what it left here.

Work refers to a model, and to tasks, detectors and metrics, which code tells apart by which object they are (`metric is kl`). A
copy of one would be another; so whatever stands in a module of headatlas under a name travels as that name, the model as
the word "model", and all else by value. Detectors and tasks from a user's file travel with the source of that file; those that
the program itself defines (a notebook) have no file, and are refused.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.model.identity import identity_of
from headatlas.registry import Hooked, add_loose, loose_modules
from headatlas.version import __version__

_HOME = __name__.partition(".")[0]
_LIBRARIES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Opening:
    """How another process opens a model: the arguments of `load`, and the facts that it must then have."""

    arguments: Mapping[str, Any]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, model: Model) -> Opening:
        """Raises BadInput for a model that has no name to load it by."""
        if model.loaded_by is None:
            raise BadInput(
                f"{model.name} lies in this program's memory, and other processes load models by name.",
                "Give headatlas.load a name or a folder, or use the engine local.",
            )
        return cls(model.loaded_by, _facts(model))

    def demand(self, model: Model) -> None:
        """Raise BadInput where a model that was opened so is not the one that was meant."""
        found = _facts(model)
        other = [name for name, value in self.facts.items() if found.get(name) != value]
        if other:
            raise BadInput(
                f"What a worker loads as {self.arguments['name']} is not the model that was meant: it differs in {', '.join(other)}.",
                "Was it changed in memory? Save it and load the folder; else install the same versions everywhere.",
            )


def _facts(model: Model) -> dict[str, Any]:
    return {
        "headatlas": __version__,
        **{name: version(name) for name in _LIBRARIES},
        "sha256": model.sha256(),
        "dtype": str(model.dtype),
        "attention_path": model.path,
        "bos": model.tokenizer.bos_policy,
        **identity_of(model),
    }


def packed(work: Callable[..., Any], model: Model, cloudpickle: Any) -> bytes:
    """The work as bytes, with the sources of users' files that it may name. Raises BadInput for what cannot travel."""
    names = _named()

    class Pickler(cloudpickle.CloudPickler):
        def persistent_id(self, value: Any) -> Any:
            if value is model:
                return ("model",)
            if isinstance(value, Hooked) and value.module == "__main__":
                raise BadInput(
                    f"{getattr(value, 'name', type(value).__name__)} is defined in the program itself, which workers do not have.",
                    "Write it to a file and give the file's path, or use the engine local.",
                )
            return names.get(id(value))

    place = io.BytesIO()
    Pickler(place).dump(work)
    return pickle.dumps((loose_modules(), place.getvalue()))


def unpacked(parcel: bytes, model: Model) -> Callable[..., Any]:
    """The work that `packed` made these bytes of, on this process's model."""
    sources, work = pickle.loads(parcel)
    for name, (path, text) in sources.items():
        add_loose(name, Path(path), text)

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, place: Any) -> Any:
            return model if place == ("model",) else _at(*place)

    found: Callable[..., Any] = Unpickler(io.BytesIO(work)).load()
    return found


def _named() -> dict[int, tuple[str, str, int | str | None]]:
    """id -> (module, name, place in a tuple or key of a table, or None) of every object of a class of ours in a module."""
    found: dict[int, tuple[str, str, int | str | None]] = {}
    ours = [name for name in list(sys.modules) if name.partition(".")[0] == _HOME]
    for name in [*ours, *loose_modules()]:
        for label, value in list(vars(sys.modules[name]).items()):
            for place, one in _parts(value):
                if type(one).__module__.partition(".")[0] == _HOME:
                    found.setdefault(id(one), (name, label, place))
    return found


def _parts(value: Any) -> list[tuple[int | str | None, Any]]:
    if type(value) is tuple:
        return list(enumerate(value))
    if type(value) is dict:
        return [(key, one) for key, one in value.items() if isinstance(key, str)]
    return [(None, value)]


def _at(module: str, label: str, place: int | str | None) -> Any:
    __import__(module)
    found = vars(sys.modules[module])[label]
    return found if place is None else found[place]
