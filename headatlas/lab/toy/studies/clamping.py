"""Labels that are new in each text: which part of an induction head holds up the others? Singh et al. 2024.

As in optogenetics, parts of the head are clamped to what they end up doing while the rest learns. Exemplars are random
vectors in place of images; labels are drawn anew for each text, so that only the context tells them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from headatlas.heads import HeadId
from headatlas.lab.measure import attend, without
from headatlas.lab.toy.probes import by_head
from headatlas.lab.toy.study import Claim, Panel, Runs, Study, Variant, held_out
from headatlas.lab.training.interventions import Intervention
from headatlas.lab.training.loop import Measure
from headatlas.lab.training.models import small_llama
from headatlas.lab.training.options import TrainOptions

_CLASSES, _LABELS, _WIDTH, _BATCH, _EXAMPLES = 50, 5, 64, 128, 512
_PREVIOUS = Intervention((HeadId(0, 0),), "clamp", pattern="previous-token")
_MATCH = Intervention((HeadId(1, 0),), "clamp", pattern="induction")


def _texts(n: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """([n, 5] exemplar, label, exemplar, label, query; [n] the right label), two classes and two labels in each text."""
    classes = torch.rand(n, _CLASSES, generator=chance).topk(2).indices
    labels = torch.rand(n, _LABELS, generator=chance).topk(2).indices
    which = torch.randint(2, (n, 1), generator=chance)
    shown = torch.stack([classes, labels + _CLASSES], -1).flatten(1)
    return torch.cat([shown, classes.gather(1, which)], 1), labels.gather(1, which)[:, 0]


def _label_logits(model: Any, texts: Tensor) -> Tensor:
    """[n, label] logits at the query."""
    logits: Tensor = model(texts).logits[:, -1, _CLASSES:]
    return logits


def _copied(model: Any, texts: Tensor) -> Tensor:
    """[n, label] what a perfect copier would say: the query's attention scores in layer 2, on the labels of the text."""
    scores = model(texts, output_attentions=True).attentions[1][:, 0, -1]
    placed = torch.full((len(texts), _LABELS), -1e4)
    return placed.scatter(1, texts[:, [1, 3]] - _CLASSES, scores[:, [1, 3]].clamp(min=1e-30).log())


Said = Callable[[Any, Tensor], Tensor]


def _measure(said: Said) -> Callable[[int], Measure]:
    def measure(seed: int) -> Measure:
        texts, right = _texts(_EXAMPLES, held_out(seed))
        first = (texts[:, 0] == texts[:, 4]).long()  # whether the first pair is the one asked about

        def measured(model: Any) -> dict[str, float]:
            logits = said(model, texts)
            patterns, _ = attend(model, texts)
            query = patterns[1][:, :, -1]  # [n, head, key]
            on_first, on_second = query[:, :, 1], query[:, :, 3]
            strength = torch.where(first[:, None].bool(), on_first - on_second, on_second - on_first).mean(0)
            previous = torch.stack([patterns[0][:, :, 1, 0], patterns[0][:, :, 3, 2]]).mean((0, 1))
            return {
                "held-out loss": float(cross_entropy(logits, right)),
                "accuracy": float((logits.argmax(-1) == right).float().mean()),
                **by_head("induction strength", 1, strength.tolist()),
                **by_head("previous token", 0, previous.tolist()),
            }

        return measured

    return measure


def _variant(
    name: str, heads: int, interventions: tuple[Intervention, ...] = (), said: Said = _label_logits, steps: int = 800
) -> Variant:
    def make(seed: int) -> Any:
        model = small_llama(_CLASSES + _LABELS, 5, _WIDTH, heads, seed=seed)
        chance = torch.Generator().manual_seed(seed)
        model.model.embed_tokens.weight.data.copy_(
            torch.randn(_CLASSES + _LABELS, _WIDTH, generator=chance) / _WIDTH**0.5
        )
        model.model.embed_tokens.weight.requires_grad_(False)
        model.set_attn_implementation("eager")
        return model

    def objective(model: Any, chance: torch.Generator) -> Tensor:
        texts, right = _texts(_BATCH, chance)
        return cross_entropy(said(model, texts), right)

    return Variant(name, make, objective, TrainOptions(steps), _measure(said), interventions)


def _time(runs: Runs, name: str) -> float:
    return max(runs[name].reaches("accuracy", 0.9), 1)


def _never(runs: Runs, name: str) -> float:
    """The step of 90 % right; where that is never reached, the last step, which it is later than."""
    return min(_time(runs, name), runs[name].steps[-1])


def _strong(runs: Runs) -> float:
    run = runs["full"]
    return sum(run.last(f"induction strength 1.{head}") > 0.3 for head in range(_FULL))


def _plateau(runs: Runs) -> float:
    """How many times later the model is 90 % right than 45 %, which knowing the two labels of the text gives."""
    return _time(runs, "full") / max(runs["full"].reaches("accuracy", 0.45), 1)


def _alone(runs: Runs, *, all_of_them: bool) -> float:
    """Accuracy without the strongest induction head, or without all of layer 2."""
    model, measure = runs["full"].model, _measure(_label_logits)(0)
    strengths = [runs["full"].last(f"induction strength 1.{head}") for head in range(_FULL)]
    strongest = HeadId(1, strengths.index(max(strengths)))
    heads = [HeadId(1, head) for head in range(_FULL)] if all_of_them else [strongest]
    with torch.no_grad(), without(model, *heads):
        return measure(model)["accuracy"]


_FULL = 8
_CLAMPED = {
    "none": ((), _label_logits),
    "previous": ((_PREVIOUS,), _label_logits),
    "match": ((_MATCH,), _label_logits),
    "copy": ((), _copied),
    "previous+copy": ((_PREVIOUS,), _copied),
}
clamping = Study(
    name="clamping",
    about="two exemplars with labels that are new in each text, and a query",
    paper="singh-2024-what-needs-to-go-right",
    variants=(
        _variant("full", _FULL),
        *(_variant(name, 1, interventions, said) for name, (interventions, said) in _CLAMPED.items()),
    ),
    claims=(
        Claim("accuracy of the whole model at the end", lambda r: r["full"].last("accuracy"), least=0.95),
        Claim("plateau where only the two labels are known: step of 90 % right over that of 45 %", _plateau, least=2.0),
        Claim("several induction heads form: heads of layer 2 with a strength above 0.3", _strong, least=2.0),
        Claim("they add up: accuracy without the strongest one", lambda r: _alone(r, all_of_them=False), least=0.7),
        Claim("accuracy without all of them", lambda r: _alone(r, all_of_them=True), most=0.6),
        Claim("layer 1 and copying clamped together beat each alone: step of 90 % right over the soonest alone",
              lambda r: _never(r, "previous+copy") / min(_never(r, one) for one in ("previous", "match", "copy")), most=0.9),
        Claim("one part clamped helps: soonest alone over none clamped",
              lambda r: min(_never(r, one) for one in ("previous", "match", "copy")) / _never(r, "none"), most=1.0),
    ),
    panels=(
        Panel("held-out loss of the whole model (nats)", {"all heads": ("full", "held-out loss")},
              {"two labels known": 0.693, "no label known": 1.609}),
        Panel("whole model: best head", {"induction strength": ("full", "induction strength"),
                                         "previous token": ("full", "previous token")}),
        Panel("accuracy with parts clamped, one head a layer", {name: (name, "accuracy") for name in _CLAMPED}),
    ),
    ablated="held-out loss",
)  # fmt: skip
