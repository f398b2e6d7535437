"""Recall texts: read once and kept with the model's own cache, so that what is asked of them can be run again and again.

What a cache that holds less changes begins behind the text that was read. So learning which groups need all of it needs no pass over
the text: the question and its answer run over the kept keys and values, under whatever is learned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.apply.kv_cache.measuring import needle
from headatlas.errors import BadInput, UnfitTask
from headatlas.model import Model
from headatlas.model.core.dispatch import active, delegate, receiving
from headatlas.model.core.hooks import evaluating
from headatlas.model.holding.own import OwnCache, again, read_text
from headatlas.model.runs.shared_pass import demand_gradients
from headatlas.task import Batch

# (layer, queries [example, head, query, d], keys [example, group, key, d], values, the model's own attention of masks) -> z
OwnAttention = Callable[[Tensor | None], Tensor]
Rule = Callable[[int, Tensor, Tensor, Tensor, Tensor | None, OwnAttention], Tensor]


@dataclass(frozen=True)
class Asked:
    """One text with what is asked of it. past: the model's cache of the text. tokens [pos]: question and answer.

    wanted: places in tokens of the answer. hidden [pos, d_model]: last hidden states of the model itself there;
    log_p [token of the answer, vocab]: its log-probabilities where it decides the answer.
    """

    past: OwnCache
    tokens: Tensor
    wanted: Tensor
    hidden: Tensor
    log_p: Tensor


@torch.no_grad()
def asked(model: Model, batch: Batch, n: int) -> list[Asked]:
    """The first n needles of a batch, read. The answer is the model's own, token by token, as MoA has it."""
    found = []
    for example in range(min(n, len(batch))):
        text, rest, wanted = needle(model, batch, example)
        past = read_text(model, text)
        with evaluating(model.hf):
            output = model.hf(
                input_ids=rest[None].to(model.device), past_key_values=again(past), output_hidden_states=True
            )
        own = rest.clone()
        own[wanted] = output.logits[0, wanted - 1].argmax(-1).cpu()
        log_p = output.logits[0, wanted - 1].float().log_softmax(-1)
        found.append(Asked(past, own, wanted, output.hidden_states[-1][0], log_p))
    if not found:
        raise UnfitTask("There is no text to ask.")
    return found


class _Ruled:
    """Where attention calls go: to a rule, by layer."""

    def __init__(self, model: Model, rule: Rule) -> None:
        self.path, self.rule = model.path, rule
        self.layers = {layer.module: layer.index for layer in model.layers}

    def attends(self, module: nn.Module) -> bool:
        return module in self.layers

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        own = delegate(self.path, module)

        def attention(seen: Tensor | None) -> Tensor:
            found: Tensor = own(module, query, key, value, seen, **kwargs)[0]
            return found

        return self.rule(self.layers[module], query, key, value, mask, attention), None


@contextlib.contextmanager
def ruled(model: Model, rule: Rule) -> Iterator[nn.Module]:
    """Attention by a rule: (layer, q, k, v, mask, own) -> z [example, query, head, d_value], where own(mask) is the model's own attention."""
    demand_gradients(model)
    if active() is not None:
        raise BadInput("Learning was started inside a forward pass.", "Finish the pass first.")
    with evaluating(model.hf), receiving(_Ruled(model, rule)):
        yield model.hf
