"""Where heads attend in one text: their weights with the text's tokens, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.model.core.model_inputs import TakesInputs, model_inputs
from headatlas.model.core.view import LayerView
from headatlas.model.looking import attention_picture as picture
from headatlas.model.text.reading import one_of
from headatlas.ops.types import Array
from headatlas.render.escape import shown
from headatlas.render.numbers import count, number, show_size
from headatlas.store import write_text

MOST = 1 << 30  # bytes of all weights that are held
KINDS = (".html", ".svg", ".png")


class Watched(TakesInputs, Protocol):
    """What is asked of a model here; `Model` has it."""

    @property
    def heads(self) -> tuple[HeadId, ...]: ...  # noqa: D102
    @property
    def forward(self) -> Callable[..., Tensor]: ...  # noqa: D102
    def require(self, heads: Sequence[HeadId]) -> None: ...  # noqa: D102


@dataclass(frozen=True, repr=False)
class AttentionMap:
    """Where heads attend in one text.

    heads: in the order asked for. queries, keys: the tokens as text (those of cross-attention are two stacks'). weights:
    [head, query, key] after the softmax; rows sum to 1, to less where a learned sink takes part. value_weighted: the same times
    the length of what the key's value would write through the head's W_O (Kobayashi et al. 2020); None where what heads
    write is not defined. model: its name. start_end: how the text's tokens were made.
    """

    model: str
    heads: tuple[HeadId, ...]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    weights: Array
    value_weighted: Array | None
    start_end: str

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens that are attended to."""
        return self.keys

    @property
    def entropy(self) -> Array:
        """[head, query] entropy of each row in nats: 0 where one key gets all, log(keys) where all get the same."""
        w = self.weights
        return -(w * np.log(np.where(w > 0, w, 1.0))).sum(-1)

    def of(self, head: str | HeadId | tuple[int, int]) -> Array:
        """[query, key] the weights of one head. Raises BadInput for one that is not shown."""
        wanted = parse_heads(head)[0]
        if wanted not in self.heads:
            raise BadInput(f"Head {wanted} is not in this map.", f"It has {' '.join(map(str, self.heads[:8]))}.")
        return self.weights[self.heads.index(wanted)]

    def looks(self, query: int = -1, k: int = 5) -> dict[str, list[tuple[int, str, float]]]:
        """For each head the `k` keys that a query (default the last token) attends to most: (position, token, weight)."""
        if not -len(self.queries) <= query < len(self.queries):
            raise BadInput(f"There is no token {query}.", f"The text has {len(self.queries)} tokens.")
        rows = self.weights[:, query]
        best = np.argsort(-rows, axis=-1, kind="stable")[:, :k]
        return {
            str(head): [(int(key), self.keys[key], float(row[key])) for key in keys]
            for head, row, keys in zip(self.heads, rows, best, strict=True)
        }

    def summary(self) -> list[dict[str, Any]]:
        """For each head the mean weight of its queries on the first key, on themselves and on the token before; and the mean entropy.

        The first query is left out: it has nothing else to attend to in a decoder. None in cross-attention, whose keys are
        another text, for self and before.
        """
        found = []
        square = self.queries == self.keys
        for head, w, entropy in zip(self.heads, self.weights, self.entropy, strict=True):
            late = w[1:] if len(w) > 1 else w
            found.append(
                {
                    "head": str(head),
                    "first": float(late[:, 0].mean()),
                    "self": float(np.diagonal(w)[1:].mean()) if square and len(w) > 1 else None,
                    "before": float(np.diagonal(w, -1).mean()) if square and len(w) > 1 else None,
                    "entropy": float(entropy[1:].mean() if len(w) > 1 else entropy.mean()),
                }
            )
        return found

    def save(self, path: str | Path, *, value_weighted: bool = False) -> Path:
        """Write the picture: .html, .svg or .png (which needs matplotlib). Raises BadInput for another kind of file, StoreError."""
        place = Path(path)
        kind = place.suffix.lower()
        if kind not in KINDS:
            raise BadInput(f"'{place.name}' is no kind of picture that is known.", f"End it in {', '.join(KINDS)}.")
        drawing = self._drawing(value_weighted=value_weighted)
        if kind == ".png":
            picture.write_png(drawing, place)
        else:
            write_text(place, picture.page(drawing) if kind == ".html" else picture.svg(drawing))
        return place

    def _drawing(self, *, value_weighted: bool = False) -> picture.Drawing:
        if value_weighted and self.value_weighted is None:
            raise BadInput(
                "What these heads write is not defined, so there are no value-weighted maps.", "Leave it out."
            )
        weights = self.value_weighted if value_weighted and self.value_weighted is not None else self.weights
        captions = tuple(
            f"{head}" + ("" if len(self.heads) > 1 else f", {self._where(i)}") for i, head in enumerate(self.heads)
        )
        what = "attention times what it writes" if value_weighted else "attention"
        return picture.Drawing(f"{self.model}: {what}", captions, self.queries, self.keys, weights)

    def _where(self, i: int) -> str:
        """Where one head looks, in words."""
        one = self.summary()[i]
        names = (("first", "the first token"), ("self", "the token itself"), ("before", "the token before"))
        parts = [f"{number(one[key])} on {name}" for key, name in names if one[key] is not None]
        return f"{', '.join(parts)}, entropy {number(one['entropy'])} nats"

    def __repr__(self) -> str:
        lines = [
            f"AttentionMap({self.model}, {count(len(self.heads), 'head')}, {len(self.queries)} queries x {len(self.keys)} keys)"
        ]
        for i, head in enumerate(self.heads[:8]):
            last = ", ".join(
                f"{shown(token, lines=False)!r} {weight:.2f}" for _, token, weight in self.looks(k=3)[str(head)]
            )
            lines.append(f"  {head}: {self._where(i)}; from the last token: {last}")
        if len(self.heads) > 8:
            lines.append(f"  and {len(self.heads) - 8} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return picture.fragment(self._drawing())


@torch.no_grad()
def attention_map(model: Watched, batch: Any, heads: Heads) -> AttentionMap:
    """Where `heads` attend in one text, given in any way that `forward` takes. Raises BadInput for several texts or stacks."""
    chosen = parse_heads(heads, model.heads)
    model.require(chosen)
    stacks = {head.stack for head in chosen}
    if len(stacks) > 1:
        raise BadInput(
            f"Heads of {' and '.join(sorted(stacks))} attend to other tokens.", "Look at one stack at a time."
        )
    one = one_of(batch, model.tokenizer)
    inputs, _, start_end = model_inputs(model, one)
    stack = next(iter(stacks))
    decoder = inputs.get("decoder_input_ids", inputs["input_ids"])
    sides = {"decoder": decoder, "encoder": inputs["input_ids"]}
    ids = {
        "query": sides["decoder" if stack == "cross" else stack][0],
        "key": sides["encoder" if stack == "cross" else stack][0],
    }
    size = 4 * len(chosen) * len(ids["query"]) * len(ids["key"])
    if size > MOST:
        raise BadInput(
            f"The weights of {len(chosen)} heads on this text take {show_size(size)}.",
            "Name fewer heads, or cut the text.",
        )
    weights: dict[HeadId, Tensor] = {}
    written: dict[HeadId, Tensor] = {}
    valid: dict[str, Tensor] = {}

    def watch(layer: LayerView) -> None:
        mine = [head for head in chosen if (head.stack, head.layer) == (layer.stack, layer.index)]
        if not mine:
            return
        index = torch.tensor([head.head for head in mine], device=layer.q.device)

        def whole(rows: Tensor, _: Tensor) -> Tensor:  # keys that no query of the block sees may be left out of it
            return torch.nn.functional.pad(rows[:, index].float(), (0, layer.n_keys - rows.shape[-1]))

        weights.update(zip(mine, layer.reduce(whole)[0].cpu(), strict=True))
        if layer.attention.linear:
            written.update(zip(mine, _lengths(layer, mine), strict=True))
        valid["query"], valid["key"] = layer.valid_queries[0].cpu(), layer.valid_keys[0].cpu()

    model.forward(one, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    rows, columns = valid["query"], valid["key"]
    found = torch.stack([weights[head] for head in chosen])[:, rows][:, :, columns]
    lengths = torch.stack([written[head] for head in chosen])[:, columns] if len(written) == len(set(chosen)) else None
    pieces = {name: tuple(model.tokenizer.pieces(ids[name][valid[name]].tolist())) for name in ids}
    weighted = None if lengths is None else (found * lengths[:, None]).numpy()
    return AttentionMap(model.name, chosen, pieces["query"], pieces["key"], found.numpy(), weighted, start_end)


def _lengths(layer: LayerView, heads: Sequence[HeadId]) -> list[Tensor]:
    """For each head [key] the length of what each value would write: |v W_O|, by way of W_O W_O^T, which is small."""
    found = []
    for head in heads:
        out = layer.W_O[head.head].float()
        v = layer.v[0, layer.kv_group(head.head)].float()
        found.append(((v @ (out @ out.T)) * v).sum(-1).clamp(min=0).sqrt().cpu())
    return found
