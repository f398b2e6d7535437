"""Edits of heads: frozen callables that return a new tensor, given to `Model.forward(edits=[...])` or `Model.edited`.

    with model.edited([Zero("9.6 9.9"), Add(12, direction, scale=4, component="residual")]) as hf:
        hf.generate(...)

They act on z [example, pos, head, width], each head's output before the output projection, unless `component` says q, k, v,
pattern or residual. Several edits of one component act in the order given.
"""

from headatlas.edits import directions
from headatlas.edits.attention import Attend, Block, Temper
from headatlas.edits.base import Heads, OnHeads
from headatlas.edits.collect import collect
from headatlas.edits.mean import Mean
from headatlas.edits.move import Add, Project, Scale
from headatlas.edits.replace import Resample, Swap, Zero
from headatlas.edits.store import load_edits, save

__all__ = [
    "Add", "Attend", "Block", "Heads", "Mean", "OnHeads", "Project", "Resample", "Scale", "Swap", "Temper", "Zero", "collect",
    "directions", "load_edits", "save",
]  # fmt: skip
