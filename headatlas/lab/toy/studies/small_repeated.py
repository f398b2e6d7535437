"""The toy `repeated`, smaller, for trainings over many seeds: do detectors name the heads that matter, when they come to matter?"""

from typing import Any

from headatlas.lab.measure import attend
from headatlas.lab.toy.data import repeated_tokens
from headatlas.lab.toy.probes import losses
from headatlas.lab.toy.repeats import COPYING_PANEL, Sizes, copying, trained_on_repeats
from headatlas.lab.toy.study import Claim, Panel, Study, held_out
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.options import TrainOptions

_SIZES, _EXAMPLES = Sizes(vocab=64, length=48, width=48, heads=2, batch=32), 48


def _measure(seed: int) -> Measure:
    tokens = repeated_tokens(_EXAMPLES, _SIZES.length, _SIZES.vocab, held_out(seed))
    attention = copying(tokens)

    def measured(model: Any) -> dict[str, float]:
        patterns, logits = attend(model, tokens)
        return {"late": float(losses(logits, tokens)[:, -16:].mean()), **attention(patterns)}

    return measured


small_repeated = Study(
    name="small-repeated",
    about="64 tokens, random ones again and again; a model that trains in seconds",
    paper="olsson-2022-induction-heads",
    variants=(trained_on_repeats(_SIZES, TrainOptions(1000, learning_rate=4e-3), _measure),),
    claims=(
        Claim("late loss at the end (nats; it is 4.14 without context)", lambda r: r["plain"].last("late"), most=1.0),
        Claim("prefix matching of the best head at the end", lambda r: r["plain"].last("prefix matching"), least=0.5),
    ),
    panels=(
        Panel("late loss (nats)", {"late tokens": ("plain", "late")}),
        COPYING_PANEL,
    ),
    ablated="late",
)  # fmt: skip
