"""What the small parts of a model are (linear maps, norms) and what they do, learned by asking them."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model.core.dispatch import paused

_CHANGED: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # linear maps that hooks of their owner change
PLAIN = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def matrix(linear: nn.Module) -> Tensor:
    """The weight of a linear map as [in, out]: its parameter where it is one, else what it does to the unit vectors.

    The latter holds for quantised weights and for adapters beside a weight (LoRA); one that lies elsewhere until it is used is
    fetched. Where inputs are rounded too (int8 activations), unit vectors come through exactly, so this is the stored matrix.
    """
    weight = plain_weight(linear)
    if weight is None:
        weight = _fetched(linear)
    if weight is not None:
        return weight
    width, kind = input_width(linear), dtype_of(linear)
    basis = torch.eye(width, device=device_of(linear), dtype=kind)
    zero, columns = _asked(linear, torch.zeros_like(basis[:1]), basis)
    if kind in (torch.bfloat16, torch.float16) and bool(zero.any()):
        # Next to a large bias a column would lose its digits; a larger input lifts it above.
        sizes = zero.abs().max().float() / (columns - zero).float().abs().mean().clamp(min=1e-6)
        lift = 2.0 ** sizes.log2().clamp(0, 10).ceil()
        (columns,) = _asked(linear, basis * lift.to(kind))
        return ((columns.float() - zero.float()) / lift).to(kind)
    return columns - zero


def _fetched(linear: nn.Module) -> Tensor | None:
    """The weight [in, out] of a plain linear map that accelerate keeps elsewhere until it is used; None for any other.

    Plain: with the class's own `forward` below accelerate's, and nothing within or beside it.
    """
    held = dict(linear.named_parameters(recurse=False))
    hook, below = getattr(linear, "_hf_hook", None), getattr(linear, "_old_forward", None)
    if (
        type(linear) is not nn.Linear
        or type(hook).__name__ != "AlignDevicesHook"
        or getattr(below, "__func__", None) is not nn.Linear.forward
        or not held.keys() <= {"weight", "bias"}
        or not held["weight"].is_meta
        or linear in _CHANGED
        or not all(map(_is_ours, (*linear._forward_pre_hooks.values(), *linear._forward_hooks.values())))
    ):
        return None
    from accelerate.utils import align_module_device

    with align_module_device(linear):
        weight = linear.weight.detach()  # stays when the module lets go of it
    return None if weight.is_meta or type(weight) is not Tensor or weight.dtype not in PLAIN else weight.T


def offset(linear: nn.Module) -> Tensor | None:
    """The bias of a linear map, [out] or None, whatever it is made of."""
    if plain_weight(linear) is not None:
        bias: Tensor | None = getattr(linear, "bias", None)
        return bias
    found = _of_nothing(linear)
    return found if bool(found.any()) else None


def output_width(linear: nn.Module) -> int:
    """How many numbers a linear map puts out."""
    weight = plain_weight(linear)
    return int(weight.shape[1]) if weight is not None else len(_of_nothing(linear))


def _of_nothing(linear: nn.Module) -> Tensor:
    (found,) = _asked(linear, torch.zeros(1, input_width(linear), device=device_of(linear), dtype=dtype_of(linear)))
    return found[0]


@torch.no_grad()
def _asked(module: nn.Module, *questions: Tensor, bare: bool = False) -> list[Tensor]:
    """What a module in evaluation mode gives for each of some inputs [n, in], handed to it as one text; [n, out].

    Hooks of ours (a pass that is under way and keeps what leaves the module) do not hear of it; hooks of others may be
    part of what it does. bare: without those too.
    """
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    before = [(part, kind, getattr(part, kind)) for part in module.modules() for kind in kinds if getattr(part, kind)]
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        for part, kind, hooks in before:
            setattr(
                part, kind, type(hooks)((key, hook) for key, hook in hooks.items() if not bare and not _is_ours(hook))
            )
        return [module(question[None])[0] for question in questions]
    finally:
        for part in training:
            part.training = True
        for part, kind, hooks in before:
            setattr(part, kind, hooks)


def input_width(linear: nn.Module) -> int:
    """How many numbers a linear map, or what is wrapped around one, takes. Raises UnsupportedModel."""
    for part in (linear, *(part for part in linear.modules() if is_linear(part))):
        weight = getattr(part, "weight", None)
        if isinstance(getattr(part, "in_features", None), int):
            return int(part.in_features)  # type: ignore[arg-type]
        if isinstance(weight, Tensor) and weight.ndim == 2:
            return int(weight.shape[0 if is_conv1d(part) else 1])
    raise UnsupportedModel(
        f"The weight of {type(linear).__name__} cannot be read.", "Load the model without quantisation."
    )


def plain_weight(linear: nn.Module) -> Tensor | None:
    """The parameter [in, out] that is all there is to a linear map beside its bias, or None.

    Not where anything may come on top: other tensors or modules within (adapters, scales, masks), hooks that add
    something, a `forward` put on the instance. A class with a `forward` of its own is tried on random numbers.
    """
    held = dict(linear.named_parameters(recurse=False)) | dict(linear.named_buffers(recurse=False))
    plain = all(
        type(part) in (Tensor, nn.Parameter) and part.dtype in PLAIN and not part.is_meta for part in held.values()
    )
    weight, bias = held.get("weight"), held.get("bias")
    if weight is None or not plain or weight.ndim != 2 or not held.keys() <= {"weight", "bias"}:
        return None
    if any(True for _ in linear.children()) or _is_changed(linear):
        return None
    found: Tensor = weight if is_conv1d(linear) else weight.T
    if type(linear).forward is nn.Linear.forward or is_conv1d(linear):
        return found
    x = torch.randn(2, len(found), generator=torch.Generator().manual_seed(0)).to(found.device, found.dtype)
    expected = x @ found if bias is None else x @ found + bias
    (given,) = _asked(linear, x, bare=True)  # the question is about the class; hooks were looked at before
    return found if _apart(given, expected) <= _rounding(found.dtype) else None


def _is_changed(module: nn.Module) -> bool:
    """Whether a `forward` of the instance, or a hook that was seen at it, may do more than the class does."""
    return module in _CHANGED or ("forward" in module.__dict__ and not _is_ours(module.__dict__["forward"]))


@torch.no_grad()
def note_changes(linear: nn.Module, x: Tensor, output: Tensor) -> None:
    """Remember a linear map whose hooks make of `x` another `output` than its weight does; hooks that only look are left alone."""
    weight = plain_weight(linear)
    if weight is None or all(map(_is_ours, (*linear._forward_pre_hooks.values(), *linear._forward_hooks.values()))):
        return
    bias = getattr(linear, "bias", None)
    expected = x @ weight if bias is None else x @ weight + bias
    if expected.shape != output.shape or _apart(output.float(), expected.float()) > _rounding(weight.dtype):
        _CHANGED.add(linear)


def _is_ours(function: object) -> bool:
    return str(getattr(function, "__module__", "")).startswith("headatlas.")


def is_affine(module: nn.Module, width: int | None = None) -> bool:
    """Whether a module is a linear map plus a constant: f(a + b) + f(0) = f(a) + f(b), to the rounding of its type."""
    if plain_weight(module) is not None:
        return True
    generator, kind = torch.Generator().manual_seed(0), dtype_of(module)
    a, b = torch.randn(2, 3, width or input_width(module), generator=generator).to(device_of(module), kind)
    try:
        both, first, second, none = _asked(module, a + b, a, b, torch.zeros_like(a))
    except (
        RuntimeError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
    ):  # it takes something else than one vector
        return False
    return _apart(both.float() + none.float(), first.float() + second.float()) <= _rounding(kind)


def is_rowwise(module: nn.Module) -> bool:
    """Whether what a map gives for a vector does not depend on the vectors beside it; int8 with one scale for all does."""
    generator, kind = torch.Generator().manual_seed(0), dtype_of(module)
    x = torch.randn(2, input_width(module), generator=generator).to(device_of(module), kind)
    beside = torch.cat([x[:1], 50 * x[1:]])
    together, alone = _asked(module, beside, x[:1])
    return _apart(together[:1].float(), alone.float()) <= _rounding(kind)


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max() / (expected.detach().abs().max() + 1e-30))


def _rounding(kind: torch.dtype) -> float:
    return 1e-4 if kind in (torch.float32, torch.float64) else 3e-2


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of the numbers that a module takes: that of its first plain floating-point weight, scale or bias."""
    held = itertools.chain(module.parameters(), module.buffers())  # walked no further than the first that will do
    return next((part.dtype for part in held if part.dtype in PLAIN), torch.float32)


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: where its weights are, or, while they are elsewhere (accelerate's offload), will be."""
    weights = itertools.chain(module.parameters(), module.buffers())
    held = next((part.device for part in weights if not part.is_meta), None)
    if held is not None:
        return held
    hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
    planned = (getattr(hook, "execution_device", None) for hook in hooks)
    return torch.device(next((place for place in planned if place is not None), "cpu"))


def is_conv1d(linear: nn.Module) -> bool:
    """Whether the weight is stored [in, out] (GPT-2's Conv1D)."""
    return type(linear).__name__ == "Conv1D"


def is_linear(module: nn.Module) -> bool:
    """A single linear map: nn.Linear, Conv1D, quantised or parametrised variants; not what is wrapped around one."""
    if isinstance(module, nn.Embedding):
        return False
    if isinstance(module, nn.Linear):
        return True
    if any(is_linear(part) for part in module.children()):
        return False
    weight = getattr(module, "weight", None)
    leaf = not any(True for _ in module.children())
    return (
        (leaf and is_conv1d(module))
        or isinstance(getattr(module, "in_features", None), int)
        or (leaf and isinstance(weight, Tensor) and weight.ndim == 2 and "Linear" in type(module).__name__)
    )


def is_norm(module: nn.Module) -> bool:
    """A norm over the model's width: called so, with a weight per channel or none, and without linear maps inside.

    The last tells it from blocks and attention with a norm in their name (DBRX, RoBERTa-PreLayerNorm). What torch makes a
    weight with (weight and spectral norm) is none.
    """
    if type(module).__module__.startswith("torch.nn.utils."):
        return False
    weight = getattr(module, "weight", None)
    return (
        "norm" in type(module).__name__.lower()
        and (weight is None or (isinstance(weight, Tensor) and weight.ndim == 1))
        and not any(is_linear(part) for part in module.modules())
    )


def norm_gain(norm: nn.Module, width: int) -> tuple[Tensor, bool]:
    """(gain [d_model], whether it subtracts the mean) of a LayerNorm or RMSNorm of any convention, by asking it."""
    x, ask = _question(norm, width)
    gain = (ask(x) - ask(-x)) / (2 * x)
    centers = bool(torch.allclose(ask(x + 3.0), ask(x), atol=1e-3 * float(gain.abs().max() + 1)))
    return gain[0], centers


def norm_shift(norm: nn.Module, width: int) -> Tensor:
    """What a norm adds to everything, [d_model]; zero for an RMSNorm."""
    x, ask = _question(norm, width)
    return ((ask(x) + ask(-x)) / 2)[0]


def normalises(norm: nn.Module, width: int) -> bool:
    """Whether the size of its input does not matter; MobileBERT's "NoNorm" only scales and shifts."""
    x, ask = _question(norm, width)
    return bool(torch.allclose(ask(4 * x), ask(x), rtol=1e-2, atol=1e-2))


def _question(norm: nn.Module, width: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A vector of mean 0 and variance 1, and the norm as a function of such vectors."""
    kind = dtype_of(norm)
    x = torch.randn(1, width, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    x = ((x - x.mean()) / x.std(correction=0)).to(device_of(norm))

    @torch.no_grad()
    def ask(value: Tensor) -> Tensor:
        with paused():  # a pass that runs is not asked about
            found: Tensor = norm(value.to(kind)).float()
        return found

    return x, ask
