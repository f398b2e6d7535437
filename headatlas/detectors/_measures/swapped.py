"""What a metric becomes where each head in turn computes what it computes on other prompts (activation patching)."""

from __future__ import annotations

from torch import Tensor

from headatlas.edits import Swap
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.ops.types import Array
from headatlas.task import Batch


def swapped(
    bench: CachedRuns, source: Batch, at: Tensor, *, component: str = "z", source_at: Tensor | None = None
) -> Array:
    """[example, head] by how much the metric of `bench` rises where a head's `component` at positions `at` [example, n] is that of `source`.

    source_at: [example, n] the positions there; None: the same.
    """
    model = bench.model
    values = Swap.over(model, model.heads, source, source=source_at, component=component, positions=at).values
    runs = [[Swap([head], values, component=component, positions=at)] for head in model.heads]
    return (bench.measure(runs) - bench.clean).T
