"""A smaller checkpoint on the disk: an ordinary transformers folder, compared with the masked model before it gets its name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from headatlas.apply.pruning.agreement import Agreement, agreement
from headatlas.apply.pruning.orders import Removal
from headatlas.apply.pruning.smaller import Smaller, smaller_model
from headatlas.errors import BadInput, StoreError
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.model import Model
from headatlas.model.sources.weights import unreported
from headatlas.model.structure.selfcheck import sample
from headatlas.ops.types import LayerKey
from headatlas.reading import reason
from headatlas.render.numbers import count
from headatlas.store import new_folder, write_json

SCHEMA = "headatlas/pruned/1"
RECORD = "pruned.json"
# What of a model's folder says how texts are read, and under which terms it may be used.
_COPIED = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges", "spiece", "sentencepiece", "chat_template",
           "preprocessor_config", "LICENSE", "NOTICE")  # fmt: skip
_NARROWER = (torch.bfloat16, torch.float16)
_LENGTH = 48  # of the random tokens on which both models are compared, at least


@dataclass(frozen=True)
class PrunedCheckpoint:
    """A written folder. parameters: (before, after); heads, groups: query and key-value heads of a layer, (before, after).

    kept, removed: heads of the model that are there and gone; fillers: heads of zeros in the new one, repeated: key-value heads that
    are there twice. agreement: how far its logits are from those of the masked model. dtype: of the weights in the file.
    """

    folder: Path
    parameters: tuple[int, int]
    heads: tuple[int, int]
    groups: tuple[int, int]
    kept: int
    removed: int
    fillers: int
    repeated: int
    agreement: Agreement
    dtype: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {**vars(self), "folder": str(self.folder), "agreement": vars(self.agreement), "facts": dict(self.facts)}

    def __repr__(self) -> str:
        before, after = self.parameters
        return (
            f"PrunedCheckpoint({self.folder}: {after:,} of {before:,} parameters ({after / before:.0%}), "
            f"{count(self.heads[1], 'head')} a layer in {count(self.groups[1], 'KV group')} (were {self.heads[0]} in {self.groups[0]}); logits differ by {self.agreement})"
        )


def write_pruned(
    model: Model, removed: Heads, out: str | Path, *, means: Mapping[LayerKey, Tensor] | None = None
) -> PrunedCheckpoint:
    """Write a model without some heads as a smaller transformers folder, which plain `from_pretrained` loads.

    removed: heads that give zero, or `means` (stack, layer) -> [head, d_value], as `Pruning.means` and `Mean.over(...).values` have them,
    which go into the bias of the output projection. It is loaded again and its logits compared with those of the model under
    `Zero` or `Mean` (`agreement`) before the folder gets its name, and holds the tokenizer and a record (pruned.json) of where each head comes from. Weights are written in the narrowest type in which none changes. Raises BadInput where no
    shape is smaller, StoreError where `out` exists or cannot be written, UnsupportedModel where the family cannot have fewer heads.
    """
    out = Path(out)
    if out.exists():
        raise StoreError(f"{out} exists already.", "Name a folder that does not exist yet.")
    if isinstance(removed, list | tuple | set | frozenset) and not removed:
        raise BadInput("No head is removed, so nothing gets smaller.", "Name heads, or keep a smaller share.")
    gone = tuple(sorted(set(parse_heads(removed, model.heads))))
    model.require(gone)
    if means is not None and (lacking := sorted({(head.stack, head.layer) for head in gone} - means.keys())):
        raise BadInput(
            f"There are no means for layer {lacking[0][1]}.",
            "Take them of all layers: Mean.over(model, model.heads, texts).",
        )
    small = smaller_model(model, gone, means)
    inputs = sample(model.hf, model.config, _LENGTH)
    dtype = _narrowest(small.hf)
    with new_folder(out) as half:
        try:
            with unreported():
                small.hf.to(dtype).save_pretrained(half)  # type: ignore[operator]
        except SafetensorError as error:  # a full disk, in words of its own
            raise StoreError(
                f"{out} cannot be written: {reason(error)}.", "Free some space, or choose another folder."
            ) from error
        for file in half.glob("*.safetensors"):  # written for the owner alone; a folder needs the usual rights
            shutil.copymode(half / "config.json", file)
        _copy_files(model, half)
        with unreported():
            again = type(model.hf).from_pretrained(half, dtype=model.dtype)  # type: ignore[attr-defined]
        agreed = agreement(model, Removal(means).of(gone), again.to(model.device).eval(), inputs)
        found = _described(model, small, out, len(gone), agreed, dtype, means is not None)
        if not found.parameters[1] < found.parameters[0]:  # biases may outweigh what few heads leave
            raise BadInput(
                f"In the smallest shape it would have {found.parameters[1]:,} parameters, and the model has {found.parameters[0]:,}.",
                "Remove more heads.",
            )
        write_json(half / RECORD, {"schema": SCHEMA, **_facts(found), **_record(model, small, gone)})
    return found


def _narrowest(hf: nn.Module) -> torch.dtype:
    """The narrowest type in which every weight stays as it is: a checkpoint in bfloat16 that was opened in float32 is written as it was."""
    weights = [part for part in hf.parameters() if part.is_floating_point()]
    own = weights[0].dtype
    if own != torch.float32:
        return own
    return next((kind for kind in _NARROWER if all(torch.equal(x.to(kind).to(own), x) for x in weights)), own)


def _copy_files(model: Model, into: Path) -> None:
    """The tokenizer's files, as they are; a model from memory has none."""
    folder = None if model.source is None else model.source.folder
    for file in sorted(folder.iterdir()) if folder is not None else ():
        if file.is_file() and file.name.startswith(_COPIED):
            shutil.copyfile(file, into / file.name)


def _described(
    model: Model,
    small: Smaller,
    out: Path,
    n_removed: int,
    agreed: Agreement,
    dtype: torch.dtype,
    mean: bool,
) -> PrunedCheckpoint:
    sizes = tuple(sum(part.numel() for part in one.parameters()) for one in (model.hf, small.hf))
    layer, form = model.layers[0], small.form
    facts = {
        "model": model.name,
        "sha256": model.sha256(),
        "architecture": model.architecture,
        "removal": "mean" if mean else "zero",
    }
    return PrunedCheckpoint(
        out, (sizes[0], sizes[1]), (layer.n_heads, form.n_heads), (layer.n_groups, form.n_groups), len(model.heads) - n_removed,
        n_removed, form.fillers, form.repeated, agreed, str(dtype).removeprefix("torch."), facts,
    )  # fmt: skip


def _facts(found: PrunedCheckpoint) -> dict[str, Any]:
    """What the record says of the folder that it lies in."""
    return {name: value for name, value in found.data.items() if name != "folder"}


def _record(model: Model, small: Smaller, gone: Sequence[HeadId]) -> dict[str, Any]:
    """Where each head of the new model comes from, by layer: numbers of old heads and KV groups, null for fillers."""
    layers = [
        {"layer": layer.index, "heads": list(small.form.heads[key]), "groups": list(small.form.groups[key])}
        for layer in model.layers
        for key in [(layer.stack, layer.index)]
    ]
    return {"removed_heads": list(map(str, gone)), "layers": layers}
