"""How much memory a piece of work takes: sizes as people write them, and the peak of the tensors alive during a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headatlas.choices import parse_size as parse_size
from headatlas.render.numbers import show_size as show_size

T = TypeVar("T")
STEP = 1.05  # by which tensors must have grown before those alive are looked for again


class _Alive(TorchDispatchMode):
    """Sums the storages that operations made and that are still held by something."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = {part.untyped_storage().data_ptr() for tensor in known for part in _with_storage(tensor)}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._size = 0  # of all in `_alive`, some of which may be gone by now
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            for part in _with_storage(leaf):
                storage = part.untyped_storage()
                key = storage.data_ptr()
                if key not in self._known:
                    self._size += storage.nbytes() - self._alive.get(key, (None, 0))[1]
                    self._alive[key] = (StorageWeakRef(storage), storage.nbytes())
        if self._size > STEP * self.peak:  # else those alive are hardly more than before, and need not be looked for
            self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
            self._size = sum(size for _, size in self._alive.values())
            self.peak = max(self.peak, self._size)
        return output


def _with_storage(value: Any) -> Iterator[Tensor]:
    """A tensor, or the tensors that a quantised one is made of: the wrapper holds no numbers itself."""
    if not isinstance(value, Tensor) or value.is_meta:
        return
    if type(value) not in (Tensor, torch.nn.Parameter) and hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from _with_storage(getattr(value, name))
    elif value.layout == torch.strided:
        yield value


def peak_of(work: Callable[[], T], weights: Iterable[Tensor]) -> tuple[T, int]:
    """What `work` returns, and the largest sum of bytes of tensors alive that it made, or up to STEP times of it.

    `weights` are not counted.
    """
    with _Alive(weights) as alive:
        result = work()
    return result, int(STEP * alive.peak)
