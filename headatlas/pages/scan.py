"""One pass over a corpus in which every head's reading is counted, with one layer in memory at a time.

Of each stretch of `every` positions one, drawn by chance, is a sampled query: its rows of attention are formed by the model's own
code, and all that is kept of them are sums, the strongest events, and a random sample of events that is the same for all
heads. None of it grows with the corpus. An *event* is one head at one sampled query.

A head that has nothing to do attends to a key whose value writes next to nothing (attention sinks). Resting places are
start and end tokens, the first position of a window, and for each head the keys whose value would write (|v W_O|) less
than RESTS of the median over the window's tokens: in many models the sinks of some layers are certain words of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import LayerView, Model
from headatlas.model.core.forward_pass import Edit
from headatlas.ops.types import LayerKey
from headatlas.pages.corpus import Corpus
from headatlas.pages.kinds import PAIRS, PARTITION, Relations, columns, relations_of
from headatlas.progress import Progress, Silent
from headatlas.task import Batch

EVERY = 8  # positions of which one is a sampled query
BATCH = 2048  # tokens of a forward pass
STRONGEST = 12  # events that are kept for their strength, of each head
SAMPLE = 1024  # random events that are kept of each head
_POOL = 128 << 20  # bytes that the random events of all heads may take; of large models fewer are kept
_KEPT = (columns()["partition"], columns()["pairs"])  # groups of columns that are kept of single events
_BY_CHANCE = columns()["known"].stop  # columns whose chance level is taken: partition, kinds, any kind
WIDTH = len(PARTITION) + len(PAIRS)
RESTS = 0.25  # of the length that a head's values usually write: a key that would write less is a place to rest on
HALF = 0.5  # of an event's attention: from there on it counts as being of a kind, or as resting
_TINY = 1e-30  # so little attention adds nothing to an entropy
STEP = "read"


@dataclass(frozen=True)
class Settings:
    """What is read and how: every and seed decide which queries are sampled; sample: how many random events are kept of a head."""

    every: int = EVERY
    seed: int = 0
    sample: int = SAMPLE


@dataclass
class Counts:
    """What a scan has counted over `batches` batches; all of the state that an interrupted scan goes on from.

    n: events of each head. mass [head, column]: sums of attention over events, columns as in `kinds.columns`. chance: the
    same (of partition and kinds) if each event's attention beside resting places were spread evenly over the other keys that it can see. rest (start:
    the part of it on start and end tokens and first positions), entropy (nats), uniform (entropy of an even row), write (length
    of what the head writes) [head]: sums. met [head, kind, 4]: events that
    could be of a kind (a key of it can be seen), of these those that are by half or more, those that rest by half or more, and
    their attention to it. z: sums of z, a row of `width` numbers a head. top, top_event [head, k], [head, k, 2]: strongest
    events, (window, position). pool [head, event, column], pool_rest, pool_entropy, pool_write [head, event]: the random events
    pool_event [event, 2], with the numbers pool_draw [event] by which they were drawn (the smallest stay).
    """

    batches: int
    arrays: dict[str, Tensor] = field(repr=False)

    @classmethod
    def empty(cls, model: Model, settings: Settings) -> Counts:
        """Nothing counted yet."""
        heads, width = len(model.heads), sum(group.stop - group.start for group in columns().values())
        size = max(64, min(settings.sample, _POOL // (heads * WIDTH * 2)))
        d = max(layer.output_weight().shape[1] for layer in model.layers)
        double = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in {
            "n": (1,), "mass": (heads, width), "chance": (heads, width), "rest": (heads,), "start": (heads,), "entropy": (heads,), "uniform": (heads,),
            "write": (heads,), "met": (heads, len(PAIRS), 4), "z": (heads, d),
        }.items()}  # fmt: skip
        kept = {
            "top": torch.full((heads, STRONGEST), -1.0),
            "top_event": torch.full((heads, STRONGEST, 2), -1),
            "pool": torch.zeros(heads, size, WIDTH, dtype=torch.float16),
            "pool_rest": torch.zeros(heads, size),
            "pool_entropy": torch.zeros(heads, size),
            "pool_write": torch.zeros(heads, size),
            "pool_event": torch.full((size, 2), -1),
            "pool_draw": torch.full((size,), 2.0, dtype=torch.float64),
        }
        return cls(0, {**double, **kept})

    def __getattr__(self, name: str) -> NDArray[np.float64]:
        arrays = self.__dict__.get("arrays", {})
        if name not in arrays:
            raise AttributeError(name)
        found: NDArray[np.float64] = arrays[name].numpy()
        return found


def demand_scannable(model: Model) -> None:
    """Raise UnsupportedModel for what is not scanned: encoder-decoders, and heads whose write is not linear in z."""
    if len(model.stacks) > 1:
        raise UnsupportedModel(
            f"{model.name} has {len(model.stacks)} stacks of attention, which read two texts; pages are made of models with one.",
            "Ask for a decoder or an encoder.",
        )
    for layer in model.layers:
        layer.require_linear()


def batches(corpus: Corpus, length: int = BATCH) -> Iterator[range]:
    """The numbers of the windows of each batch, of `length` tokens at most but for a single window."""
    size = max(1, length // corpus.length)
    for start in range(0, len(corpus.windows), size):
        yield range(start, min(start + size, len(corpus.windows)))


def sampled(length: int, number: int, settings: Settings) -> Tensor:
    """[query] the sampled positions of batch `number`: in each stretch of `every` positions one, drawn by chance."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
    starts = torch.arange(0, length, settings.every)
    found = starts + torch.randint(settings.every, (len(starts),), generator=generator)
    return found[found < length]


