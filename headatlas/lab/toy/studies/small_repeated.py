"""The toy `repeated`, smaller, for trainings over many seeds: do detectors name the heads that matter, when they come to matter?"""

from typing import Any

from headatlas.lab.measure import attend
from headatlas.lab.toy.data import repeated_tokens
from headatlas.lab.toy.probes import back, by_head, losses, matching, next_token_loss, shares
from headatlas.lab.toy.study import Claim, Panel, Study, Variant, held_out
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.models import small_gpt2
from headatlas.lab.training.options import TrainOptions

_VOCAB, _LENGTH, _WIDTH, _HEADS, _BATCH, _EXAMPLES = 64, 48, 48, 2, 32, 48


def _measure(seed: int) -> Measure:
    tokens = repeated_tokens(_EXAMPLES, _LENGTH, _VOCAB, held_out(seed))
    wanted, previous = matching(tokens), back(tokens)

    def measured(model: Any) -> dict[str, float]:
        patterns, logits = attend(model, tokens)
        return {
            "late": float(losses(logits, tokens)[:, -16:].mean()),
            **by_head("prefix matching", 1, shares(patterns[1], wanted)),
            **by_head("previous token", 0, shares(patterns[0], previous)),
        }

    return measured


small_repeated = Study(
    name="small-repeated",
    about="64 tokens, random ones again and again; a model that trains in seconds",
    paper="olsson-2022-induction-heads",
    variants=(
        Variant(
            "plain",
            lambda seed: small_gpt2(_VOCAB, _LENGTH, _WIDTH, _HEADS, seed=seed, bos=0),
            lambda model, chance: next_token_loss(model, repeated_tokens(_BATCH, _LENGTH, _VOCAB, chance)),
            TrainOptions(1000, learning_rate=4e-3),
            _measure,
        ),
    ),
    claims=(
        Claim("late loss at the end (nats; it is 4.14 without context)", lambda r: r["plain"].last("late"), most=1.0),
        Claim("prefix matching of the best head at the end", lambda r: r["plain"].last("prefix matching"), least=0.5),
    ),
    panels=(
        Panel("late loss (nats)", {"late tokens": ("plain", "late")}),
        Panel("attention of the best head", {"previous token": ("plain", "previous token"),
                                             "prefix matching": ("plain", "prefix matching")}),
    ),
    ablated="late",
)  # fmt: skip
