"""Passes that are refused for what they compute: numbers beyond float16, and padding that decides between keys.

Numbers that left the range of float16 are an error with a place, not a NaN in a table.

Sparse attention under padding: where a model keeps only the keys of highest rank, padding can change which it keeps.

DeepSeek V3.2, MiniMax M3 and their like score all keys, or blocks of keys, and let each query see the k best. Padding does
not change what a text computes as long as it keeps the same keys, and there are three ways in which it may not:

- Two scores at the border between kept and left out are nearly equal: a padded batch is rounded otherwise than a single
  text, and rounding decides.
- They are equal. Many are exactly zero, as sums of rectified products. Which of them a sort takes depends on how many
  candidates there are, and padding adds some where those that may not be seen stand masked in the same row.
- Blocks are counted from the first column, padding on the left included.

The untouched model does the same. A padded batch in which the first two happen is refused; left padding is refused
wherever keys are chosen unless the self-check has seen that it is harmless then. Where no more keys than are kept can be
seen, nothing is chosen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model.core.attention_layer import AttentionLayer, blocks_by_path
from headatlas.model.core.dispatch import active
from headatlas.model.core.forward_pass import Pass
from headatlas.model.core.hooks import evaluating

_CHOICES = (torch.topk, torch.Tensor.topk)
MASKED = torch.finfo(torch.bfloat16).min / 4  # scores below are masks, of whatever type
ROUNDING = 32  # in units of the weights' precision, relative to the largest score of a row


def refuse_overflow(
    hf: nn.Module, found: Tensor, inputs: Mapping[str, Any], valid: Mapping[str, Tensor | None]
) -> None:
    """Raise BadInput where `found` [example, pos, ...] is infinite or undefined, naming the block that first was.

    inputs: what the model ran on. valid: by stack [example, pos] bool, False on padding, whose rows may hold anything.
    """
    finite, real = found.isfinite().flatten(2).all(-1), valid.get("decoder", valid.get("encoder"))
    if real is not None and real.shape == finite.shape:
        finite = finite | ~real
    if bool(finite.all()):
        return
    first: list[str] = []

    def look(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if not first and isinstance(hidden, Tensor) and not bool(hidden.isfinite().all()):
                first.append(path)

        return hook

    embeddings: nn.Module = hf.get_input_embeddings()  # type: ignore[operator]
    places = {"the token embeddings": embeddings, **blocks_by_path(hf)}
    handles = [module.register_forward_hook(look(path)) for path, module in places.items()]
    try:
        with evaluating(hf), torch.no_grad():
            hf(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    raise BadInput(
        f"{int((~finite).any(-1).sum())} of {len(finite)} examples overflow float16 in {type(hf).__name__}, first in "
        f"{first[0] if first else 'the logits'}: their numbers are infinite or undefined.",
        "Load the model with dtype bfloat16 or float32.",
    )


class ChosenKeys(BadInput):
    """A padded batch in which padding may decide which keys are attended to."""


class KeyChoice(TorchFunctionMode):
    """While it is entered, refuses choices among keys, in attention modules, that padding can change.

    acting: whether what calls a module is the pass that is watched, and not another use of the same modules. mask [example,
    pos]: False on padding. left: whether padding on the left is known to be harmless where keys are chosen. precision: of
    the weights' type. Torch functions raise ChosenKeys.
    """

    def __init__(
        self, acting: Callable[[], bool], architecture: str, mask: Tensor, *, left: bool, precision: float
    ) -> None:
        super().__init__()
        self.acting, self.architecture, self.precision = acting, architecture, precision
        self.left_unknown = not left and not bool(mask[:, 0].all())
        self.rows = mask & ~mask.all(1, keepdim=True)  # the queries that matter: real ones, of padded texts
        self._depth = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute what was asked for, unless it is such a choice."""
        found = func(*args, **(kwargs or {}))
        if func in _CHOICES and self._depth and self.acting():  # what a watcher sorts is no choice of the model
            dim = (kwargs or {}).get("dim", args[2] if len(args) > 2 else -1)
            kept, scores = found.values.movedim(dim, -1), args[0].movedim(dim, -1)
            if kept.shape[-1] < scores.shape[-1] and bool(self._open(kept, scores).any()):
                raise ChosenKeys(
                    f"Padding can change what {self.architecture} computes for these texts: its attention keeps {kept.shape[-1]} of "
                    f"{scores.shape[-1]} keys (or blocks of keys), and rounding or padding decides which of those of equal rank.",
                    f"{'Pad on the right, or give' if self.left_unknown else 'Give'} examples of one length.",
                )
        return found

    def _open(self, kept: Tensor, scores: Tensor) -> Tensor:
        """Which rows [...] of scores [..., key] leave out a key that could be seen, count, and are open about which."""
        ordered = scores.detach().float().sort(-1, descending=True).values
        last, first = ordered[..., kept.shape[-1] - 1], ordered[..., kept.shape[-1]]
        masked = ordered <= MASKED
        found = first > MASKED
        if not self.left_unknown:
            gap = (last - first).nan_to_num(0.0)
            size = ordered.abs().masked_fill(masked | ordered.isinf(), 0.0).amax(-1)
            found = found & torch.where(gap == 0, masked.any(-1), gap <= ROUNDING * self.precision * size)
        if found.ndim > 1 and (found.shape[0], found.shape[-1]) == self.rows.shape:
            found = found & self.rows.view(len(found), *[1] * (found.ndim - 2), -1)
        return found

    def _begin(self, *_: Any) -> None:
        self._depth += self.acting()

    def _end(self, *_: Any) -> None:
        self._depth -= self.acting()

    @contextlib.contextmanager
    def watching(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Entered, with hooks that tell when one of the attention modules runs."""
        handles = []
        for module in modules:
            handles.append(module.register_forward_pre_hook(self._begin))
            handles.append(module.register_forward_hook(self._end, always_call=True))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()


def key_choices(
    hf: nn.Module, layers: Sequence[AttentionLayer], current: Pass
) -> contextlib.AbstractContextManager[None]:
    """Refuses choices among keys that padding can change, while a padded pass runs; does nothing in others."""
    padded = [mask for mask in current.context.valid.values() if mask is not None and not bool(mask.all())]
    if not padded:
        return contextlib.nullcontext()
    choice = KeyChoice(
        lambda: active() is current,
        type(hf).__name__,
        padded[-1],
        left=current.context.left_choices,
        precision=torch.finfo(next(hf.parameters()).dtype).eps,
    )
    return choice.watching({layer.module for layer in layers})


def read_output(output: Any) -> Tensor:
    """The logits of a transformers output, or its last hidden states. Raises UnsupportedModel where it has neither."""
    for name in ("logits", "prediction_logits", "last_hidden_state"):
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    raise UnsupportedModel(f"{type(output).__name__} has neither logits nor hidden states.", "Open the base model.")


def refuse_modes(device: torch.device, inputs: Mapping[str, Any]) -> None:
    """Raise BadInput for modes of torch in which a pass, or what is made of it, would not be what it is said to be.

    Under autocast gradients and sums of parts are rounded as well. In inference mode, and through what was made in it, no gradient is
    recorded whatever torch is told.
    """
    if torch.is_autocast_enabled(device.type):
        raise BadInput(
            "torch.autocast is on, and would round what is measured.",
            "Leave it, or write torch.autocast(..., enabled=False) around this; headatlas computes in the type of the weights.",
        )
    made = any(isinstance(value, Tensor) and value.is_inference() for value in inputs.values())
    if torch.is_grad_enabled() and (made or torch.is_inference_mode_enabled()):
        raise BadInput(
            f"{'These tokens were made' if made else 'This is'} under torch.inference_mode, where no gradient can be taken.",
            "Leave it out (torch.no_grad does no harm): headatlas records gradients only where it takes them.",
        )


def refuse_copy(model: object, memo: object) -> NoReturn:
    """In the place of a deep copy. Raises BadInput: what was noted of one transformers model's modules is not true of others."""
    raise BadInput(
        "A Model cannot be copied: it knows the modules of one transformers model.",
        "Copy that, and open the copy: headatlas.load(copy.deepcopy(model.hf)).",
    )


def demand_in_memory(hf: nn.Module, what: str) -> None:
    """Raise UnsupportedModel where weights lie elsewhere until they are used: what is written to them would be lost."""
    if any(weight.is_meta for weight in hf.parameters()):
        raise UnsupportedModel(
            f"{what} needs all weights in memory, and those of {type(hf).__name__} lie elsewhere until they are used.",
            "Load it without device_map and weight_memory.",
        )
