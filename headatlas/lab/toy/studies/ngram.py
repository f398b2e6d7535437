"""Chains in which a token hangs on the two before it: a generalised induction head picks its features. Chen & Sheen 2024.

The model is the paper's own, in plain torch, since no architecture of transformers has its parts: heads that see relative
positions alone, products of what heads copy as features, and one softmax over the past that compares features.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from headatlas.lab.toy.data import chains_of_order, contexts
from headatlas.lab.toy.study import Claim, Panel, Runs, Study, Variant, held_out
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.options import TrainOptions

_STATES, _LENGTH, _PARENTS, _ALPHA, _BATCH, _EXAMPLES = 3, 80, 2, 0.1, 128, 512
_HEADS, _DEGREE = 3, 2
_BIAS = 2.0  # w+: by how much head h prefers the token h + 1 back at first, which breaks the symmetry of heads
_SETS = [group for size in range(1, _DEGREE + 1) for group in itertools.combinations(range(_HEADS), size)]
_TRUE = _SETS.index((0, 1))


def _chains(n: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """([n, length] chains whose tokens hang on the two before them, [n, state] the distribution of the token that follows)."""
    rows = torch.distributions.Dirichlet(torch.full((_STATES,), _ALPHA))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(1 << 40, (1,), generator=chance)))
        tables = rows.sample((n, _STATES**_PARENTS))
    tokens = chains_of_order(tables, _PARENTS, _LENGTH, chance)
    return tokens, tables[torch.arange(n), contexts(tokens, _STATES, _PARENTS)[:, -1]]


class _GeneralisedInduction(nn.Module):
    """Layer 1: head h copies x[l - j] with weight softmax(offsets[h])[j - 1]. Features: for each set S of at most two heads
    the product of their copies, weighted by c[S] squared, over the sum of all where normed. Layer 2: attention of strength
    a from the token to come to all places, by how alike their features are; it averages the tokens there.
    """

    def __init__(self, seed: int, *, normed: bool) -> None:
        super().__init__()
        self.normed = normed
        chance = torch.Generator().manual_seed(seed)
        self.offsets = nn.Parameter(_BIAS * torch.eye(_HEADS) + 0.01 * torch.rand(_HEADS, _HEADS, generator=chance))
        self.c = nn.Parameter(0.3 + 0.01 * torch.rand(len(_SETS), generator=chance))
        self.a = nn.Parameter(torch.tensor(0.01))

    def features(self) -> Tensor:
        """[set] the weight of each product of heads."""
        squares = self.c.square()
        return squares / squares.sum() if self.normed else squares

    def forward(self, tokens: Tensor) -> Tensor:
        """[n, state] the distribution of the token behind `tokens` [n, length]."""
        x = one_hot(tokens, _STATES).float()
        back = torch.stack(
            [x[:, _HEADS - j : _LENGTH + 1 - j] for j in range(1, _HEADS + 1)], 2
        )  # [n, place, j, state]
        copies = torch.einsum(
            "hj,nljs->nlhs", self.offsets.softmax(-1), back
        )  # place l holds what precedes token l + HEADS
        alike = torch.einsum("nlhs,nhs->nlh", copies[:, :-1], copies[:, -1])
        products = torch.stack([alike[..., list(group)].prod(-1) for group in _SETS], -1)
        pattern = (self.a * (products @ self.features())).softmax(-1)
        return torch.einsum("nl,nls->ns", pattern, x[:, _HEADS:])


def _loss(said: Tensor, wanted: Tensor) -> Tensor:
    return -(wanted * (said + 1e-3).log()).sum(-1).mean()


def _measure(seed: int) -> Measure:
    tokens, wanted = _chains(_EXAMPLES, held_out(seed))

    def measured(model: Any) -> dict[str, float]:
        features = model.features() / model.features().sum()
        rival = max(float(features[i]) for i in range(len(_SETS)) if i != _TRUE)
        offsets = model.offsets.softmax(-1)
        return {
            "held-out loss": float(_loss(model(tokens), wanted)),
            "true parents": float(features[_TRUE]),
            "best rival": rival,
            "head 0 one back": float(offsets[0, 0]),
            "head 1 two back": float(offsets[1, 1]),
            "a": float(model.a * model.features().sum()),
        }

    return measured


def _save(model: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "weights.safetensors")
    about = {"heads": _HEADS, "sets": [list(group) for group in _SETS], "normed": model.normed, "states": _STATES}
    (folder / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def _variant(name: str, *, normed: bool) -> Variant:
    def objective(model: Any, chance: torch.Generator) -> Tensor:
        tokens, wanted = _chains(_BATCH, chance)
        return _loss(model(tokens), wanted)

    return Variant(
        name,
        lambda seed: _GeneralisedInduction(seed, normed=normed),
        objective,
        TrainOptions(2000, learning_rate=1e-2, weight_decay=0.0),
        _measure,
        save=_save,
    )


def _ratio(runs: Runs, name: str) -> float:
    return runs[name].last("true parents") / runs[name].last("best rival")


ngram = Study(
    name="ngram",
    about="chains of three states in which each token hangs on the two before it",
    paper="chen-2024-unveiling-induction-heads",
    variants=(_variant("plain", normed=True), _variant("unnormed", normed=False)),
    claims=(
        Claim("features: weight of the true parents' product over the next best", lambda r: _ratio(r, "plain"), least=3.0),
        Claim("head 0 copies the token one back", lambda r: r["plain"].last("head 0 one back"), least=0.9),
        Claim("head 1 copies the token two back", lambda r: r["plain"].last("head 1 two back"), least=0.9),
        Claim("attention of layer 2 sharpens last: the step at which a is halfway over that of the features",
              lambda r: r["plain"].halfway("a") / r["plain"].halfway("true parents"), least=1.0),
        Claim("loss falls, as a share of what it was", lambda r: r["plain"].last("held-out loss") / r["plain"].series("held-out loss")[0],
              most=0.7),
        Claim("without normalisation features are picked less cleanly: the ratio there over the ratio with it",
              lambda r: _ratio(r, "unnormed") / _ratio(r, "plain"), most=0.9),
    ),
    panels=(
        Panel("weight of products of heads", {"true parents": ("plain", "true parents"), "best rival": ("plain", "best rival"),
                                              "true, unnormed": ("unnormed", "true parents")}),
        Panel("layer 1: share of a head's attention", {"head 0 one back": ("plain", "head 0 one back"),
                                                       "head 1 two back": ("plain", "head 1 two back")}),
        Panel("strength of layer 2", {"a": ("plain", "a")}),
        Panel("held-out loss (nats)", {"normed": ("plain", "held-out loss"), "unnormed": ("unnormed", "held-out loss")}),
    ),
)  # fmt: skip
