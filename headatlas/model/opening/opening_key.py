"""What a model is, short of its weights: two models with the same key are put together and computed in the same way.

The key lets the result of a self-check be used again. It is made of the configuration, each module with its class, its own
attributes and the shapes and types of its tensors, the code of these classes and of what they call as it stands in memory,
the choice of attention, switches of torch, and versions. No weight is read.
"""

from __future__ import annotations

import sys
from operator import attrgetter

import torch
import transformers
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from transformers import PretrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from headatlas.model import layouts
from headatlas.model.opening.code_hash import CodeHash, defining_modules
from headatlas.version import __version__

_KEPT_BY_TORCH = frozenset(vars(nn.Module())) - {"training"}  # parameters, buffers, children and hooks of any module
_GLOBAL_HOOKS = tuple(name for name in vars(torch_module) if name.startswith("_global_") and name.endswith("_hooks"))
_TOLD = {"builtins", "collections", "enum", "functools", "torch", "transformers", "types"}  # homes of attributes' types
_UNTOLD = {"_name_or_path", "transformers_version"}  # in configurations; where a model came from decides no number


def opening_key(hf: nn.Module, start: str) -> str | None:
    """A sha256 that names how a model computes; None where only a full self-check can tell.

    None: a module that has hooks, an attribute of its own in place of a method, a compiled call, a parametrisation or a
    class that is not transformers' or torch.nn's own, or tensors of other types than torch's (quantised or sharded ones).
    start: the module of headatlas that opens models; its code and what it rests on is part of the key.
    """
    if any(not _is_plain(module) for module in hf.modules()) or torch.overrides._get_current_function_mode_stack():
        return None
    found = CodeHash()
    found.note(__version__, torch.__version__, transformers.__version__, *sys.version_info[:3], *_switches())
    for name in _GLOBAL_HOOKS:
        for hook in vars(torch_module)[name].values():
            found.add(hook)
    _note_modules(found, hf)
    kinds = {kind for module in hf.modules() for kind in type(module).__mro__}
    for kind in sorted((one for one in kinds if one.__module__.startswith("torch.")), key=attrgetter("__qualname__")):
        found.add_class(kind)
    models = {kind.__module__ for kind in kinds if kind.__module__.startswith("transformers.")}
    layout = layouts.layout_of(hf)
    own = {start, *([layout.install.__module__] if layout is not None else [])}
    for name in (
        *sorted(defining_modules(models, "transformers.")),
        "torch.nn.functional",
        *sorted(defining_modules(own, "headatlas.model.", far=True)),
    ):
        found.add_module(name)
    return found.hexdigest()


def _is_plain(module: nn.Module) -> bool:
    """Whether a module does what its class says, and the class is one that versions and code hashes name."""
    kind, own = type(module), vars(module)
    if not kind.__module__.startswith(("transformers.", "torch.nn.modules.")):
        return False
    try:
        known = attrgetter(kind.__qualname__)(sys.modules[kind.__module__])
    except (KeyError, AttributeError):
        known = None
    if known is not kind or own.get("_compiled_call_impl") is not None:
        return False
    if any(held for name, held in own.items() if name.endswith("_hooks") and isinstance(held, dict)):
        return False
    replaced = (callable(value) and hasattr(kind, name) for name, value in own.items() if name not in _KEPT_BY_TORCH)
    tensors = (*own["_parameters"].values(), *own["_buffers"].values())
    return (
        not any(replaced)
        and all(type(value).__module__.partition(".")[0] in _TOLD for value in own.values())
        and all(one is None or (type(one) in (Tensor, nn.Parameter) and one.device.type != "meta") for one in tensors)
    )


def _switches() -> list[object]:
    """What of torch's state decides which kernels run."""
    return [
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        *(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.cudnn_sdp_enabled(),
        torch.backends.cpu.get_cpu_capability(),
        torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    ]


def _note_modules(found: CodeHash, hf: nn.Module) -> None:
    """Take in every module by its path: class, attributes, tensors; and every configuration once."""
    tensors: dict[int, str] = {}  # which tensors are one and the same, under another name
    configs: dict[int, int] = {}
    for path, module in hf.named_modules(remove_duplicate=False):
        found.note(path, type(module).__module__, type(module).__qualname__)
        own = vars(module)
        for name, value in {**own["_parameters"], **own["_buffers"]}.items():
            if isinstance(value, Tensor):
                first = tensors.setdefault(id(value), f"{path}.{name}")
                found.note(name, first, tuple(value.shape), value.stride(), value.dtype, value.device)
        for name in sorted(own.keys() - _KEPT_BY_TORCH - {"training", "name_or_path"}):
            found.note(name)
            value = own[name]
            if isinstance(value, PretrainedConfig):
                _note_config(found, value, configs)
            elif isinstance(value, Tensor):
                found.note(tuple(value.shape), value.dtype, value.device)
            elif isinstance(value, set):
                found.note(sorted(map(repr, value)))
            elif callable(value) and not isinstance(value, nn.Module):
                found.add(value)
            else:
                found.note(type(value).__qualname__, repr(value))
    for table in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        for name in ("eager", "sdpa"):
            found.add(table.get(name))


def _note_config(found: CodeHash, config: PretrainedConfig, known: dict[int, int]) -> None:
    number = known.setdefault(id(config), len(known))
    found.note("config", number)
    if number == len(known) - 1:
        told = {name: value for name, value in config.to_dict().items() if name not in _UNTOLD}
        found.note(type(config).__qualname__, config._attn_implementation, sorted(map(str, told.items())))
