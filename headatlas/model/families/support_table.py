"""Which model families work, how their attention is reached, and which are refused: found by trying each tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import transformers

from headatlas.errors import UnsupportedModel
from headatlas.model import layouts, loading
from headatlas.model.core import head_weights
from headatlas.model.core.model import Model
from headatlas.model.core.view import LayerView
from headatlas.model.families.tiny_models import Family
from headatlas.model.structure import selfcheck
from headatlas.store import write_text

Line = TypeVar("Line")


@dataclass(frozen=True)
class Row:
    """One family. refused: why, or None; then the rest is what was found.

    attention: what computes it when nothing is edited, sdpa or eager, and whether a layout routes it through the dispatch.
    window: how many positions back its shortest-sighted layer sees, None for all. sink: a learned sink takes part of each
    row. between: what lies between a head's pattern times values and the output projection (a gate or norm), or None.
    writes: how a head's write enters the residual stream. left_padding: who counts positions, or refused. restarts:
    whether a run may start at a layer. weights: whether per-head weights are exact.
    """

    family: str
    architecture: str
    refused: str | None = None
    stacks: tuple[str, ...] = ()
    attention: str = ""
    heads: int = 0
    groups: int = 0
    window: int | None = None
    sink: bool = False
    between: str | None = None
    writes: str = ""
    left_padding: str = ""
    restarts: bool = False
    weights: str = ""


def rows(families: Iterable[Family]) -> list[Row]:
    """Try each family; takes about a fifth of a second each."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # what a family cannot do is the answer here, not a warning
    try:
        return [row(family) for family in families]
    finally:
        transformers.logging.set_verbosity(verbosity)


def row(family: Family) -> Row:
    """Try one family."""
    try:
        return row_of(family, loading.attach(family.build(), anew=True))
    except UnsupportedModel as error:
        return Row(family.name, family.architecture, refused=error.message)


def row_of(family: Family, model: Model) -> Row:
    """What an opened model shows of itself."""
    inputs = selfcheck.sample(model.hf, model.config, length=40)
    seen: list[SimpleNamespace] = []
    model.forward(inputs, watch=lambda layer: seen.append(_look(layer)))
    first = model.layers[0]
    reaches = [look.reach for look in seen if look.stack != "cross" and look.reach < look.n_keys - 1]
    layout = layouts.layout_of(model.hf)
    padding = {"positions": "by position ids", "mask": "by the model", None: "refused"}
    return Row(
        family.name,
        model.architecture,
        stacks=model.stacks,
        attention=model.path if layout is None else f"{model.path}, layout {layout.name}",
        heads=first.n_heads,
        groups=first.n_groups,
        window=min(reaches) if reaches else None,
        sink=any(look.sink for look in seen),
        between="gate or norm" if any(look.changed for look in seen) else None,
        writes=_writes(model),
        left_padding=padding[model.left_padding] if "input_ids" in inputs else "not text",
        restarts=model.restarts,
        weights=_weights(model),
    )


def _look(layer: LayerView) -> SimpleNamespace:
    """What one layer shows on a short input."""
    pattern, z = layer.pattern, layer.z.clone()
    ahead = torch.arange(layer.n_keys) - torch.arange(layer.n_queries)[:, None]
    distance = ahead.abs() if not layer.causal else -ahead
    plain = layer.from_pattern(pattern)
    return SimpleNamespace(
        stack=layer.stack,
        n_keys=layer.n_keys,
        reach=int(torch.where(pattern.amax((0, 1)) > 0, distance, 0).max()),
        sink=bool((pattern.sum(-1) < 1 - 1e-3).any()),
        changed=not torch.allclose(plain, z, atol=1e-3 * float(z.abs().max()) + 1e-6),
    )


def _writes(model: Model) -> str:
    layer = model.layers[0]
    if layer.indirect:
        return "indirectly"
    if layer.post_gain is not None:
        return "through a gain per channel"
    return "straight" if layer.multiplier == 1.0 else f"times {layer.multiplier:.3g}"


def _weights(model: Model) -> str:
    try:
        exact = all(head_weights.of_layer(layer).exact for layer in model.layers)
    except UnsupportedModel:
        return "no"
    return "yes" if exact else "not exact"


def as_json(found: Sequence[Row]) -> dict[str, Any]:
    """The table as plain data."""
    return {"families": [vars(line) for line in found]}


COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "Family": lambda line: line.family,
    "Class": lambda line: f"`{line.architecture}`",
    "Stacks": lambda line: ", ".join(line.stacks),
    "Attention by": lambda line: line.attention,
    "KV groups": lambda line: f"{line.groups} of {line.heads}",
    "Sees back": lambda line: "all" if line.window is None else str(line.window),
    "Sink": lambda line: "learned" if line.sink else "",
    "Before W_O": lambda line: line.between or "",
    "Writes": lambda line: line.writes,
    "Left padding": lambda line: line.left_padding,
    "Starts at a layer": lambda line: "yes" if line.restarts else "no",
    "W_Q, W_K, W_V": lambda line: line.weights,
}
REFUSALS: Mapping[str, Callable[[Row], str]] = {
    "Family": lambda line: line.family,
    "Class": lambda line: f"`{line.architecture}`",
    "Why": lambda line: (line.refused or "").removeprefix(f"{line.architecture} is not supported: "),
}


