"""How far back each group must look, by what each key is worth to the answer. Fu et al. 2024 (MoA, mixture of attention spans).

The worth of key j to query i is the first-order change of the loss when its weight A is taken away and the others of its row grow to
sum to one: E = -A (G - sum_n A_n G_n) / (1 - A), with G the gradient of the loss in A (section 4.2). What a span leaves out costs the
sum of E over it. Spans of all groups are then chosen together, one each, so that the sum is least within a budget of bytes:
an integer programme, solved exactly (scipy's HiGHS).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from headatlas.apply.kv_cache.recall import Asked, OwnAttention, ruled
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model import Model
from headatlas.model.holding.own import again
from headatlas.model.holding.span import LayerShape, Span
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent

WIDTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # recent tokens to choose from, beside everything
CLOSE = 1e-3  # how well pattern times values must give what the layer gives


def key_worth(
    model: Model, shapes: Sequence[LayerShape], texts: Sequence[Asked], progress: Progress | None = None
) -> list[Array]:
    """[layer][group, distance] what the keys at each distance (0: the query's own) are worth to the answer, in nats of a text's mean loss.

    Summed over the queries behind the text and over the heads of a group, mean over texts; positive: the loss rises without them. Distances are
    those of the longest text. Raises UnsupportedModel where z is not pattern times values.
    """
    progress = progress or Silent()
    longest = max(one.past.get_seq_length() + len(one.tokens) for one in texts)
    worth = [np.zeros((shape.n_groups, longest)) for shape in shapes]
    for one in texts:
        patterns: dict[int, Tensor] = {}

        def attention(
            layer: int,
            q: Tensor,
            k: Tensor,
            v: Tensor,
            mask: Tensor | None,
            own: OwnAttention,
            kept: dict[int, Tensor] = patterns,
        ) -> Tensor:
            found = model.layers[layer]
            scores = torch.matmul(q.unflatten(1, (k.shape[1], -1)).flatten(2, 3), k.transpose(-1, -2))
            scores = scores.unflatten(2, (-1, q.shape[2])).flatten(1, 2).float() * _scale(found, q)
            columns = torch.arange(k.shape[2], device=q.device)
            seen = columns <= torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device)[:, None]
            if mask is not None:
                seen = seen & (mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2)[0, 0]
            pattern = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            if not pattern.requires_grad:  # in the first layer, before anything was differentiated
                pattern.requires_grad_(True)
            kept[layer] = pattern
            z = torch.matmul(pattern.to(v.dtype).unflatten(1, (k.shape[1], -1)).flatten(2, 3), v)
            z = z.unflatten(2, (-1, q.shape[2])).flatten(1, 2).transpose(1, 2)
            with torch.no_grad():
                plain = own(mask)
                if not float((plain - z).abs().max()) < CLOSE * max(float(plain.abs().max()), 1.0):
                    raise UnsupportedModel(
                        f"Attention of layer {layer} of {model.name} is not its pattern times its values, so keys have no worth of their own.",
                        "Choose groups in another way: razor, retrieval, gates.",
                    )
            return z

        with torch.enable_grad(), ruled(model, attention) as hf:
            logits = hf(input_ids=one.tokens[None].to(model.device), past_key_values=again(one.past)).logits[0]
            wanted = one.tokens[one.wanted].to(model.device)
            loss = torch.nn.functional.cross_entropy(logits[one.wanted - 1].float(), wanted)
            gradients = torch.autograd.grad(loss, list(patterns.values()), allow_unused=True)
        for (layer, pattern), gradient in zip(patterns.items(), gradients, strict=True):
            if gradient is not None:
                worth[layer] += _by_distance(
                    _removal(pattern.detach(), gradient), shapes[layer].n_groups, longest
                ) / len(texts)
        progress.advance("worth of keys", of=len(texts))
    return worth


def _scale(layer: object, q: Tensor) -> float:
    scaling = getattr(getattr(layer, "module", None), "scaling", None)
    return float(scaling) if isinstance(scaling, (int, float)) else q.shape[-1] ** -0.5


def _removal(pattern: Tensor, gradient: Tensor) -> Tensor:
    """E [example, head, query, key] of a pattern and the gradient of the loss in it."""
    mean = (pattern * gradient).sum(-1, keepdim=True)
    return -pattern * (gradient - mean) / (1 - pattern).clamp(min=1e-6)


def _by_distance(worth: Tensor, n_groups: int, longest: int) -> Array:
    """[group, distance] of [1, head, query, key], where the last query stands at the last key."""
    _, _, n_queries, n_keys = worth.shape
    total = torch.zeros(n_groups, longest, dtype=torch.float64)
    by_group = worth[0].double().unflatten(0, (n_groups, -1)).sum(1).cpu()  # [group, query, key]
    for query in range(n_queries):
        own = n_keys - n_queries + query
        total[:, : own + 1] += by_group[:, query, : own + 1].flip(-1)
    return total.numpy()


def chosen_spans(
    shapes: Sequence[LayerShape], worth: Sequence[Array], *, keep: float, n_tokens: int, sinks: int = 4
) -> tuple[tuple[Span | None, ...], ...]:
    """[layer][group] the spans that leave out least, all together within `keep` times the bytes of the full cache. Raises BadInput.

    A choice for each group: the first `sinks` tokens and one of WIDTHS, or everything. What the first tokens are worth is not among
    what a span leaves out at its distance, so that a head's rest on them costs nothing.
    """
    places = [(layer, group) for layer, shape in enumerate(shapes) for group in range(shape.n_groups)]
    sizes, costs, options = [], [], []
    for layer, group in places:
        shape = shapes[layer]
        most = shape.seen(n_tokens)
        choices: list[Span | None] = [Span(sinks, width) for width in WIDTHS if width + sinks < most]
        for span in [*choices, None]:
            held = most if span is None else span.within(shape.window).sinks + span.recent
            left = 0.0 if span is None else float(worth[layer][group, span.recent : n_tokens - sinks].sum())
            sizes.append(held * shape.numbers)
            costs.append(max(left, 0.0))
            options.append((layer, group, span))
    full = sum(shape.seen(n_tokens) * shape.numbers * shape.n_groups for shape in shapes)
    one_each = np.zeros((len(places), len(options)))
    for number, (layer, group, _) in enumerate(options):
        one_each[places.index((layer, group)), number] = 1
    found = milp(
        np.asarray(costs) + 1e-12 * np.asarray(sizes) / full,  # of equal cost, the smaller
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(np.asarray(sizes)[None], ub=keep * full)],
        integrality=np.ones(len(options)), bounds=Bounds(0, 1), options={"mip_rel_gap": 1e-6, "time_limit": 60},
    )  # fmt: skip
    if found.x is None:
        raise BadInput(
            f"No choice of spans fits into {keep:g} of the full cache at {n_tokens} tokens.",
            f"Keep more: the least is {WIDTHS[0]} tokens a group.",
        )
    spans: list[list[Span | None]] = [[None] * shape.n_groups for shape in shapes]
    for (layer, group, span), taken in zip(options, found.x, strict=True):
        if taken > 0.5:
            spans[layer][group] = span
    return tuple(map(tuple, spans))
