"""Models in which nothing can be found: the same shape with random or shuffled weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model.core.refusals import demand_in_memory
from headatlas.model.sources.checkpoint import check_config, load_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def untrained(source: str | Path | PreTrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """A model of the same shape as it comes from its own random initialisation.

    source: a model folder (only its config.json is read) or a config. Raises SourceError, UnsupportedModel.
    """
    import transformers

    config = _config(source) if isinstance(source, str | Path) else source
    names = getattr(config, "architectures", None) or []
    kind: Any = getattr(transformers, names[0], None) if names else transformers.AutoModelForCausalLM
    if kind is None:
        raise UnsupportedModel(f"transformers has no model class called {names[0]}.", "Only its own classes are built.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: PreTrainedModel = kind._from_config(config) if names else kind.from_config(config)
    return built.eval()


def untrained_twin(model: PreTrainedModel, *, seed: int = 0) -> PreTrainedModel:
    """A model of the same class, shape, type and device as `model` with the weights of its own random initialisation.

    Raises UnsupportedModel for what is no model of transformers, and for quantised weights, which have no random twin.
    """
    demand_in_memory(model, "An untrained twin")
    make: Any = getattr(type(model), "_from_config", None)
    if make is None or getattr(model.config, "quantization_config", None) is not None:
        raise UnsupportedModel(f"{type(model).__name__} has no untrained twin: it is no plain transformers model.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: PreTrainedModel = make(copy.deepcopy(model.config))
    weight = next(iter(model.parameters()))
    moved: PreTrainedModel = nn.Module.to(built, weight.device, weight.dtype)
    return moved.eval()


def sharp(source: str | Path | PreTrainedConfig, *, seed: int = 0, by: float = 8.0) -> PreTrainedModel:
    """An untrained model whose heads attend sharply: queries and keys are `by` times as large as initialised.

    Fresh weights give nearly uniform attention, which any detector tells from a kind of head; a sharp random head puts its
    attention on few tokens, whichever they are, and so falls into a detector's pattern now and then.
    Raises SourceError, UnsupportedModel (also where queries and keys have no projections of their own).
    """
    model = untrained(source, seed=seed)
    projections = [part for name, part in model.named_modules() if name.endswith(("q_proj", "k_proj"))]
    if not projections:
        raise UnsupportedModel(f"{type(model).__name__} has no q_proj and k_proj.", "Take a shape such as Llama's.")
    with torch.no_grad():
        for part in projections:
            for parameter in part.parameters():
                parameter.mul_(by)
    return model


def weight_shuffled(model: PreTrainedModel, *, seed: int = 0) -> PreTrainedModel:
    """A copy whose attention weights stand in random order; everything else stays.

    Within each matrix, entries are permuted inside each block of d_head outputs, so that every head keeps the
    distribution and the size of its queries, keys and values, also where they are stored fused, and loses all
    structure. Biases are permuted in the same way. Raises UnsupportedModel where no attention weights are found.
    """
    demand_in_memory(model, "A copy with shuffled weights")
    shuffled = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    config = shuffled.config.get_text_config()
    d_head = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    parts = list(_attention_parts(shuffled))
    if not parts:
        raise UnsupportedModel(f"{type(model).__name__} has no module that is called an attention.")
    with torch.no_grad():
        for parameter, in_columns in parts:
            rows = parameter.T if in_columns else parameter
            mixed = _permuted(rows, d_head, generator)
            parameter.copy_(mixed.T if in_columns else mixed)
    return shuffled


def _attention_parts(model: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """Each weight and bias inside an attention module once, and whether its outputs are columns (Conv1D) or rows."""
    seen: set[int] = set()
    for attention in model.modules():
        # The attention modules of transformers are called ...Attention; norms inside them are no projections.
        if not type(attention).__name__.lower().endswith("attention"):
            continue
        for part in attention.modules():
            if "norm" in type(part).__name__.lower():
                continue
            for parameter in part.parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter, type(part).__name__ == "Conv1D" and parameter.ndim == 2


def _permuted(weight: Tensor, d_head: int, generator: torch.Generator) -> Tensor:
    """The same entries in random order inside each block of `d_head` rows (inside the whole where that does not fit)."""
    blocks = weight.shape[0] // d_head if weight.shape[0] % d_head == 0 else 1
    flat = weight.detach().cpu().reshape(blocks, -1)
    order = torch.rand(flat.shape, generator=generator, dtype=torch.float32).argsort(dim=1)
    return flat.gather(1, order).reshape(weight.shape).to(weight.device)


def _config(folder: str | Path) -> PreTrainedConfig:
    check_config(Path(folder), str(folder))
    return load_config(Path(folder), str(folder))
