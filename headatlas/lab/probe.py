"""Token sequences that show planted heads at work, made without any task or detector of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headatlas.errors import UnknownName
from headatlas.lab.construct.words import Words
from headatlas.registry import did_you_mean


@dataclass(frozen=True)
class Probe:
    """Sequences with the start token first.

    tokens [example, pos]; predictable [example, pos]: whether the next token follows from the text so far.
    """

    tokens: Tensor
    predictable: Tensor


def probe(name: str, words: Words, context: int, n: int, seed: int) -> Probe:
    """`n` sequences of the sort called `name`: repeated, lags, names, sequences or delimited."""
    makers: dict[str, Callable[[Words, int, int, torch.Generator], Probe]] = {
        "repeated": repeated,
        "lags": lags,
        "names": names,
        "sequences": sequences,
        "delimited": delimited,
    }
    if name not in makers:
        raise UnknownName(f"There is no probe called '{name}'.", did_you_mean(name, makers))
    return makers[name](words, context, n, torch.Generator().manual_seed(seed))


def repeated(words: Words, context: int, n: int, generator: torch.Generator) -> Probe:
    """[bos] S S, with S of up to 48 distinct tokens."""
    period = min(48, (context - 1) // 2, (len(words) - 2) // 2)
    first = _distinct(words, n, period, generator)
    tokens = _led(words, torch.cat([first, first], dim=1))
    predictable = torch.zeros_like(tokens, dtype=torch.bool)
    predictable[:, period + 1 : -1] = True
    return Probe(tokens, predictable)


def lags(words: Words, context: int, n: int, generator: torch.Generator) -> Probe:
    """[bos] S S and the other tokens in turn behind; the lengths of S run from 4 tokens to half of the context."""
    longest = min(context // 2 - 1, len(words) - 2 - 16)
    rows, predictable = [], torch.zeros(n, 2 * longest + 1, dtype=torch.bool)
    periods = torch.linspace(4, longest, n).round().long().tolist()
    for marks, period in zip(predictable, periods, strict=True):
        order = torch.randperm(len(words) - 2, generator=generator) + 2
        repeated, others = order[:period], order[period:]
        behind = others[torch.arange(2 * (longest - period)) % len(others)]
        rows.append(torch.cat([repeated, repeated, behind]))
        marks[period + 1 : 2 * period] = True
    return Probe(_led(words, torch.stack(rows)), predictable)


def names(words: Words, context: int, n: int, generator: torch.Generator) -> Probe:
    """[bos] Then, A and B went to the store. B gave a ring to: the answer is A. Half have A first, half B first."""
    place = {token: i for i, token in enumerate(words.tokens)}
    text = ["Then", ",", "X", "and", "Y", "went", "to", "the", "store", ".", "Z", "gave", "a", "ring", "to", "ANSWER"]
    rows = []
    for example in range(n):
        order = torch.randperm(len(words.names), generator=generator)[:2]
        receiver, giver = torch.tensor(words.names)[order].tolist()
        first, second = (receiver, giver) if example % 2 else (giver, receiver)
        filled = place | {"X": first, "Y": second, "Z": giver, "ANSWER": receiver}
        rows.append([filled[word] for word in text])
    tokens = _led(words, torch.tensor(rows))
    predictable = torch.zeros_like(tokens, dtype=torch.bool)
    predictable[:, -2] = True
    return Probe(tokens, predictable)


def sequences(words: Words, context: int, n: int, generator: torch.Generator) -> Probe:
    """[bos] and plain tokens, with three to five neighbours of one sequence (days, letters, ...) among them."""
    plain = torch.tensor(sorted(set(range(2, len(words))) - set(words.ordinals)))
    rows = plain[torch.randint(len(plain), (n, 24), generator=generator)]
    predictable = torch.zeros(n, 25, dtype=torch.bool)
    for example in range(n):
        members = words.sequences[example % len(words.sequences)]
        run = int(torch.randint(3, 6, (1,), generator=generator))
        start = int(torch.randint(len(members) - run + 1, (1,), generator=generator))
        at = int(torch.randint(4, 24 - run, (1,), generator=generator))
        rows[example, at : at + run] = torch.tensor(members[start : start + run])
        predictable[example, at + 1 : at + run] = True
    return Probe(_led(words, rows), predictable)


def delimited(words: Words, context: int, n: int, generator: torch.Generator) -> Probe:
    """[bos] and plain tokens with one delimiter among them."""
    plain = torch.tensor(sorted(set(range(2, len(words))) - set(words.delimiters)))
    rows = plain[torch.randint(len(plain), (n, 32), generator=generator)]
    marks = torch.tensor(words.delimiters)[torch.randint(len(words.delimiters), (n,), generator=generator)]
    rows[torch.arange(n), torch.randint(2, 20, (n,), generator=generator)] = marks
    tokens = _led(words, rows)
    return Probe(tokens, torch.zeros_like(tokens, dtype=torch.bool))


def _distinct(words: Words, n: int, length: int, generator: torch.Generator) -> Tensor:
    """[n, length] distinct tokens each, none of them special."""
    orders = [torch.randperm(len(words) - 2, generator=generator)[:length] + 2 for _ in range(n)]
    return torch.stack(orders)


def _led(words: Words, rows: Tensor) -> Tensor:
    return torch.cat([torch.full((len(rows), 1), words.bos), rows], dim=1)
