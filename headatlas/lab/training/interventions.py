"""What is done with heads of a model while it trains: clamp their attention, switch them off, hold their weights, hold them down."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.choices import INTERVENTION, PATTERN
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.construct import targets
from headatlas.lab.measure import projection, without
from headatlas.model.given import demand_numbers

_PATH = "headatlas_clamped"  # the attention that transformers is told to use while patterns are clamped
# layer -> (head, clamped pattern [example, query, key], its share) of the pass that is under way
_Clamps = dict[int, list[tuple[int, Tensor, float]]]
_CLAMPS: ContextVar[_Clamps] = ContextVar("clamps")


@dataclass(frozen=True)
class Intervention:
    """What is done with some heads in the steps start <= step < stop of a training; stop None: to its end.

    how: "clamp": attention is `pattern`, mixed with the head's own where strength < 1; gradients flow to all that is left
    free (the "optogenetics" of Singh et al. 2024). "ablate": the head writes nothing. "freeze": its weights stay what they
    were at `start`. "regularise": strength times the mean square of what the head hands to its output projection is
    added to the loss. pattern: "previous-token", "induction" (evenly on tokens that follow an earlier copy of this one),
    "current" or "first"; a query without such a key attends to the first token.
    """

    heads: tuple[HeadId, ...]
    how: str
    start: int = 0
    stop: int | None = None
    pattern: str = "previous-token"
    strength: float = 1.0

    def __post_init__(self) -> None:
        demand_numbers(self)
        INTERVENTION.demand(self.how)
        PATTERN.demand(self.pattern)
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise BadInput(f"Steps {self.start} to {self.stop} are none.", "Name a first step and a later last one.")
        if self.how == "clamp" and not 0 < self.strength <= 1:
            raise BadInput(f"Attention cannot be clamped by {self.strength:g}.", "Choose a share above 0, at most 1.")

    def holds(self, step: int) -> bool:
        """Whether it is in force at a step."""
        return step >= self.start and (self.stop is None or step < self.stop)

    def __str__(self) -> str:
        what = f"{self.how} {' '.join(map(str, self.heads))}"
        detail = {"clamp": f" to {self.pattern}", "regularise": f" by {self.strength:g}"}.get(self.how, "")
        return f"{what}{detail}, steps {self.start} to {'the end' if self.stop is None else self.stop}"


def wanted_pattern(name: str, tokens: Tensor) -> Tensor:
    """[example, query, key] the clamped attention of that name on `tokens` [example, pos]; rows sum to 1."""
    distance = targets.distance(tokens)
    if name == "induction":
        previous = torch.full_like(tokens, -1)
        previous[:, 1:] = tokens[:, :-1]
        chosen = targets.same(tokens, previous)
    else:
        chosen = {"previous-token": distance == 1, "current": distance == 0, "first": distance < 0}[name].clone()
    chosen[..., 0] |= ~chosen.tril().any(-1)
    shares = chosen.tril().float()
    return shares / shares.sum(-1, keepdim=True)


@contextlib.contextmanager
def in_force(model: Any, interventions: Sequence[Intervention], step: int) -> Iterator[Callable[[], Tensor | float]]:
    """One training step with these interventions; yields what gives the penalty to add to the loss.

    Weights of frozen heads are put back when the step ends. Raises BadInput for heads that the model lacks.
    """
    now = [one for one in interventions if one.holds(step)]
    penalties: list[Tensor] = []
    held = [(view, view.clone()) for one in now if one.how == "freeze" for head in one.heads
            for view in weights_of(model, head)]  # fmt: skip
    with contextlib.ExitStack() as stack:
        off = [head for one in now if one.how == "ablate" for head in one.heads]
        if off:
            stack.enter_context(without(model, *off))
        for one in now:
            if one.how == "regularise":
                for head in one.heads:
                    stack.callback(_penalised(model, head, one.strength, penalties).remove)
        clamps = [one for one in now if one.how == "clamp"]
        if clamps:
            stack.enter_context(_clamped(model, clamps))
        yield lambda: torch.stack(penalties).sum() if penalties else 0.0
    for view, before in held:
        view.copy_(before)


def demand_heads(model: Any, interventions: Sequence[Intervention]) -> None:
    """Raise BadInput where an intervention names a head that the model lacks."""
    for head in (head for one in interventions for head in one.heads):
        config = model.config
        if not (head.layer < config.num_hidden_layers and head.head < config.num_attention_heads):
            raise BadInput(
                f"There is no head {head}.",
                f"The model has {config.num_hidden_layers} layers of {config.num_attention_heads} heads.",
            )


def weights_of(model: Any, head: HeadId) -> list[Tensor]:
    """Views into the weights of one head of a GPT-2 or Llama: queries, keys, values (biases too), output.

    Where heads share keys and values, those of its group.
    """
    out, width = projection(model, head.layer)
    own = slice(head.head * width, (head.head + 1) * width)
    if model.config.model_type == "gpt2":
        fused, size = model.transformer.h[head.layer].attn.c_attn, model.config.hidden_size
        parts = [slice(own.start + i * size, own.stop + i * size) for i in range(3)]
        columns = [fused.weight.data[:, part] for part in parts] + [fused.bias.data[part] for part in parts]
        return [*columns, out.weight.data[own]]
    attention = model.model.layers[head.layer].self_attn
    group = head.head // (model.config.num_attention_heads // model.config.num_key_value_heads)
    shared = slice(group * width, (group + 1) * width)
    rows = [attention.k_proj.weight.data[shared], attention.v_proj.weight.data[shared]]
    return [attention.q_proj.weight.data[own], *rows, out.weight.data[:, own]]


def _penalised(model: Any, head: HeadId, strength: float, found: list[Tensor]) -> Any:
    module, width = projection(model, head.layer)

    def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
        z = inputs[0][..., head.head * width : (head.head + 1) * width]
        found.append(strength * z.square().mean())

    return module.register_forward_pre_hook(hook)


@contextlib.contextmanager
def _clamped(model: Any, clamps: Sequence[Intervention]) -> Iterator[None]:
    """Let the model attend by `_attend`, which is told before each pass what to put in the place of which patterns."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(_PATH, _attend)
    AttentionMaskInterface.register(_PATH, eager_mask)

    def tell(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs["input_ids"]
        told: _Clamps = {}
        for one in clamps:
            pattern = wanted_pattern(one.pattern, tokens)
            for head in one.heads:
                told.setdefault(head.layer, []).append((head.head, pattern, one.strength))
        _CLAMPS.set(told)

    before, token = model.config._attn_implementation, _CLAMPS.set({})
    handle = model.register_forward_pre_hook(tell, with_kwargs=True)
    model.config._attn_implementation = _PATH  # the setter would load what it takes for a kernel's name
    try:
        yield
    finally:
        handle.remove()
        model.config._attn_implementation = before
        _CLAMPS.reset(token)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Attention as its formula says, with clamped patterns in place: (z [example, query, head, d_head], pattern)."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    pattern = scores.softmax(-1)
    for head, wanted, share in _CLAMPS.get().get(module.layer_idx, ()):
        mixed = share * wanted + (1 - share) * pattern[:, head]
        pattern = torch.cat([pattern[:, :head], mixed[:, None], pattern[:, head + 1 :]], dim=1)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern
