"""headatlas: what do the attention heads of this model do?

>>> import headatlas as ha
>>> model = ha.load("smollm2-135m")             # doctest: +SKIP
>>> atlas = ha.mine(model)                      # doctest: +SKIP
>>> atlas.top("induction-head")                 # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module; loaded on first use, so that `import headatlas` and the command line start at once.
_PUBLIC = {
    "load": "headatlas.model",
    "Model": "headatlas.model",
    "HeadId": "headatlas.heads",
    "HeadAtlasError": "headatlas.errors",
    "Batch": "headatlas.task",
    "find_task": "headatlas.task",
    "HeadScores": "headatlas.scores",
    "Zero": "headatlas.edits",
    "Mean": "headatlas.edits",
    "mine": "headatlas.mining",
    "Atlas": "headatlas.atlas",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from headatlas.atlas import Atlas as Atlas
    from headatlas.edits import Mean as Mean
    from headatlas.edits import Zero as Zero
    from headatlas.errors import HeadAtlasError as HeadAtlasError
    from headatlas.heads import HeadId as HeadId
    from headatlas.mining import mine as mine
    from headatlas.model import Model as Model
    from headatlas.model import load as load
    from headatlas.scores import HeadScores as HeadScores
    from headatlas.task import Batch as Batch
    from headatlas.task import find_task as find_task


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'headatlas' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
