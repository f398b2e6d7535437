"""The part of the self-check that edits: an edit that changes nothing must change nothing, others must really act.

Where the model is causal, both are tried in padded batches at once, which checks padding in the same two runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from headatlas.model.core.model import Model
from headatlas.model.core.pass_context import Tokens
from headatlas.model.structure.selfcheck import Check, Probe, bound, padding_lines, padding_of, precision

IDENTITY = "an identity edit of all patterns changes nothing"


def edits(model: Model, inputs: Mapping[str, Tensor], reference: Tensor) -> list[Check]:
    """Checks of edits on sample inputs, against the untouched model's output; two runs."""
    same = model.forward(inputs, edits=[_identity(model)])
    changed = model.forward(inputs, edits=list(_shakes(model, 0, 1)))
    return _edit_lines(model, same - reference, reference, *(changed - reference)[:2])


def _identity(model: Model) -> Probe:
    """An edit that leaves all patterns as they are."""
    return Probe(tuple(head for layer in model.layers for head in layer.heads), "pattern", torch.clone)


def _shakes(model: Model, *examples: int) -> Iterator[Probe]:
    """Edits of the heads of the first layer in one example, and of the last layer in another."""
    for layer, example in zip((model.layers[0], model.layers[-1]), examples, strict=True):
        yield Probe(layer.heads, "z", functools.partial(_shaken, example=example))


def _edit_lines(model: Model, drift: Tensor, reference: Tensor, *moved: Tensor, above: float = 0.0) -> list[Check]:
    """What edits did: drift: under an identity edit; moved: under a change of the first layer's heads, and of the last's."""
    limit = bound(precision(model), 1e-4, 5e-2)
    far = float(drift.float().abs().max()) / (float(reference.float().abs().max()) + 1e-9)
    checks = [Check(IDENTITY, far <= limit, far, limit, "eager against the fast kernel")]
    for layer, difference in zip((model.layers[0], model.layers[-1]), moved, strict=True):
        if not bool(layer.output_weight().any()):
            continue  # pruned, or initialised to write nothing: there is nothing to move
        value = float(difference.float().abs().max())
        name = f"an edit of the heads of {layer.stack} layer {layer.index} moves the output"
        checks.append(Check(name, value > above, value, above, ""))
    return checks


def edits_in_padding(model: Model, tokens: Tensor, reference: Tensor) -> list[Check] | None:
    """What `edits` and `padding` check, in two runs, where all of it holds; None where it does not and each must be seen alone.

    The identity edit is made in a batch padded on the right, the others in one padded on the left. Only for causal models,
    where what the untouched model gave for the beginning of a text is what it gives for that beginning alone.
    """
    limit = bound(precision(model), 1e-4, 5e-2) * (float(reference.float().abs().max()) + 1e-9)
    pads = padding_of(tokens.shape[1])
    short = tokens.shape[1] - pads
    alone = reference[0, :short]

    def far(found: Tensor, wanted: Tensor) -> float:
        return float((found - wanted).float().abs().max())

    if len(tokens) < 3 or far(reference[2, :short], alone) > limit:
        return None
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[2, short:] = False
    model.left_padding = "positions" if "position_ids" in model.accepts else "mask"
    shifted = torch.cat([tokens[0, short:], tokens[0, :short]])
    left = Tokens(torch.stack([tokens[0], tokens[1], shifted]), mask.flip(1))
    same = model.forward(Tokens(tokens, mask), edits=[_identity(model)])
    changed = model.forward(left, edits=list(_shakes(model, 0, 1)))
    right_far, left_far = far(same[2, :short], alone), far(changed[2, pads:], alone)
    lines = _edit_lines(model, same[:2] - reference[:2], reference, *(changed[:2] - reference[:2]), above=limit)
    lines += padding_lines(right_far, left_far, limit, model.left_padding)
    holds = right_far <= limit and left_far <= limit and all(line.ok for line in lines)
    return lines if holds else None


def _shaken(z: Tensor, example: int) -> Tensor:
    """Random numbers of about the size of z in one example, or of 1 where z is zero.

    Not zeros: heads of a planted or pruned model may well put out nothing themselves.
    """
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z.device, z.dtype)
    size = z.float().abs().max().to(z.dtype)
    changed = z.clone()
    changed[example] = (noise * (size if bool(size > 0) else 1.0))[example]
    return changed