def draws(shape: tuple[int, int], number: int, settings: Settings) -> Tensor:
    """[window, query] a random number for each event of batch `number`; the events with the smallest ones are kept."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + number + (1 << 40))
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def scan(
    model: Model,
    corpus: Corpus,
    settings: Settings,
    counts: Counts | None = None,
    *,
    edits: Sequence[Edit] = (),
    progress: Progress | None = None,
) -> Iterator[Counts]:
    """Read a corpus, batch by batch; yields the counts, one object that goes on growing, after each batch.

    counts: what an interrupted scan had counted, to go on from. edits: in force while it reads. Raises UnsupportedModel.
    """
    demand_scannable(model)
    progress = progress or Silent()
    found = Counts.empty(model, settings) if counts is None else counts
    places, start = {}, 0
    for layer in model.layers:
        places[layer.stack, layer.index] = slice(start, start + layer.n_heads)
        start += layer.n_heads
    grams = {(layer.stack, layer.index): _gram(layer.output_weight().float()) for layer in model.layers}
    todo = list(batches(corpus))
    for number, windows in enumerate(todo):
        if number < found.batches:
            progress.advance(STEP, len(windows), len(corpus.windows))
            continue
        batch = corpus.batch(windows)
        queries = sampled(batch.tokens.shape[1], number, settings)
        part = _Part(
            found, corpus, batch, windows, queries, draws((len(windows), len(queries)), number, settings), places, grams
        )
        first = torch.zeros(1, dtype=torch.long)  # logits are not asked for: one position is the least
        model.forward(batch, watch=part.watch, edits=edits, logit_positions=first)
        found.batches = number + 1
        progress.advance(STEP, len(windows), len(corpus.windows))
        yield found


def _gram(weight: Tensor) -> Tensor:
    """[head, d_value, d_value] W_O W_O^T of weights [head, d_value, d_model]: the length of z W_O is sqrt(z W_O W_O^T z)."""
    return weight @ weight.mT


class _Part:
    """One batch's way through the layers."""

    def __init__(
        self,
        counts: Counts,
        corpus: Corpus,
        batch: Batch,
        windows: range,
        queries: Tensor,
        draw: Tensor,
        places: Mapping[LayerKey, slice],
        grams: Mapping[LayerKey, Tensor],
    ) -> None:
        self.a, self.places, self.grams = counts.arrays, places, grams
        self.what: Relations = relations_of(corpus, windows, batch.tokens, queries)
        self.seen: dict[int, tuple[Tensor | None, Tensor, Tensor]] = {}
        self.text = (corpus.column(windows, "kind", batch.tokens.shape[1]) >= 0)[:, None]  # [window, 1, key]
        kept = self.what.kept.flatten()
        self.kept = kept.nonzero()[:, 0]
        self.event = torch.stack(
            [
                torch.arange(windows.start, windows.stop)[:, None].expand(-1, len(queries)),
                queries.expand(len(windows), -1),
            ],
            -1,
        ).flatten(0, 1)[self.kept]  # [event, (window, position)]
        self.a["n"] += len(self.kept)
        # Which of the batch's events enter the random sample, and whose slots they take: the same for all layers.
        known, fresh = self.a["pool_draw"], draw.flatten()[self.kept]
        order = torch.cat([known, fresh]).argsort(stable=True)[: len(known)]
        self.entering = order[order >= len(known)] - len(known)
        staying = torch.zeros(len(known), dtype=torch.bool)
        staying[order[order < len(known)]] = True
        self.slots = (~staying).nonzero()[:, 0]
        self.a["pool_draw"][self.slots] = fresh[self.entering]
        self.a["pool_event"][self.slots] = self.event[self.entering]

    def visible(self, layer: LayerView) -> tuple[Tensor, Tensor]:
        """[window, query, key] 1 for keys that can be seen beside start and end tokens and the first position, and [window x query] how many are seen in all.

        Layers with the same mask share it: the mask is held, so that its id stays its own.
        """
        name = id(layer.mask)
        if name not in self.seen:
            queries, keys = self.what.queries.to(layer.q.device), torch.arange(layer.n_keys, device=layer.q.device)
            shape = len(queries), layer.n_keys
            allowed = layer.allowed(queries[None, :, None].expand(1, *shape), keys[None, None].expand(1, *shape))[:, 0]
            if layer.causal:
                allowed = allowed & (keys <= queries[:, None])
            allowed = allowed & layer.valid_keys[:, None]
            beside = allowed & ~self.what.resting[:, None].to(keys.device)
            self.seen[name] = layer.mask, beside.float(), allowed.sum(-1).flatten()
        return self.seen[name][1:]

    def short(self, layer: LayerView, gram: Tensor) -> Tensor:
        """[window, head, key] which keys of text write next to nothing by each head, so that it rests on them."""
        v = layer.repeat(layer.v).float()
        length = ((v @ gram) * v).sum(-1).clamp(min=0).sqrt()
        usual = length.masked_fill(~self.text.to(v.device), torch.nan).nanmedian(-1, keepdim=True).values
        return (length < RESTS * usual) & ~self.what.resting[:, None].to(v.device)

    def watch(self, layer: LayerView) -> None:
        """Count a layer's events."""
        here, device = self.places[layer.stack, layer.index], layer.q.device
        queries, gram = self.what.queries.to(device), self.grams[layer.stack, layer.index].to(device)
        rows = layer.rows(queries).float().transpose(1, 2)  # [window, query, head, key]
        free = (~self.short(layer, gram)).float()[:, None]
        seen, n_seen = self.visible(layer)
        masses = self.what.sums((rows * free).flatten(0, 1))  # [window x query, head, column]
        start = masses[..., 0].clone()  # the partition's column of start and end tokens and first positions
        # The same product for keys that can be seen: where attention would fall if they were alike.
        even = (seen[:, :, None] * free).flatten(0, 1)
        chance = self.what.chance(even) / even.sum(-1, keepdim=True).clamp(min=1)
        # -sum p log p; torch.special.entr, which is the same, takes five times as long.
        entropy = -rows.clamp(min=_TINY).log_().mul_(rows).sum(-1).flatten(0, 1)
        uniform = n_seen.clamp(min=1).log()
        z = layer.z[:, queries].flatten(0, 1).float()  # [window x query, head, d_value]
        write = torch.einsum("nhd,hde,nhe->nh", z, gram, z).clamp(min=0).sqrt()
        masses, chance, entropy, start, uniform, z, write = (
            x.cpu()[self.kept] for x in (masses, chance, entropy, start, uniform, z, write)
        )
        masses[..., 0] = 1 - masses[..., 1 : len(PARTITION)].sum(
            -1
        )  # resting places, and a learned sink's part of the row
        rest = masses[..., 0]
        self._add(
            here, masses, chance, {"entropy": entropy, "start": start, "write": write, "uniform": uniform[:, None]}, z
        )
        self._strongest(here, (1 - rest).clamp(min=0) * write)
        enter, slots = self.entering, self.slots
        kept = torch.cat([masses[enter][..., group] for group in _KEPT], -1).transpose(0, 1)
        self.a["pool"][here, slots] = kept.half()
        for name, values in (("pool_rest", rest), ("pool_entropy", entropy), ("pool_write", write)):
            self.a[name][here, slots] = values[enter].T

    def _add(self, here: slice, masses: Tensor, chance: Tensor, sums: Mapping[str, Tensor], z: Tensor) -> None:
        """The sums over events: masses, chance [event, head, column], others [event, head] by name, z [event, head, d_value]."""
        rest = masses[..., 0]
        self.a["mass"][here] += masses.double().sum(0)
        self.a["chance"][here, :_BY_CHANCE] += ((1 - rest)[..., None] * chance).double().sum(0)
        for name, values in {"rest": rest, **sums}.items():
            self.a[name][here] += values.double().sum(0)
        self.a["z"][here, : z.shape[-1]] += z.double().sum(0)
        pairs = columns()["pairs"]
        able, mass = chance[..., pairs] > 0, masses[..., pairs]
        met = torch.stack([able, able & (mass >= HALF), able & (rest >= HALF)[..., None]], -1)
        self.a["met"][here, :, :3] += met.double().sum(0)
        self.a["met"][here, :, 3] += mass.double().sum(0)

    def _strongest(self, here: slice, strength: Tensor) -> None:
        """Keep the strongest events of each head: strength [event, head]."""
        known = self.a["top"][here]
        best, index = torch.cat([known, strength.T], 1).topk(known.shape[1], dim=1)
        events = torch.cat([self.a["top_event"][here], self.event.expand(len(known), -1, -1)], 1)
        self.a["top"][here] = best
        self.a["top_event"][here] = events.gather(1, index[..., None].expand(-1, -1, 2))


def mean_z(model: Model, counts: Counts) -> dict[LayerKey, Tensor]:
    """(stack, layer) -> [head, d_value] the mean output of each head over the events: what stands in for a removed head."""
    found, start = {}, 0
    for layer in model.layers:
        width = layer.output_weight().shape[1]
        found[layer.stack, layer.index] = (
            counts.arrays["z"][start : start + layer.n_heads, :width] / counts.arrays["n"]
        ).float()
        start += layer.n_heads
    return found


def number_of(model: Model, head: HeadId) -> int:
    """Which row of the counts a head has."""
    return model.heads.index(head)
