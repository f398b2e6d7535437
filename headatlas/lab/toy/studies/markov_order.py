"""Chains that hang on the two states before: two layers of one head count what followed a pair, one layer cannot. Ekbote et al. 2025.

The paper shows by construction that two layers with one head each suffice for chains of any order where three were thought
to be needed: the first head gathers the last states, MLP and normalisation tell them apart, and the second head attends to
what followed the same ones.
"""

from typing import Any

import torch
from torch import Tensor

from headatlas.lab.measure import attend
from headatlas.lab.toy.data import chains_of_order, contexts, counting, counting_after, followers
from headatlas.lab.toy.probes import losses, next_token_loss
from headatlas.lab.toy.study import Claim, Panel, Runs, Study, Variant, held_out, order
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.models import small_gpt2
from headatlas.lab.training.options import TrainOptions

_STATES, _ORDER, _LENGTH, _WIDTH, _BATCH, _EXAMPLES, _LAST = 2, 2, 65, 32, 64, 256, 20
_COUNTS = ("states", "transitions", "pairs")  # what is counted, the simplest first


def _drawn(n: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """([n, context, next state] tables of their own for each text, even over all; [n, length] chains)."""
    tables = -torch.rand(n, _STATES**_ORDER, _STATES, generator=chance).log()
    tables = tables / tables.sum(-1, keepdim=True)
    return tables, chains_of_order(tables, _ORDER, _LENGTH, chance)


def _measure(seed: int) -> Measure:
    tables, chains = _drawn(_EXAMPLES, held_out(seed))
    here = contexts(chains, _STATES, _ORDER)[:, :-1].clamp(min=0)
    truth = tables.gather(1, here[..., None].expand(-1, -1, _STATES))
    guesses = {
        "states": counting(chains, _STATES)["unigram"],
        "transitions": counting_after(chains, _STATES, 1),
        "pairs": counting_after(chains, _STATES, 2),
    }
    followed = {count: followers(chains, _STATES, count) for count in (1, 2)}

    def divergence(p: Tensor, log_q: Tensor) -> float:
        return float((p * (p.log() - log_q)).sum(-1)[:, -_LAST:].mean())

    levels = {name: divergence(truth, guess.log()) for name, guess in guesses.items()}

    def measured(model: Any) -> dict[str, float]:
        patterns, logits = attend(model, chains)
        said = logits[:, :-1].log_softmax(-1)
        from_truth = divergence(truth, said)
        first, last = (one[:, 0, -_LAST:] for one in (patterns[0], patterns[-1]))
        places = torch.arange(_LENGTH)
        near = (places[-_LAST:, None] - places).abs() <= _ORDER
        return {
            "held-out loss": float(losses(logits, chains).mean()),
            "KL truth": from_truth,
            **{f"KL {name}": divergence(guess, said) for name, guess in guesses.items()},
            "way to pairs": (levels["transitions"] - from_truth) / (levels["transitions"] - levels["pairs"]),
            "layer 1 on the last states": float((first * near).sum(-1).mean()),
            **{f"last layer on what followed {count}": float((last * followed[count][:, -_LAST:]).sum(-1).mean())
               for count in followed},
        }  # fmt: skip

    return measured


def _variant(name: str, layers: int, *, mlp: bool) -> Variant:
    return Variant(
        name,
        lambda seed: small_gpt2(_STATES, _LENGTH, _WIDTH, 1, layers=layers, mlp=4 * _WIDTH if mlp else 0, seed=seed),
        lambda model, chance: next_token_loss(model, _drawn(_BATCH, chance)[1]),
        TrainOptions(2000, learning_rate=3e-3, decay="cosine"),
        _measure,
    )


def _nearest(runs: Runs, name: str) -> float:
    """The step at which the model of two layers is nearest to a way of counting."""
    run = runs["two-layers"]
    values = run.series(f"KL {name}")
    return run.steps[values.index(min(values))]


markov_order = Study(
    name="markov-order",
    about="chains of two states in which each hangs on the two before it, each text with its own table",
    paper="ekbote-2025-any-order-markov",
    variants=(
        _variant("two-layers", 2, mlp=True),
        _variant("one-layer", 1, mlp=True),
        _variant("without-mlps", 2, mlp=False),
    ),
    claims=(
        Claim("two layers of one head count pairs: share of the way from counting transitions to counting pairs (by KL to "
              "the truth on the last 20 states)", lambda r: r["two-layers"].last("way to pairs"), least=0.8),
        Claim("one layer does not: its share of that way", lambda r: r["one-layer"].last("way to pairs"), most=0.5),
        Claim("layer 1 looks at the state and the two before it", lambda r: r["two-layers"].last("layer 1 on the last states"),
              least=0.6),
        Claim("layer 2 looks at what followed these two states", lambda r: r["two-layers"].last("last layer on what followed 2"),
              least=0.6),
        Claim("states, then transitions, then pairs: steps nearest to counting them (share of neighbours in order)",
              lambda r: order(*(_nearest(r, name) for name in _COUNTS)), least=1.0),
        Claim("without MLPs less of the way is gone: the share without over the share with",
              lambda r: r["without-mlps"].last("way to pairs") / r["two-layers"].last("way to pairs"), most=0.95),
    ),
    panels=(
        Panel("KL from ways of counting to two layers (nats, last 20 states)",
              {name: ("two-layers", f"KL {name}") for name in (*_COUNTS, "truth")}),
        Panel("way from counting transitions to counting pairs",
              {"two layers": ("two-layers", "way to pairs"), "one layer": ("one-layer", "way to pairs"),
               "without MLPs": ("without-mlps", "way to pairs")}),
        Panel("two layers: attention", {"layer 1, last states": ("two-layers", "layer 1 on the last states"),
                                        "after the pair": ("two-layers", "last layer on what followed 2"),
                                        "after the state": ("two-layers", "last layer on what followed 1")}),
    ),
    ablated="held-out loss",
)  # fmt: skip
