"""Finds tensors that are made on the default device while a pass runs: on a GPU they would be beside what they are computed with."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import headatlas
from headatlas.model import Model
from headatlas.model.core import dispatch

HOUSE = str(Path(headatlas.__file__).parent)
FACTORIES = frozenset(
    (
        torch.zeros, torch.ones, torch.full, torch.empty, torch.tensor, torch.as_tensor, torch.from_numpy, torch.arange, torch.linspace,
        torch.eye, torch.rand, torch.randn, torch.randint, torch.randperm, torch.tril_indices, torch.triu_indices,
    )
)  # fmt: skip


class _Seen(TorchFunctionMode):
    def __init__(self, inside: Callable[[], bool]) -> None:
        super().__init__()
        self.inside, self.places = inside, set[str]()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in FACTORIES and (kwargs or {}).get("device") is None and self.inside():
            frame: Any = sys._getframe(1)
            while frame is not None and not frame.f_code.co_filename.startswith(HOUSE):
                frame = frame.f_back
            # A mode of our own passes on what a model's code makes; it makes nothing itself.
            if frame is not None and frame.f_code.co_name != "__torch_function__":
                place = frame.f_code.co_filename.removeprefix(HOUSE).lstrip("/\\")
                self.places.add(f"{place}:{frame.f_lineno} torch.{func.__name__}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def on_the_default_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Yields the places, which fill as passes run: in attention calls, in watchers and edits, and in what else runs within a pass."""
    running = [0]
    plain = Model.run

    def run(self: Model, *args: Any, **kwargs: Any) -> Any:
        running[0] += 1
        try:
            return plain(self, *args, **kwargs)
        finally:
            running[0] -= 1

    monkeypatch.setattr(Model, "run", run)
    seen = _Seen(lambda: bool(running[0] or dispatch.depth()))
    with seen:
        yield seen.places
