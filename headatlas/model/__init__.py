"""The only place that knows transformers: where models come from, and the view into their attention."""

from headatlas.model.core.forward_pass import Edit
from headatlas.model.core.model import Model
from headatlas.model.core.view import LayerView
from headatlas.model.loading import attach, builtins, load, table_of
from headatlas.model.text.tokenizer import Tokenizer

__all__ = ["Edit", "LayerView", "Model", "Tokenizer", "attach", "builtins", "load", "table_of"]
