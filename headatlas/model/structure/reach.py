"""How far attention looks by a model's configuration, and a shorter reach for the time of a self-check.

Windows, chunks, blocks and numbers of chosen keys are often thousands; a sample of a dozen tokens would never meet them. The
configuration, and what modules copied of it, is changed for model and reference alike, and put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

REACHES = (
    "sliding_window",
    "sliding_window_size",
    "attention_window_size",
    "local_attention_window_len",
    "window_size",
    "local_attention",
    "attention_chunk_size",
    "index_topk",
    "index_topk_blocks",
    "index_block_size",
    "indexer_budget",
)
NEAR = 32  # what lies below is met by the sample as it is
_LOW = {"index_topk_blocks": 2, "index_block_size": 4}
_LOWERED = 6


def reaches(config: Any) -> list[int]:
    """The reaches that a configuration names, in tokens (or blocks)."""
    found = (_field(config, name) for name in REACHES)
    return [value for value in found if isinstance(value, int) and not isinstance(value, bool) and value > 0]


@contextlib.contextmanager
def lowered(hf: nn.Module) -> Iterator[bool]:
    """While this is entered, each reach of the model that a short sample would not meet is a few tokens; yields whether any is.

    Modules keep copies under the end of the field's name (`chunk_size` of `attention_chunk_size`); they are told by value.
    """
    held = (vars(module).get("config") for module in hf.modules())
    configs = {id(config): config for config in held if hasattr(config, "__dict__")}  # Idefics keeps dictionaries
    top: Any = getattr(hf, "config", None)
    if top is not None and hasattr(top, "get_text_config"):
        text = top.get_text_config()
        configs[id(text)] = text
    with contextlib.ExitStack() as undo:
        changed: dict[str, set[int]] = {}
        for config in configs.values():
            for name in REACHES:
                value = vars(config).get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > NEAR:
                    changed.setdefault(name, set()).add(value)
                    undo.callback(setattr, config, name, value)
                    setattr(config, name, _LOW.get(name, _LOWERED))
        for module in hf.modules() if changed else ():
            for own, value in [item for item in vars(module).items() if isinstance(item[1], int)]:
                for field in (field for field, values in changed.items() if field.endswith(own) and value in values):
                    undo.callback(setattr, module, own, value)
                    setattr(module, own, _LOW.get(field, _LOWERED))
                    break
        yield bool(changed)


def _field(config: Any, name: str) -> Any:
    """A field of a configuration; None where it has none, or a different one for each layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # configurations by layer raise an error of their own
        return None
