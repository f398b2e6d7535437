"""Relevance of heads for the token that a model chooses, by layer-wise relevance propagation (Bach et al. 2015; Voita et al. 2019).

How what a logit is made of is handed back, step by step:

1. A linear map hands to each input its share w x of what came out (the epsilon rule with epsilon at 0), and its bias keeps its
   own share. That is gradient times input, so one backward pass does all linear maps, and sums of several at once.
2. A function of single numbers (GELU, ReLU ...) hands back what it got (`_elementwise`). Where its output is a factor of a gated
   MLP it is held fixed, and the other factor gets everything (Arras et al. 2017).
3. A norm is linear with its scale held at the value of this run (`_normed`; Ali et al. 2022).
4. Attention patterns are held fixed: a head's output is a weighted sum of values (Ali et al. 2022). Voita et al. hand relevance
   on through the softmax too; that changes what lower layers get, not the rule at a head.

Under these rules the logit is a sum over embeddings and biases (Euler's theorem for functions of degree 1). That sum is taken in
every run, and a model for which it is not the logit, such as one that caps its logits or weighs experts, is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import LayerView, Model
from headatlas.model.core.hooks import Args, Kwargs, own_hooks
from headatlas.model.core.linear_and_norm import is_linear, is_norm, norm_gain
from headatlas.model.runs.shared_pass import demand_gradients
from headatlas.ops.types import LayerKey
from headatlas.task import Batch, Metric

ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")
LOST = 1e-3  # of the sizes of all parts: what rounding may lose between the logits and their parts


class _Held:
    """An edit that holds attention patterns fixed: no gradient flows through them."""

    component = "pattern"
    heads: tuple[HeadId, ...] = ()

    def __init__(self, model: Model) -> None:
        self.layers = frozenset((layer.stack, layer.index) for layer in model.layers)

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        return x.detach()


def relevances(model: Model, batch: Batch, metric: Metric) -> tuple[dict[LayerKey, Tensor], int]:
    """((stack, layer) -> relevance [example, position, head], how many logits it is handed back from).

    Explained are the largest logits at the positions that `metric` reads, summed. Raises UnsupportedModel for a model whose
    logits these rules do not take apart whole.
    """
    if not model.has_logits:
        raise UnsupportedModel(f"{model.name} chooses no token, so there is no logit to take apart.")
    demand_gradients(model)
    at = metric.positions(batch).expand(len(batch), -1)
    values: dict[LayerKey, Tensor] = {}

    def watch(layer: LayerView) -> None:
        values[layer.stack, layer.index] = layer.z

    with model.exclusive(), torch.enable_grad(), _rules(model, batch) as sources:
        logits = model.forward(batch, watch=watch, edits=[_Held(model)], logit_positions=at, grad=True)
        chosen = logits.float().amax(-1)[at.to(logits.device) >= 0]
        parts = [*sources, *_biases(model.hf)]
        slopes = torch.autograd.grad(chosen.sum(), [*values.values(), *parts], allow_unused=True)
    of_parts = [
        (part.detach().double() * slope.double()).sum()
        for part, slope in zip(parts, slopes[len(values) :], strict=True)
        if slope is not None
    ]
    whole, sizes = float(chosen.detach().double().sum()), float(chosen.detach().double().abs().sum())
    if abs(float(sum(of_parts)) - whole) > LOST * max(sizes, sum(abs(float(part)) for part in of_parts)):
        raise UnsupportedModel(
            f"The logits of {model.name} are not the sum of what LRP hands back ({float(sum(of_parts)):.4g} of {whole:.4g}).",
            "Something in it is neither linear, nor a norm, nor an activation; method 'mask' needs no such thing.",
        )
    found = {
        key: torch.zeros(z.shape[:3]) if slope is None else (z.detach().double() * slope.double()).sum(-1).cpu()
        for (key, z), slope in zip(values.items(), slopes, strict=False)
    }
    return found, len(chosen)


@contextlib.contextmanager
def _rules(model: Model, batch: Batch) -> Iterator[list[Tensor]]:
    """While in force, a backward pass is LRP; yields what embeddings put out in the pass that follows, from which it starts."""
    factors, widths = _watched(model, batch)
    gains = {norm: norm_gain(norm, width) for norm, width in widths.items()}  # asked before hooks of ours are there
    sources: list[Tensor] = []

    def embedded(module: nn.Module, _: Args, __: Kwargs, output: Tensor) -> Tensor:
        sources.append(output.detach().requires_grad_(True))
        return sources[-1]

    def activated(module: nn.Module, inputs: Args, _: Kwargs, output: Tensor) -> Tensor:
        return output.detach() if module in factors else _elementwise(inputs[0], output)

    def normed(module: nn.Module, inputs: Args, _: Kwargs, output: Tensor) -> Tensor:
        return _normed(inputs[0], output, *gains[module], getattr(module, "bias", None))

    frozen = [part for part in model.hf.parameters() if part.ndim == 1 and not part.requires_grad]
    try:
        for part in frozen:
            part.requires_grad_(True)
        with own_hooks() as hooks:
            for module in model.hf.modules():
                if isinstance(module, nn.Embedding):
                    hooks.after(module, embedded)
                elif module in gains:
                    hooks.after(module, normed)
                elif _is_activation(module):
                    hooks.after(module, activated)
            yield sources
    finally:
        for part in frozen:
            part.requires_grad_(False)


def _watched(model: Model, batch: Batch) -> tuple[set[nn.Module], dict[nn.Module, int]]:
    """What a run shows: activations whose output no linear map reads, and the width of each norm.

    Such an activation is multiplied by something, as in gated MLPs.
    """
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # kept alive, so that no address is used twice
    read: set[nn.Module] = set()
    widths: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: Args, __: Kwargs, output: Tensor) -> None:
        made[output.data_ptr()] = module, output

    def asked(module: nn.Module, inputs: Args, _: Kwargs) -> None:
        given = inputs[0] if inputs else None
        if isinstance(given, Tensor) and given.data_ptr() in made:
            read.add(made[given.data_ptr()][0])
        if isinstance(given, Tensor) and is_norm(module):
            widths[module] = given.shape[-1]

    with own_hooks() as hooks:
        for module in model.hf.modules():
            if _is_activation(module):
                hooks.after(module, note)
            elif is_linear(module) or is_norm(module):
                hooks.before(module, asked)
        model.forward(batch.rows(slice(0, 1)))
    return {module for module, _ in made.values()} - read, widths


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ in ACTIVATIONS or type(module).__name__ == "BloomGelu"


def _with_slope_of(output: Tensor, other: Tensor) -> Tensor:
    """The value of `output` with the gradient of `other`."""
    return output.detach() + (other - other.detach())


def _elementwise(x: Tensor, output: Tensor) -> Tensor:
    """f(x) as x times the fixed factor f(x) / x."""
    small = torch.full_like(x, 1e-12).copysign(x)
    return _with_slope_of(output, x * (output / torch.where(x.abs() < 1e-12, small, x)).detach())


def _normed(x: Tensor, output: Tensor, gain: Tensor, centres: bool, bias: Tensor | None) -> Tensor:
    """A norm as a linear map: x, centred where it centres, times its gain and the fixed scale of each row, plus its bias."""
    straight = (x - x.mean(-1, keepdim=True) if centres else x) * gain.to(x.dtype)
    with torch.no_grad():
        rest = output if bias is None else output - bias
        scale = (rest * straight).sum(-1, keepdim=True) / (straight * straight).sum(-1, keepdim=True).clamp(min=1e-30)
    linear = straight * scale
    return _with_slope_of(output, linear if bias is None else linear + bias)


def _biases(module: nn.Module) -> list[Tensor]:
    """The parameters that are added to something: each keeps its own share of what comes out."""
    return [part for name, part in module.named_parameters() if part.ndim == 1 and name.rpartition(".")[2] == "bias"]
