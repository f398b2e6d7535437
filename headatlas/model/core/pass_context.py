"""What a forward pass is given: prompts as tokens, and the facts about the pass that every layer's view needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from headatlas.model.core.unembedding import Unembedding


class TokenBatch(Protocol):
    """Prompts as tokens [example, pos] and mask [example, pos] bool, False on padding; a `headatlas.task.Batch` is one."""

    @property
    def tokens(self) -> Tensor: ...  # noqa: D102
    @property
    def mask(self) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class Tokens:
    """A batch of nothing but tokens and mask, and the same of an encoder where the tokens are its decoder's."""

    tokens: Tensor
    mask: Tensor
    encoder: Tokens | None = None

    @classmethod
    def of(cls, batch: TokenBatch) -> Tokens:
        """The tokens of a batch."""
        encoder = getattr(batch, "encoder", None)
        return cls(batch.tokens, batch.mask, None if encoder is None else cls(encoder.tokens, encoder.mask))

    def each(self, change: Callable[[Tensor], Tensor]) -> Tokens:
        """The same with `change` made to every tensor [example, pos]."""
        encoder = None if self.encoder is None else self.encoder.each(change)
        return Tokens(change(self.tokens), change(self.mask), encoder)


# A batch; one text, or several; ids as a tensor, an array or lists; the model's own inputs, such as a tokenizer returns.
Inputs = TokenBatch | Tensor | Mapping[str, Any] | str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


@dataclass
class PassContext:
    """Facts of one forward pass that hold at every layer; `Model.pass_context` makes it.

    path: sdpa or eager, what computes attention where no pattern is edited. block_bytes: memory of the attention rows that
    may exist at once where rows are recomputed. fast: whether the kernel that also gives each row's log-sum-exp may be used.
    unembedding: the model's, None without. valid: encoder or decoder -> [example, pos] bool, False on padding; None or left
    out where nothing is padded. query_positions: [example, query] which token of the whole sequence each query is, -1 for
    fillers, where a pass computes chosen tokens only; None: all, from `start` on.
    left_choices: whether left padding is harmless where sparse attention chooses keys.
    start: how many tokens earlier calls of a cached generation have read; length: how many tokens the call that runs was
    given, None where that is not known. Both are told anew before each call (`begin`) and hold in the thread that calls, all else stays: edits in force act in every thread that
    took their context along, and such threads may run the model at the same time.
    """

    path: str
    block_bytes: int
    fast: bool = False
    unembedding: Unembedding | None = None
    valid: Mapping[str, Tensor | None] = field(default_factory=dict)
    query_positions: Tensor | None = None
    left_choices: bool = False
    _calls: dict[int, tuple[int, int | None]] = field(
        default_factory=dict, init=False, repr=False
    )  # thread -> start, length

    def begin(self, start: int, length: int | None) -> None:
        """A call of the model begins in this thread."""
        self._calls[threading.get_ident()] = start, length

    @property
    def begun(self) -> bool:
        """Whether the model was called at all."""
        return bool(self._calls)

    @property
    def start(self) -> int:
        """How many tokens earlier calls have read, for the call that runs in this thread."""
        return self._calls.get(threading.get_ident(), (0, None))[0]

    @property
    def length(self) -> int | None:
        """How many tokens the call that runs in this thread was given."""
        return self._calls.get(threading.get_ident(), (0, None))[1]

    def start_of(self, stack: str) -> int:
        """Which token of the whole sequence this pass begins with; an encoder is never run piece by piece."""
        return 0 if stack == "encoder" else self.start

    def end_of(self, stack: str, n_queries: int) -> int:
        """Which token of the whole sequence comes after the last query of a call.

        A layer may be given the last tokens of a pass alone (Gemma 4, where later layers share keys and values): its
        queries are counted from the pass's end.
        """
        given = self.length if stack == "decoder" and self.length is not None else n_queries
        return self.start_of(stack) + max(given, n_queries)
