"""Prompts as tokens with named positions and answers, and what their makers may ask of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.renamed import renamed_fields


class Vocabulary(Protocol):
    """What a task may ask of a tokenizer: the least of one. `headatlas.model.Tokenizer` knows more (`edges`, `complete`)."""

    causal: bool  # whether attention is causal; False for encoders, where it is bidirectional
    context: int  # longest input in tokens, those around the text included

    @property
    def bos(self) -> int | None:
        """The first token of each text, None for no such token."""

    @property
    def eos(self) -> int | None:
        """Closes a text in encoders ([SEP]), None in decoders."""

    def encode(self, text: str) -> list[int]:
        """Token ids without what stands around a text."""

    def decode(self, ids: list[int] | int) -> str:
        """The text of one or more tokens."""

    def single(self, word: str) -> int | None:
        """The one id of `word` as given (with its leading space), or None."""

    def plain_ids(self) -> list[int]:
        """Ordinary text tokens, most frequent first; no special, byte or unused ids."""

    def word_starts(self, ids: list[int]) -> list[bool]:
        """Whether each token begins a word."""


def edges(tokenizer: Vocabulary) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All that stands before and after each text; of a vocabulary that knows no more, its bos and eos."""
    front, back = (() if one is None else (one,) for one in (tokenizer.bos, tokenizer.eos))
    return getattr(tokenizer, "front", front), getattr(tokenizer, "back", back)


def complete(batch: Batch, tokenizer: Vocabulary) -> Batch:
    """The batch with what an encoder-decoder's encoder reads, and how its texts begin and end, where the tokenizer knows it."""
    known: Callable[[Batch], Batch] | None = getattr(tokenizer, "complete", None)
    return batch if known is None else known(batch)


@renamed_fields(at="positions")
@dataclass(frozen=True, repr=False)
class Batch:
    """Token sequences with the positions and answers that detectors and metrics need.

    tokens, mask: [example, pos]; mask is False on padding.
    positions: name -> [example] or [example, k] positions in `tokens`, -1 where absent. Shifted by padding.
    marks: name -> [example, pos] labels of tokens (0 or -1 where nothing applies). Padded with -1.
    labels: name -> [example, ...] values that belong to an example (answer ids in `answer`, `wrong`, classes ...).
    facts: values of the whole batch (the period of a repetition, the task's settings).
    control: same words and lengths with the structure destroyed; its scores are the chance level.
    counterfactual: the same prompts with the deciding words changed, for resampling and patching.
    encoder: what an encoder-decoder's encoder reads, with positions and marks of its own; the tokens here are the decoder's.
    Without it tokens are taken as they are (the encoder's; the decoder reads them behind its start token).
    """

    tokens: Tensor
    mask: Tensor
    positions: Mapping[str, Tensor] = field(default_factory=dict)
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    control: Batch | None = None
    counterfactual: Batch | None = None
    encoder: Batch | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.shape != self.mask.shape:
            raise BadInput(
                f"tokens {tuple(self.tokens.shape)} and mask {tuple(self.mask.shape)} must both be [example, pos]."
            )
        if self.mask.dtype != torch.bool:  # a tokenizer's attention mask counts 1 and 0
            object.__setattr__(self, "mask", self.mask.bool())
        if self.encoder is not None and len(self.encoder) != len(self):
            raise BadInput(f"The encoder's batch has {len(self.encoder)} examples, the decoder's {len(self)}.")
        for kind, values in (("positions", self.positions), ("marks", self.marks), ("labels", self.labels)):
            for name, value in values.items():
                if len(value) != len(self.tokens):
                    raise BadInput(
                        f"{kind}['{name}'] has {len(value)} rows, the batch has {len(self.tokens)} examples."
                    )
        for name, value in self.positions.items():
            self._demand_position(name, value)

    def _demand_position(self, name: str, value: Tensor) -> None:
        """Raise BadInput for a named position that is no place in the texts; -1 means none."""
        if value.is_floating_point() or value.dtype == torch.bool:
            raise BadInput(f"positions['{name}'] must be whole numbers, got {str(value.dtype).removeprefix('torch.')}.")
        length = self.tokens.shape[1]
        if value.numel() and (int(value.min()) < -1 or int(value.max()) >= length):
            wrong = int(value.min()) if int(value.min()) < -1 else int(value.max())
            raise BadInput(
                f"positions['{name}'] holds {wrong}, and the texts have positions 0 to {length - 1}.",
                "Positions count from 0, padding included; -1 means none.",
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        lengths = self.mask.sum(1)
        n = len(self)
        low, high = (int(lengths.min()), int(lengths.max())) if n else (0, 0)
        parts = [f"{n} {'prompt' if n == 1 else 'prompts'} of {low if low == high else f'{low} to {high}'} tokens"]
        for kind, names in (("positions", self.positions), ("marks", self.marks), ("labels", self.labels)):
            parts += [f"{kind} {', '.join(names)}"] if names else []
        parts += [name for name in ("control", "counterfactual", "encoder") if getattr(self, name) is not None]
        return f"Batch({'; '.join(parts)})"

    @property
    def answer(self) -> Tensor:
        """[example] or [example, k] token ids of the right answer."""
        return self.labels["answer"]

    @property
    def wrong(self) -> Tensor:
        """[example] or [example, k] token ids of the wrong answer."""
        return self.labels["wrong"]

    def side(self, stack: str) -> Batch:
        """The batch as a stack's own positions count it: the encoder's for "encoder", else this one."""
        return self.encoder if stack == "encoder" and self.encoder is not None else self

    def rows(self, index: slice | Tensor | list[int]) -> Batch:
        """The examples at `index` [n], or a slice of them, with their control and counterfactual rows."""

        def take(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value[index] for name, value in values.items()}

        return replace(
            self,
            tokens=self.tokens[index],
            mask=self.mask[index],
            positions=take(self.positions),
            marks=take(self.marks),
            labels=take(self.labels),
            control=self.control.rows(index) if self.control is not None else None,
            counterfactual=self.counterfactual.rows(index) if self.counterfactual is not None else None,
            encoder=self.encoder.rows(index) if self.encoder is not None else None,
        )

    def chunks(self, size: int) -> list[Batch]:
        """The batch in pieces of at most `size` examples, in order."""
        return [self.rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def padded(self, left: int = 0, right: int = 0, token: int = 0) -> Batch:
        """The same examples with `left` and `right` padding positions added; positions move along."""

        def pad(value: Tensor, fill: int | bool) -> Tensor:
            return torch.nn.functional.pad(value, (left, right), value=fill)

        return replace(
            self,
            tokens=pad(self.tokens, token),
            mask=pad(self.mask, False),
            positions={name: torch.where(value >= 0, value + left, value) for name, value in self.positions.items()},
            marks={name: pad(value, -1) for name, value in self.marks.items()},
            control=self.control.padded(left, right, token) if self.control is not None else None,
            counterfactual=self.counterfactual.padded(left, right, token) if self.counterfactual is not None else None,
            encoder=self.encoder.padded(left, right, token) if self.encoder is not None else None,
        )
