"""headatlas: what do the attention heads of this model do?

>>> import headatlas as ha
>>> model = ha.load("smollm2-135m")             # doctest: +SKIP
>>> atlas = ha.mine(model)                      # doctest: +SKIP
>>> atlas.top("induction-head")                 # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headatlas import renamed
from headatlas.version import __version__ as __version__

renamed.install()

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
    "Resample": "headatlas.edits",
    "Swap": "headatlas.edits",
    "Add": "headatlas.edits",
    "Project": "headatlas.edits",
    "Scale": "headatlas.edits",
    "Block": "headatlas.edits",
    "Temper": "headatlas.edits",
    "load_edits": "headatlas.edits",
    "ablate": "headatlas.methods.sweeps.ablation",
    "patch": "headatlas.methods.sweeps.activation_patching",
    "path_patch": "headatlas.methods.path_patching.sweep",
    "attribute": "headatlas.methods.attribution.attribute",
    "edge_scores": "headatlas.methods.attribution.edge_attribution",
    "direct_effects": "headatlas.methods.direct_logit_attribution",
    "head_lens": "headatlas.methods.logit_lens",
    "probe": "headatlas.methods.probing",
    "copy_scores": "headatlas.methods.weights.copying",
    "Circuit": "headatlas.circuits.circuit",
    "mine": "headatlas.mining.run",
    "Atlas": "headatlas.atlas",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from headatlas.atlas import Atlas as Atlas
    from headatlas.circuits.circuit import Circuit as Circuit
    from headatlas.edits import Add as Add
    from headatlas.edits import Block as Block
    from headatlas.edits import Mean as Mean
    from headatlas.edits import Project as Project
    from headatlas.edits import Resample as Resample
    from headatlas.edits import Scale as Scale
    from headatlas.edits import Swap as Swap
    from headatlas.edits import Temper as Temper
    from headatlas.edits import Zero as Zero
    from headatlas.edits import load_edits as load_edits
    from headatlas.errors import HeadAtlasError as HeadAtlasError
    from headatlas.heads import HeadId as HeadId
    from headatlas.methods.attribution.attribute import attribute as attribute
    from headatlas.methods.attribution.edge_attribution import edge_scores as edge_scores
    from headatlas.methods.direct_logit_attribution import direct_effects as direct_effects
    from headatlas.methods.logit_lens import head_lens as head_lens
    from headatlas.methods.path_patching.sweep import path_patch as path_patch
    from headatlas.methods.probing import probe as probe
    from headatlas.methods.sweeps.ablation import ablate as ablate
    from headatlas.methods.sweeps.activation_patching import patch as patch
    from headatlas.methods.weights.copying import copy_scores as copy_scores
    from headatlas.mining.run import mine as mine
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
