"""The tensors of a cache that holds less: for each layer one part for the groups that keep everything, and one for each span.

A text's tokens are counted in columns, as the model's masks count them, padding included. `starts` [example] is the first column
that is no padding. Shapes: keys and values [example, group of the part, token, d].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from headatlas.model.core.attention_call import additive
from headatlas.model.holding.span import INDEX_BYTES, Span

BLOCK = 64  # tokens by which a part that keeps everything grows at most

# (queries, keys, values, mask) -> attention of the queries over them, [example, query, head, d_value]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Part(ABC):
    """What some groups of one layer hold. groups: which; heads: the query heads that read them."""

    def __init__(self, groups: Sequence[int], per_group: int) -> None:
        self.groups = torch.tensor(groups)
        self.heads = (self.groups[:, None] * per_group + torch.arange(per_group)).flatten()
        self.keys = self.values = torch.empty(0)

    @property
    def n_bytes(self) -> int:
        """Bytes of its tensors, as they are allocated."""
        return self.keys.nbytes + self.values.nbytes

    @abstractmethod
    def fill(self, keys: Tensor, values: Tensor, first: int, starts: Tensor) -> None:
        """Take what is to be kept of the keys and values of the columns from `first` on."""

    @abstractmethod
    def step(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, begin: int, attend: Attend) -> Tensor:
        """Take new columns, from `begin` on, and let their queries attend to what each of them sees.

        mask: the model's own, [example or 1, head or 1, query, column]. As many columns at once as one after the other.
        """

    def pick(self, examples: Tensor) -> None:
        """Keep these examples of the batch, in this order; one may come several times (beams)."""
        self.keys, self.values = (x.index_select(0, examples.to(x.device)) for x in (self.keys, self.values))


class Whole(Part):
    """Everything is kept, in buffers that grow by some tokens at once, so that a step copies no more than its own token. used: slots that hold one."""

    used = 0

    def fill(self, keys: Tensor, values: Tensor, first: int, starts: Tensor) -> None:  # noqa: D102
        self.used = 0
        self.keys, self.values = (x[:, :, :0] for x in (keys, values))
        self._append(keys, values)

    def _append(self, keys: Tensor, values: Tensor) -> None:
        end = self.used + keys.shape[2]
        if end > self.keys.shape[2]:
            room = end + min(BLOCK, max(end // 8, 4))
            self.keys, self.values = (_grown(x, self.used, room) for x in (self.keys, self.values))
        self.keys[:, :, self.used : end] = keys
        self.values[:, :, self.used : end] = values
        self.used = end

    def step(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, begin: int, attend: Attend) -> Tensor:  # noqa: D102
        self._append(keys, values)
        if mask is None and q.shape[2] > 1:
            seen = torch.arange(self.used, device=q.device) <= torch.arange(begin, self.used, device=q.device)[:, None]
            mask = seen[None, None]
        return attend(q, self.keys[:, :, : self.used], self.values[:, :, : self.used], _of_heads(mask, self.heads))


def _grown(x: Tensor, used: int, room: int) -> Tensor:
    larger = x.new_empty(*x.shape[:2], room, x.shape[3])
    larger[:, :, :used] = x[:, :, :used]
    return larger


class Window(Part):
    """The first tokens in slots of their own, the recent ones in a ring, and, if wanted, the mean of those between in slot 0.

    Keys carry their rotary positions, and attention does not mind the order of keys, so that a new token simply takes the slot of
    the one that leaves: slot (column mod recent). What leaves is added to the mean, whose count is the weight that it has in
    the softmax: its logit gets log(count), which is the same as that many equal keys (RazorAttention, equation 4).
    columns [example, slot]: the column that a slot holds, -1 for none; the mean has no column.
    """

    def __init__(self, groups: Sequence[int], per_group: int, span: Span, n_tokens: int) -> None:
        super().__init__(groups, per_group)
        self.sinks, self.recent, self.mean = span.sinks, span.recent_of(n_tokens), span.compensate
        self.columns = self.starts = self.count = torch.empty(0)
        self.mean_key = self.mean_value = torch.empty(0)
        self.full = False  # whether every slot but the mean's holds a token, in every example
        self.early: Whole | None = None  # what holds a text while nothing has to go
        self.per_group = per_group

    @property
    def n_bytes(self) -> int:  # noqa: D102
        if self.early is not None:
            return self.early.n_bytes
        more = self.mean_key.nbytes + self.mean_value.nbytes if self.mean else 0
        return super().n_bytes + self.columns.numel() * INDEX_BYTES + more

    def fill(self, keys: Tensor, values: Tensor, first: int, starts: Tensor) -> None:  # noqa: D102
        self.starts = starts.to(keys.device)
        if not first and keys.shape[2] <= self.sinks + self.recent:
            self.early = Whole(self.groups.tolist(), self.per_group)
            self.early.fill(keys, values, first, starts)
        else:
            self._settle(keys, values, first)

    def _settle(self, keys: Tensor, values: Tensor, first: int) -> None:
        """Put columns from `first` on into the slots."""
        n, end = len(keys), first + keys.shape[2]
        slots = self.mean + self.sinks + self.recent
        self.keys, self.values = (x.new_zeros(n, x.shape[1], slots, x.shape[3]) for x in (keys, values))
        self.columns = torch.full((n, slots), -1, dtype=torch.int32, device=keys.device)
        self.mean_key, self.mean_value = (x.new_zeros(n, *x.shape[1::2], dtype=torch.float32) for x in (keys, values))
        self.count = torch.zeros(n, dtype=torch.float32, device=keys.device)
        for example, start in enumerate(self.starts.tolist()):
            kept = self._kept(max(start, first), start, end)
            self._place(example, kept, keys, values, first)
            after = max(start + self.sinks, first)  # the first column that may have been dropped
            between = torch.arange(after, max(end - self.recent, after), device=keys.device)
            if self.mean and len(between):
                self.count[example] = len(between)
                self.mean_key[example] = keys[example][:, between - first].float().mean(1)
                self.mean_value[example] = values[example][:, between - first].float().mean(1)
        self._show_mean(torch.arange(n, device=keys.device))
        self.full = end - int(self.starts.max()) >= self.sinks + self.recent

    def _kept(self, first: int, start: int, end: int) -> Tensor:
        """The columns of [first, end) that stay once `end` columns were read, of a text that starts at `start`."""
        columns = torch.arange(first, end, device=self.keys.device)
        return columns[(columns < start + self.sinks) | (columns >= end - self.recent)]

    def _slots(self, columns: Tensor, starts: Tensor | int) -> Tensor:
        """Where columns belong."""
        place = columns - starts
        return self.mean + torch.where(place < self.sinks, place, self.sinks + columns % self.recent)

    def _place(self, example: int, columns: Tensor, keys: Tensor, values: Tensor, first: int) -> None:
        slots = self._slots(columns, int(self.starts[example]))
        self.keys[example, :, slots] = keys[example][:, columns - first]
        self.values[example, :, slots] = values[example][:, columns - first]
        self.columns[example, slots] = columns.int()

    def step(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, begin: int, attend: Attend) -> Tensor:  # noqa: D102
        if self.early is not None:
            if begin + q.shape[2] <= self.sinks + self.recent:
                return self.early.step(q, keys, values, mask, begin, attend)
            self._settle(self.early.keys[:, :, :begin], self.early.values[:, :, :begin], 0)
            self.early = None
        if q.shape[2] == 1:
            self._write(keys[:, :, 0], values[:, :, 0], begin)
            return attend(q, self.keys, self.values, self._mask(mask, q.dtype))
        if self.mean:  # the mean changes with each token that leaves, so that queries cannot be asked together
            each = [
                self.step(
                    q[:, :, i : i + 1], keys[:, :, i : i + 1], values[:, :, i : i + 1],
                    None if mask is None else mask[:, :, i : i + 1], begin + i, attend,
                )
                for i in range(q.shape[2])
            ]  # fmt: skip
            return torch.cat(each, 1)
        return self._together(q, keys, values, mask, begin, attend)

    def _together(
        self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, begin: int, attend: Attend
    ) -> Tensor:
        """Several queries at once: each sees, of what was held and of the new columns, its first and its recent ones."""
        new = torch.arange(begin, begin + q.shape[2], device=q.device)
        columns = torch.cat([self.columns.long(), new.expand(len(q), -1)], 1)[:, None]  # [example, 1, key]
        recent = columns > new[:, None] - self.recent
        first = columns < self.starts[:, None, None] + self.sinks
        seen = (columns >= 0) & (columns <= new[:, None]) & (recent | first)  # [example, query, key]
        held = torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
        z = attend(q, *held, _joined(_of_heads(mask, self.heads), seen, columns[:, 0]))
        end = begin + q.shape[2]
        for example, start in enumerate(self.starts.tolist()):
            self._place(example, self._kept(begin, start, end), keys, values, begin)
        self.full = end - int(self.starts.max()) >= self.sinks + self.recent
        return z

    def _write(self, key: Tensor, value: Tensor, column: int) -> None:
        """One column of every example, [example, group, d], in the place of the one that leaves."""
        rows = torch.arange(len(key), device=key.device)
        slots = self._slots(torch.full_like(self.starts, column), self.starts)
        if self.mean:
            leaves = self.columns[rows, slots] >= 0
            share = (leaves / (self.count + leaves).clamp(min=1))[:, None, None]
            self.mean_key += share * (self.keys[rows, :, slots].float() - self.mean_key)
            self.mean_value += share * (self.values[rows, :, slots].float() - self.mean_value)
            self.count += leaves
            self._show_mean(rows)
        self.keys[rows, :, slots], self.values[rows, :, slots] = key, value
        self.columns[rows, slots] = column
        if not self.full:
            self.full = column + 1 - int(self.starts.max()) >= self.sinks + self.recent

    def _show_mean(self, rows: Tensor) -> None:
        if self.mean:
            self.keys[rows, :, 0] = self.mean_key.to(self.keys.dtype)
            self.values[rows, :, 0] = self.mean_value.to(self.values.dtype)

    def _mask(self, mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What the query of the newest column sees of the slots; None: all alike."""
        if mask is None and self.full and not self.mean:
            return None
        found = _joined(_of_heads(mask, self.heads), (self.columns >= 0)[:, None], self.columns.long())
        if self.mean:
            found = additive(found, dtype).clone()
            found[..., 0] = self.count.log().clamp(min=torch.finfo(dtype).min)[:, None, None].to(dtype)
        elif found.dtype == torch.bool and found.device.type == "cpu" and bool(found.all()):
            return None  # torch's kernels without a mask are faster; elsewhere asking would wait for the device
        return found

    def pick(self, examples: Tensor) -> None:  # noqa: D102
        if self.early is not None:
            self.early.pick(examples)
            self.starts = self.starts.index_select(0, examples.to(self.starts.device))
            return
        super().pick(examples)
        for name in ("columns", "starts", "count", "mean_key", "mean_value"):
            x = getattr(self, name)
            setattr(self, name, x.index_select(0, examples.to(x.device)))


def _of_heads(mask: Tensor | None, heads: Tensor) -> Tensor | None:
    """A mask that differs by head (ALiBi's), for some heads."""
    return mask if mask is None or mask.shape[1] == 1 else mask[:, heads.to(mask.device)]


def _joined(mask: Tensor | None, seen: Tensor, columns: Tensor) -> Tensor:
    """[example, head or 1, query, key]: the model's mask at the columns [example, key] of the keys, where `seen` [example, query, key]."""
    if mask is None:
        return seen[:, None]
    at = columns.clamp(min=0)[:, None, None].expand(-1, mask.shape[1], mask.shape[2], -1)
    rows = mask.expand(len(columns), -1, -1, -1).gather(3, at)
    seen = seen[:, None]
    return rows & seen if mask.dtype == torch.bool else rows.masked_fill(~seen, torch.finfo(mask.dtype).min)
