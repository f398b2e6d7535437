"""Markov chains that are new in each text: first states are counted, then transitions. Edelman et al. 2024."""

from typing import Any

import torch
from torch import Tensor

from headatlas.lab.measure import attend
from headatlas.lab.toy.data import chains_of, counting, transitions
from headatlas.lab.toy.probes import back, by_head, losses, matching, next_token_loss, shares
from headatlas.lab.toy.study import Claim, Panel, Study, Variant, held_out
from headatlas.lab.training.loop import Measure, Training
from headatlas.lab.training.models import small_gpt2
from headatlas.lab.training.options import TrainOptions

_STATES, _LENGTH, _WIDTH, _BATCH, _EXAMPLES, _LAST = 3, 101, 32, 32, 128, 20


def _drawn(n: int, chance: torch.Generator, *, doubly: bool) -> tuple[Tensor, Tensor]:
    rows = transitions(n, _STATES, chance, doubly=doubly)
    return rows, chains_of(rows, _LENGTH, chance)


def _measure(seed: int, *, doubly: bool) -> Measure:
    rows, chains = _drawn(_EXAMPLES, held_out(seed), doubly=doubly)
    truth = rows.gather(1, chains[:, :-1, None].expand(-1, -1, _STATES))
    guesses = counting(chains, _STATES)
    wanted, previous = matching(chains), back(chains)

    def divergence(p: Tensor, log_q: Tensor) -> float:
        return float((p * (p.log() - log_q)).sum(-1)[:, -_LAST:].mean())

    def measured(model: Any) -> dict[str, float]:
        patterns, logits = attend(model, chains)
        said = logits[:, :-1].log_softmax(-1)
        return {
            "held-out loss": float(losses(logits, chains).mean()),
            "KL truth": divergence(truth, said),
            **{f"KL {name}": divergence(guess, said) for name, guess in guesses.items()},
            **by_head("prefix matching", 1, shares(patterns[1], wanted)),
            **by_head("previous token", 0, shares(patterns[0], previous)),
        }

    return measured


def _variant(name: str, *, doubly: bool) -> Variant:
    return Variant(
        name,
        lambda seed: small_gpt2(_STATES, _LENGTH, _WIDTH, 1, seed=seed),
        lambda model, chance: next_token_loss(model, _drawn(_BATCH, chance, doubly=doubly)[1]),
        TrainOptions(1500, learning_rate=3e-3),
        lambda seed: _measure(seed, doubly=doubly),
    )


def _nearest(run: Training, name: str) -> float:
    """The step at which the model is nearest to a way of counting."""
    values = run.series(f"KL {name}")
    return run.steps[values.index(min(values))]


def _lead(run: Training, first: str, second: str) -> float:
    """How many times later the model is nearest to the second way of counting than to the first."""
    return _nearest(run, second) / max(_nearest(run, first), 1)


def _third(run: Training) -> float:
    """The first step at which the divergence from the truth is a third of what it was."""
    return run.falls_to("KL truth", run.series("KL truth")[0] / 3)


markov = Study(
    name="markov",
    about="chains of three states, each text with its own transition matrix",
    paper="edelman-2024-statistical-induction",
    variants=(_variant("plain", doubly=False), _variant("doubly-stochastic", doubly=True)),
    claims=(
        Claim("unigram before bigram: the step nearest to counting transitions over that nearest to counting states",
              lambda r: _lead(r["plain"], "unigram", "bigram"), least=1.5),
        Claim("KL to counting states at its nearest (nats)", lambda r: min(r["plain"].series("KL unigram")), most=0.03),
        Claim("KL to the truth on the last 20 states (counting states 0.169, transitions 0.029)",
              lambda r: r["plain"].last("KL truth"), most=0.05),
        Claim("held-out loss (counting states 1.004, transitions 0.887)",
              lambda r: r["plain"].last("held-out loss"), most=0.91),
        Claim("layer 1 looks one back", lambda r: r["plain"].last("previous token"), least=0.4),
        Claim("layer 2 looks at what followed this state", lambda r: r["plain"].last("prefix matching"), least=0.8),
        Claim("layer 2 is aligned before layer 1: steps at which they are halfway, the first over the second",
              lambda r: r["plain"].halfway("prefix matching") / r["plain"].halfway("previous token"), most=1.0),
        Claim("where counting states tells nothing, transitions are learned sooner: step with KL to the truth at a "
              "third of its start, doubly stochastic over plain",
              lambda r: _third(r["doubly-stochastic"]) / _third(r["plain"]), most=1.0),
    ),
    panels=(
        Panel("KL from ways of counting to the model (nats, last 20 states)",
              {name: ("plain", f"KL {name}") for name in ("uniform", "unigram", "bigram", "truth")}),
        Panel("KL from the truth (nats)", {"plain": ("plain", "KL truth"),
                                           "doubly stochastic": ("doubly-stochastic", "KL truth")}),
        Panel("attention", {"previous token": ("plain", "previous token"),
                            "what followed this state": ("plain", "prefix matching")}),
    ),
    ablated="held-out loss",
)  # fmt: skip
