"""Path patching as the IOI paper writes it, four whole runs of a plain transformers model with hooks, nothing of ours in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Tap = tuple[nn.Module, bool, slice]  # a module, whether its output is meant (else its input), and which numbers of it


@dataclass(frozen=True)
class Plain:
    """A plain model, and where in it heads and MLPs are, written down by hand for each family."""

    hf: nn.Module
    family: str

    @property
    def layers(self) -> Sequence[Any]:
        return {
            "gpt2": lambda hf: hf.transformer.h,
            "gptj": lambda hf: hf.transformer.h,
            "gpt-neox": lambda hf: hf.gpt_neox.layers,
            "opt": lambda hf: hf.model.decoder.layers,
        }.get(self.family, lambda hf: hf.model.layers)(self.hf)

    def attention(self, layer: int) -> Any:
        block = self.layers[layer]
        return getattr(block, {"gpt2": "attn", "gptj": "attn", "gpt-neox": "attention"}.get(self.family, "self_attn"))

    def output(self, layer: int) -> nn.Module:
        names = {"gpt2": "c_proj", "gptj": "out_proj", "opt": "out_proj", "gpt-neox": "dense", "phi": "dense"}
        return getattr(self.attention(layer), names.get(self.family, "o_proj"))

    def mlp(self, layer: int) -> nn.Module:
        return self.layers[layer].fc1 if self.family == "opt" else self.layers[layer].mlp

    def z(self, layer: int, head: int) -> Tap:
        width = self.width(layer)
        return self.output(layer), False, slice(head * width, (head + 1) * width)

    def width(self, layer: int) -> int:
        weight = self.output(layer).weight
        return (
            weight.shape[0] if self.family == "gpt2" else weight.shape[1]
        ) // 4  # all the tiny models have four heads

    def input(self, kind: str, layer: int, head: int) -> Tap:
        """Queries of head `head`, or keys or values of KV group `head`, as they leave their projection."""
        attention, width = self.attention(layer), self.width(layer)
        if self.family == "gpt2":
            start = {"q": 0, "k": 4, "v": 8}[kind] + head
            return attention.c_attn, True, slice(start * width, (start + 1) * width)
        if self.family == "gpt-neox":  # head by head its query, key and value
            start = 3 * head + {"q": 0, "k": 1, "v": 2}[kind]
            return attention.query_key_value, True, slice(start * width, (start + 1) * width)
        name = f"{kind}_norm" if self.family == "olmo2" and kind != "v" else f"{kind}_proj"
        return getattr(attention, name), True, slice(head * width, (head + 1) * width)


def run(plain: Plain, tokens: Tensor, mask: Tensor, changes: Sequence[tuple[Tap, Tensor, Tensor]] = (),
        look: Sequence[Tap] = ()) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Logits [example, pos, vocab] and what was at the places in `look`; changes: (place, values, where [example, pos])."""
    seen: dict[int, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for tap, values, where in changes:
            stack.enter_context(_hook(tap, lambda x, v=values, w=where: torch.where(w.reshape(*x.shape[:-1], 1), v, x)))
        for number, tap in enumerate(look):
            stack.enter_context(_hook(tap, lambda x, n=number: seen.setdefault(n, x.clone())))
        with torch.no_grad():
            logits = plain.hf(input_ids=tokens, attention_mask=mask.long(), use_cache=False).logits
    return logits, [seen[number] for number in range(len(look))]


@contextlib.contextmanager
def _hook(tap: Tap, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    module, output, part = tap

    def put(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., part] = change(x[..., part])
        return x

    if output:
        handle = module.register_forward_hook(lambda _, __, x: put(x))
    else:
        handle = module.register_forward_pre_hook(lambda _, args: (put(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def path_patched(plain: Plain, tokens: Tensor, source: Tensor, mask: Tensor, sender: tuple[int, int],
                 receivers: Sequence[Tap] | None, where: Tensor, *, hold_mlps: bool = False) -> Tensor:  # fmt: skip
    """Logits [example, pos, vocab] of run D; receivers None: the logits. tokens: the run that is changed."""
    heads = [(layer, head) for layer in range(len(plain.layers)) for head in range(4)]
    outputs = [plain.z(*head) for head in heads]
    whole = slice(None)
    mlps: list[Tap] = [(plain.mlp(layer), False, whole) for layer in range(len(plain.layers))]
    everywhere = torch.ones_like(mask)
    _, clean = run(plain, tokens, mask, look=outputs + mlps)  # A
    _, other = run(plain, source, mask, look=[plain.z(*sender)])  # B
    held = [(tap, value, everywhere) for tap, value in zip(outputs, clean[: len(outputs)], strict=True)]
    if hold_mlps:
        held += [(tap, value, everywhere) for tap, value in zip(mlps, clean[len(outputs) :], strict=True)]
    sent = (plain.z(*sender), other[0], where)
    looked = list(receivers or [])
    if hold_mlps:  # what enters an MLP is looked at before it is held
        found = _looking_first(plain, tokens, mask, held, sent, looked)
    else:
        found = run(plain, tokens, mask, [*held, sent], looked)  # C
    if receivers is None:
        return found[0]
    changes = [(tap, value, where) for tap, value in zip(looked, found[1], strict=True)]
    return run(plain, tokens, mask, changes)[0]  # D


def _looking_first(plain: Plain, tokens: Tensor, mask: Tensor, held: list[Any], sent: Any,
                   looked: list[Tap]) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    seen: dict[int, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for number, tap in enumerate(looked):
            stack.enter_context(_hook(tap, lambda x, n=number: seen.setdefault(n, x.clone())))
        logits, _ = run(plain, tokens, mask, [*held, sent])
    return logits, [seen[number] for number in range(len(looked))]
