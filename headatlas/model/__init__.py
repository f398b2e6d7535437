"""The only place that knows transformers: where models come from, and the view into their attention."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Name -> module, loaded on first use: where models come from is asked before torch is needed.
_PUBLIC = {
    "Edit": "headatlas.model.core.forward_pass",
    "LayerView": "headatlas.model.core.view",
    "Model": "headatlas.model.core.model",
    "Tokenizer": "headatlas.model.text.tokenizer",
    "attach": "headatlas.model.loading",
    "builtins": "headatlas.model.loading",
    "load": "headatlas.model.loading",
    "table_of": "headatlas.model.loading",
}
__all__ = ["Edit", "LayerView", "Model", "Tokenizer", "attach", "builtins", "load", "table_of"]

if TYPE_CHECKING:
    from headatlas.model.core.forward_pass import Edit
    from headatlas.model.core.model import Model
    from headatlas.model.core.view import LayerView
    from headatlas.model.loading import attach, builtins, load, table_of
    from headatlas.model.text.tokenizer import Tokenizer


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'headatlas.model' has no attribute '{name}'")
