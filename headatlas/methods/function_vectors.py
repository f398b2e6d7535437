"""Function vectors: what heads write at the last token of a prompt of examples, averaged over prompts, names the task. Todd et al. 2024.

The indirect effect of a head is how much an answer's probability rises when that average is put in its place in prompts
whose examples contradict each other. The sum of what the best heads write, added to the residual stream of a prompt
without any example, should make the model do the task: that is the test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import Add, Mean
from headatlas.edits.collect import pieces
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.model import Model
from headatlas.model.runs.residual_stream import Writes, visit_blocks
from headatlas.model.structure.blocks import blocks_of
from headatlas.ops import stats
from headatlas.ops.types import Array, LayerKey
from headatlas.task import HELD_OUT, Batch, Metric, accuracy, find_task

SKILL = 0.4  # share of prompts that a model must get right for its averages to say anything of a task


def _probability(logits: Tensor, batch: Batch) -> Tensor:
    last = logits[:, 0].float()
    answers = batch.answer.reshape(len(batch), -1)
    # Not a softmax of everything: with large vocabularies and many runs at once that is gigabytes.
    chance = (last.gather(-1, answers.clamp(min=0)) - last.logsumexp(-1, keepdim=True)).exp()
    return (chance * (answers >= 0)).sum(1)


# Probability of the answer's first token at positions["end"].
answer_probability = Metric("answer probability", lambda b: b.positions["end"].reshape(-1, 1), _probability, True, "")


@dataclass(frozen=True, eq=False)
class Ends:
    """What a model computes at the last token of each prompt of a batch.

    z: (stack, layer) -> [example, head, d_value]. writes: (stack, layer) -> [head, d_model], what each head adds to the
    residual stream there (after the norm behind the attention, where there is one), averaged over the examples in `right`.
    right: [example] whether the most likely next token is the answer.
    """

    z: Mapping[LayerKey, Tensor]
    writes: Mapping[LayerKey, Tensor]
    right: Tensor

    def mean(self, chosen: Tensor | None = None) -> dict[LayerKey, Tensor]:
        """(stack, layer) -> [head, d_value] the mean of z over chosen [example] examples (bool); None: all."""
        return {place: (z if chosen is None else z[chosen]).mean(0) for place, z in self.z.items()}


@torch.no_grad()
def ends(model: Model, batch: Batch) -> Ends:
    """Run a batch and keep what is at its ends; the batch needs an answer and positions["end"]. Raises UnsupportedModel."""
    blocks = blocks_of(model)
    z: dict[LayerKey, list[Tensor]] = {}
    total: dict[LayerKey, Tensor] = {}
    right: list[Tensor] = []
    for part in pieces(batch):
        found: dict[LayerKey, Tensor] = {}

        def each(writes: Writes, found: dict[LayerKey, Tensor] = found) -> None:
            layer = writes.block.attention
            if writes.z is not None and layer is not None:
                found[layer.stack, layer.index] = writes.heads()[:, 0]
                z.setdefault((layer.stack, layer.index), []).append(writes.z[:, 0].float())

        end = part.positions["end"].reshape(-1, 1).to(model.device)
        logits = visit_blocks(model, blocks, part, end, each, logit_positions=end)
        good = accuracy.score(logits.cpu(), part) > 0
        right.append(good)
        for place, written in found.items():
            total[place] = total.get(place, 0.0) + written[good.to(written.device)].sum(0)
    good = torch.cat(right)
    writes = {place: value / max(int(good.sum()), 1) for place, value in total.items()}
    return Ends({place: torch.cat(parts) for place, parts in z.items()}, writes, good)


def indirect_effects(model: Model, batch: Batch, means: Sequence[Mapping[LayerKey, Tensor]]) -> list[Array]:
    """[example, head] rise of the answer's probability when a head's output at the end is replaced by a mean.

    The prompts that run are the batch's counterfactual (the same examples with their labels in other places); the answers
    are the batch's. means: (stack, layer) -> [head, d_value]; a result for each. Raises BadInput.
    """
    assert batch.counterfactual is not None
    bench = CachedRuns(model, batch, answer_probability, run_on=batch.counterfactual)
    where = batch.positions["end"].reshape(-1, 1)
    runs = [[Mean([head], mean, positions=where)] for mean in means for head in model.heads]
    rise = (bench.measure(runs) - bench.clean).T
    return list(rise.reshape(len(batch), len(means), len(model.heads)).transpose(1, 0, 2))


def vector_of(heads: Iterable[HeadId], writes: Mapping[LayerKey, Tensor]) -> Tensor:
    """[d_model] the function vector: the sum of what these heads write on average (see `Ends.writes`)."""
    return torch.stack([writes[head.stack, head.layer][head.head] for head in heads]).sum(0)


def layer_for(model: Model) -> int:
    """The block whose input a function vector is added to unless told: three fifths of the way up.

    Todd et al. 2024 add it at a third of GPT-J's depth; in small models it works higher up (docs/detectors/answers.md).
    """
    return round(0.6 * model.n_layers)


class Injection:
    """A metric on prompts without examples when heads' summed vector is added to the stream at the end of each.

    writes: see `Ends`. layer: the block whose input gets the vector, default `layer_for`. Raises BadInput.
    """

    def __init__(
        self, model: Model, batch: Batch, metric: Metric, writes: Mapping[LayerKey, Tensor], layer: int | None = None
    ) -> None:
        self.model, self.metric, self.writes = model, metric, writes
        self.layer = layer_for(model) if layer is None else layer
        self._where = batch.positions["end"].reshape(-1, 1)
        self._bench = CachedRuns(model, batch, metric)
        self._known: dict[frozenset[HeadId], Array] = {}

    @property
    def clean(self) -> Array:
        """[example] the metric without any vector."""
        return self._bench.clean

    def measure(self, sets: Sequence[Iterable[HeadId]], scale: float = 1.0) -> Array:
        """[set, example] the metric with the vector of each set of heads, times scale, added."""
        return self._added([(self.layer, vector_of(heads, self.writes) * scale) for heads in sets])

    def by_layer(self, heads: Iterable[HeadId]) -> dict[int, Array]:
        """Layer -> [example] the metric with the heads' vector added at the input of that layer's block, attention layers only."""
        vector, layers = vector_of(heads, self.writes), sorted({layer.index for layer in self.model.layers})
        return dict(zip(layers, self._added([(layer, vector) for layer in layers]), strict=True))

    def _added(self, what: Sequence[tuple[int, Tensor]]) -> Array:
        stack = self.model.stacks[0]
        runs = [[Add((stack, layer), x, component="residual", positions=self._where)] for layer, x in what]
        return self._bench.measure(runs)

    def metric_drop(self, heads: Iterable[HeadId]) -> Array:
        """[example] how much worse the metric is without the vector of these heads than with it."""
        key = frozenset(heads)
        if key not in self._known:
            self._known[key] = self.metric.worse(self.clean - self.measure([sorted(key)])[0])
        return self._known[key]


@dataclass(frozen=True)
class Transfer:
    """What the summed vector of some heads does on prompts without examples, next to vectors of as many random heads.

    accuracy, with_vector: share of prompts whose most likely next token is the answer, without and with the vector added at
    `layer`. gain: their difference, with its 95% interval low to high over prompts. random_gains: one for each random set.
    """

    task: str
    layer: int
    n: int
    accuracy: float
    with_vector: float
    gain: float
    low: float
    high: float
    random_gains: tuple[float, ...]


def transfer(
    model: Model, name: str, heads: Heads, layer: int, *, n: int = 24, draws: int = 10, seed: int = 0
) -> Transfer:
    """Do the heads' averages over prompts of the in-context task `name` make the model do it on held-out words without examples?

    n: prompts for the average and to test on; random heads stand in the same layers. Raises UnknownName, UnfitTask.
    """
    heads = parse_heads(heads, model.heads)
    model.require(heads)
    writes = ends(model, find_task(f"icl-{name}")(model.tokenizer, n, seed)).writes
    bare = find_task(f"icl-{name}-zero-shot{HELD_OUT}")(model.tokenizer, n, seed)
    injection = Injection(model, bare, accuracy, writes, layer)
    rng = np.random.default_rng(seed)
    free = sorted(set(model.heads) - set(heads))
    found = injection.measure([heads, *(matched(heads, free, rng) for _ in range(draws))])
    gains = found - injection.clean
    low, high = stats.interval(gains[0][:, None], seed=seed)
    return Transfer(
        name, layer, len(bare), float(injection.clean.mean()), float(found[0].mean()), float(gains[0].mean()),
        float(low[0]), float(high[0]), tuple(gains[1:].mean(1).tolist()),
    )  # fmt: skip


def gain_by_layer(model: Model, name: str, heads: Heads, *, n: int = 24, seed: int = 0) -> dict[int, float]:
    """Layer -> how much the vector of `heads`, added there, raises accuracy on the task's own words without examples.

    These are the words that averages and heads come from, so a layer may be chosen by them and `transfer`, on the words held
    out, still be a test. Raises UnknownName, UnfitTask.
    """
    heads = parse_heads(heads, model.heads)
    model.require(heads)
    writes = ends(model, find_task(f"icl-{name}")(model.tokenizer, n, seed)).writes
    bare = find_task(f"icl-{name}-zero-shot")(model.tokenizer, n, seed)
    injection = Injection(model, bare, accuracy, writes)
    return {layer: float((found - injection.clean).mean()) for layer, found in injection.by_layer(heads).items()}


def without(batch: Batch, answers: Tensor) -> Batch:
    """The examples whose answers are not among `answers`, so that averages over them do not give these away."""
    same = torch.isin(batch.answer.reshape(len(batch), -1), answers.flatten()).any(1)
    return batch.rows(~same)
