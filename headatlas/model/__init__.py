"""The only place that knows transformers: where models come from, and the doorway into their attention."""

from headatlas.model.doorway import Edit
from headatlas.model.loading import attach, builtins, load, table_of
from headatlas.model.model import Model
from headatlas.model.tokenizer import Tokenizer
from headatlas.model.view import LayerView

__all__ = ["Edit", "LayerView", "Model", "Tokenizer", "attach", "builtins", "load", "table_of"]