def table(found: Sequence[Line], columns: Mapping[str, Callable[[Line], str]]) -> list[str]:
    """Rows as the lines of a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(cell(line) for cell in columns.values()) + " |" for line in found]


def halves(found: Sequence[Row]) -> list[tuple[Mapping[str, Callable[[Row], str]], list[Row]]]:
    """The families that work and those that are refused, each with the columns that tell about them."""
    works = [line for line in found if line.refused is None]
    return [(COLUMNS, works), (REFUSALS, [line for line in found if line.refused is not None])]


def write(path: Path, found: Sequence[Row], more: str = "") -> None:
    """Write the page, whole or not at all; `more` comes after it (`every_class.section`). Raises StoreError."""
    write_text(path, markdown(found) + more, "Choose another place for --out.")


def markdown(found: Sequence[Row]) -> str:
    """The page docs/models.md."""
    works, refused = (lines for _, lines in halves(found))
    return PAGE.format(
        version=transformers.__version__,
        n_works=len(works),
        n_refused=len(refused),
        works="\n".join(table(works, COLUMNS)),
        refused="\n".join(table(refused, REFUSALS)),
    )


PAGE = """# Models

This page is made by `headatlas families --out docs/models.md` (transformers {version}): for each family, a model of three
small layers with random weights is built, opened and looked at. Families are recognised by what they do, not by name, so
a family that is not listed may work as well; `headatlas check MODEL` tells for a real checkpoint.

## Adapters, quantised and wrapped models

What counts is the linear map that the model really computes. Where it is no plain weight, headatlas asks the module for
what it makes of the unit vectors; `tests/families/test_wrapped.py`, `test_adapters.py` and `test_quantised.py` compare with plain twins.

- LoRA, DoRA, IA3, OFT and others of PEFT, on any projection or the unembedding; `PeftModel` or `add_adapter`: exact, as the merged model; chosen adapters count, those switched off do not; `atlas.json` names them.
- A nonlinear adapter beside the output projection: edits, ablation, patching and patterns are exact; what heads write is refused.
- Something else that reads what heads put out: refused: merge first (`merge_and_unload()`).
- Prompt and prefix tuning, learned prompts within the attention: refused: their keys are no tokens of the text.
- Quantised weights (int8 weight-only of torchao and Quanto): exact, with the dequantised weights. int4 and nf4 on GPUs take the same way and were not tried.
- Int8 activations with a scale per token; kernels that round what they are given (nf4 on CPUs): edits, ablation, patching and patterns are exact; weights are the dequantised ones; what heads write is refused.
- Int8 activations rounded by the whole batch (`quantize_dynamic`, bitsandbytes `load_in_8bit` with its outliers): refused: an example's numbers depend on what else is in its batch.
- Quantised activations handed from module to module (Quanto): refused.
- Weights on disk or held back on the CPU by accelerate: exact, and runs start at a layer ([how](scale.md)).
- Pruned (`torch.nn.utils.prune`), weight or spectral norm: exact.
- `DataParallel`, `torch.compile(model)`: the model within is opened.
- Layers whose heads are zero or write nothing: exact.

## {n_works} families that work

`test_matrix.py`, `test_matrix_edits.py` and `test_weights.py` in `tests/model/` compare each with an untouched copy of
itself: the same output to the last bit, with and without watchers; attention weights equal to the model's own; every
layer seen at its address; a zeroed head moves the output; the heads' writes sum to the block's output; padding on
either side changes no number of any example; runs that start at a layer equal whole runs; per-head weights give the q,
k and v that arrive.

{works}

- **Attention by**: what computes attention where no pattern is edited, `sdpa` (torch's kernels) or `eager` (the model's
  own code); a layout is a file in `headatlas/model/layouts/` for a family that does not ask transformers' interface.
- **KV groups**: key and value heads of the tiny model, of its query heads. Edits of k and v act on a whole group.
- **Sees back**: how many places back the layer with the shortest window sees (also ahead, in an encoder).
- **Sink**: a learned sink takes part of each row, whose weights then sum to less than one. It may be one more logit of the
  softmax (GPT-OSS) or a factor on the output (Granite SWA), which is the same: weights are given with it in both.
- **Before W_O**: what changes a head's pattern times values before the output projection; `z` is taken after it.
- **Writes**: how a head's write enters the residual stream: straight, by a factor, or through a gain per channel (of a
  norm, whose scale depends on the token, or of a learned scale). Indirectly: several residual streams share it, or a
  convolution spreads it over tokens; z, patterns and their scores are exact there, and what is read off W_O (circuits,
  direct effects) is refused. An edit of one of several streams is refused as well.
- **Left padding**: by position ids that skip it, by the model's own mask, or refused with a message (pad on the right).
  Sparse attention (DeepSeek V3.2, MiniMax M3 ...) keeps the keys of highest rank: a padded batch in which rounding or
  padding decides between them is refused, because the model itself computes other numbers for it than for single texts.
- **Starts at a layer**: whether a run may enter at a layer with a kept residual stream. Where not, sweeps run whole.
- **W_Q, W_K, W_V**: `yes` means q = x W_Q + b exactly, before rotary embeddings and norms of queries and keys; `not
  exact` that values are clipped, or that a norm lies within a low-rank product.

## {n_refused} families that are refused

A model is refused with such a message and exit code 1, because its numbers could be wrong.

{refused}
"""
