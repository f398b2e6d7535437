"""What a model comes wrapped in (DataParallel, PEFT, torch.compile), and which adapters it has."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from headatlas.errors import UnsupportedModel
from headatlas.model.core.hooks import evaluating
from headatlas.model.core.model import Model
from headatlas.model.structure import selfcheck


def unwrapped(hf: nn.Module) -> nn.Module:
    """The transformers model within a wrapper that only hands on to it; any other module as it is.

    The wrapper and the model within are run on the same tokens, and must give the same. Raises UnsupportedModel where they
    do not (prompt tuning puts learned tokens before the text), or where there is no transformers model.
    """
    if isinstance(hf, torch._dynamo.eval_frame.OptimizedModule):
        return unwrapped(hf._orig_mod)  # what was compiled gives other roundings and takes no hooks
    if isinstance(hf, PreTrainedModel):
        return hf
    within = [(name, part) for name, part in hf.named_modules() if isinstance(part, PreTrainedModel)]
    if not within:
        if hasattr(hf, "config"):
            return hf
        raise UnsupportedModel(
            f"{type(hf).__name__} is no transformers model and holds none.", "Give a transformers model."
        )
    name, inner = within[0]
    if not _same(hf, inner):
        raise UnsupportedModel(
            f"{type(hf).__name__} does not give what the {type(inner).__name__} within it gives (prompt and prefix tuning put learned "
            "tokens before the text, which are keys of no position; a head of its own changes the output).",
            f"Open the model within, without what is around it: headatlas.load(model.{name}).",
        )
    return inner


@torch.no_grad()
def _same(hf: nn.Module, inner: nn.Module) -> bool:
    inputs = selfcheck.sample(inner, inner.config.get_text_config())  # type: ignore[operator, union-attr]
    with evaluating(hf):
        try:
            around, alone = Model.read(hf(**inputs)), Model.read(inner(**inputs))
        except Exception as error:  # a wrapper may stumble in its own way
            raise UnsupportedModel(
                f"{type(hf).__name__} does not run on plain tokens: {' '.join(str(error).split())[:160]}",
                "Give the transformers model within it.",
            ) from error
    return around.shape == alone.shape and bool(torch.equal(around.cpu(), alone.cpu()))


def adapters_of(hf: nn.Module) -> list[dict[str, Any]]:
    """The PEFT adapters of a model, one dictionary each: name, type, rank, alpha, targets, and whether it is active.

    active: false for one that is not chosen, or while adapters are switched off. Empty for a model without.
    """
    layers = [part for part in hf.modules() if hasattr(part, "_active_adapter") and hasattr(part, "_disable_adapters")]
    active = {name for part in layers if not part._disable_adapters for name in _listed(part._active_adapter)}
    merged = {name for part in layers for name in getattr(part, "merged_adapters", ())}
    found = []
    for name, config in (getattr(hf, "peft_config", None) or {}).items():
        facts = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        found.append(
            {
                "name": name,
                "type": str(getattr(facts.get("peft_type"), "value", facts.get("peft_type"))),
                **{
                    key: facts[key]
                    for key in ("r", "lora_alpha", "use_dora", "use_rslora")
                    if facts.get(key) is not None
                },
                "targets": sorted(_listed(facts.get("target_modules") or ())),
                "active": name in active,
                "merged": name in merged,
            }
        )
    return found


def _listed(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else [str(name) for name in names]
