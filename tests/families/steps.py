"""What a model shows in whole passes: output, layers, patterns, edits and padding, each against the truth."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import headatlas as ha
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.heads import HeadId
from headatlas.model.families.build import sample
from tests.families import truth, writers
from tests.families.trial import CLOSE, AddVector, LookAtFirst, Refused, Trial
from tests.families.truth import relative, run

LENGTHS = (40, 29, 13)


def unwatched(trial: Trial) -> float:
    return relative(trial.model.forward(trial.given), trial.logits)


def watching(trial: Trial) -> float:
    return relative(trial.model.forward(trial.given, watch=lambda layer: layer.pattern), trial.logits)


def plain_use(trial: Trial) -> float:
    return relative(run(trial.model.hf, trial.given)[0], trial.logits)


def longer_and_shorter(trial: Trial) -> float:
    """Other lengths than the one before, so that nothing is kept from pass to pass."""
    worst = 0.0
    for length in (100, 7):
        given = sample(trial.plain, length=length, seed=5)
        worst = max(worst, relative(trial.model.forward(given), run(trial.plain, given)[0]))
    return worst


def every_layer(trial: Trial) -> str | float:
    """Each attention call of an untouched copy is one layer, in the right stack, causal where it is."""
    numbers = trial.call_numbers()
    if trial.seen.calls and (None in numbers or len(set(numbers)) != len(trial.seen.calls)):
        return f"wrong: {len(trial.seen.calls)} attention calls, of which {len(set(numbers) - {None})} are layers"
    for layer, number in zip(trial.model.layers, numbers, strict=True):
        if number is None:
            continue
        call = trial.seen.calls[number]
        if "decoder_input_ids" in trial.given:
            stack = truth.stack_of(call, trial.given)
        elif trial.comparable and trial.eager_seen.calls[number].weights is not None:
            weights = trial.eager_seen.calls[number].weights
            square = weights.shape[-1] == weights.shape[-2]
            ahead = square and float(weights.triu(1).abs().max()) > 0
            stack = "encoder" if ahead else "decoder" if square else layer.stack
        else:
            continue
        if stack != layer.stack:
            return f"wrong: {layer.name} is {stack}, found as {layer.stack} {layer.index}"
    addresses = [(layer.stack, layer.index) for layer in trial.model.layers]
    return 0.0 if len(set(addresses)) == len(addresses) else "wrong: two layers share an address"


def patterns(trial: Trial) -> str | float:
    """Attention weights against those that an eager copy computes."""
    if not trial.comparable:
        return "no truth: the model's own eager attention gives other numbers, or there is none"
    ours: dict[tuple[str, int], Tensor] = {}
    trial.model.forward(
        trial.given, watch=lambda layer: ours.update({(layer.stack, layer.index): layer.pattern.clone()})
    )
    theirs = [trial.eager_seen.calls[n].pattern if n is not None else None for n in trial.call_numbers()]
    if all(one is None for one in theirs):
        theirs = reported(trial)
    if all(one is None for one in theirs):
        return "no truth: the untouched model reports no weights of the attention that it computes"
    worst = 0.0
    for layer, expected in zip(trial.model.layers, theirs, strict=True):
        if expected is not None:
            found = ours[layer.stack, layer.index]
            worst = max(worst, float((found - expected).abs().max()) if found.shape == expected.shape else float("inf"))
    return worst


def reported(trial: Trial) -> list[Tensor | None]:
    """Attention weights that a model reports itself, of a family that asks no interface."""
    with torch.no_grad():
        output = trial.eager(**trial.given, output_attentions=True)  # type: ignore[misc]
    found = [layer for layer in (output.attentions or ()) if layer is not None]
    # Reporting may itself change what is computed (Falcon); then the report says nothing about the model as it runs.
    fits = len(found) == len(trial.model.layers) and relative(truth.read(output), trial.logits) < CLOSE
    return list(found) if fits else [None] * len(trial.model.layers)


def zeroing(trial: Trial) -> str | float:
    """One head of every layer zeroed, against zeros in its columns where it writes."""
    worst, least = 0.0, float("inf")
    for i, (layer, where) in enumerate(zip(trial.model.layers, trial.find_writers(), strict=True)):
        if where is None:
            return f"wrong: no linear map takes the heads of {layer.name}, and yet it opens"
        head = (i + 1) % layer.n_heads
        with writers.zeroed(trial.plain, where, head):
            expected, _ = run(trial.plain, trial.given)
        found = trial.model.forward(trial.given, edits=[ha.Zero(HeadId(layer.index, head, layer.stack))])
        worst, least = max(worst, relative(found, expected)), min(least, relative(expected, trial.logits))
    trial.facts["zeroing moves"] = least
    return worst


def pattern_edit(trial: Trial) -> str | float:
    if not trial.comparable:
        return "no truth: the model's own eager attention gives other numbers, or there is none"
    worst, refusal, tried = 0.0, "", 0
    for i, (layer, number) in enumerate(zip(trial.model.layers, trial.call_numbers(), strict=True)):
        if number is None or not truth.formed_from_weights(trial.eager_seen.calls[number]):
            continue
        tried += 1
        head = (i + 2) % layer.n_heads
        expected, _ = run(trial.eager, trial.given, truth.looking_at_first(number, head))  # type: ignore[arg-type]
        try:
            found = trial.model.forward(trial.given, edits=[LookAtFirst(HeadId(layer.index, head, layer.stack))])
        except HeadAtlasError as error:
            refusal = str(error)
            continue
        worst = max(worst, relative(found, expected))
    if refusal:
        raise Refused(refusal)
    return worst if tried else "no truth: outputs are not weights times values, or no interface is asked"


def residual_edit(trial: Trial) -> str | float:
    """A vector added to what enters the first and the last block of the main stack."""
    main = [
        layer
        for layer in trial.model.layers
        if layer.stack == trial.model.layers[-1].stack or len(trial.model.stacks) == 1
    ]
    if "cross" in trial.model.stacks:
        main = [layer for layer in trial.model.layers if layer.stack == "decoder"] or main
    worst = 0.0
    for layer in (main[0], main[-1]):
        block = truth.block_of(trial.plain, layer.name)
        if block is None:
            return "no truth: no list of blocks"
        width = truth.width_at(trial.plain, trial.given, block)
        vector = torch.randn(width, generator=torch.Generator().manual_seed(5))
        found = trial.model.forward(trial.given, edits=[AddVector((layer.stack, layer.index), vector)])
        with truth.added(trial.plain, block, vector):
            expected, _ = run(trial.plain, trial.given)
        worst = max(worst, relative(found, expected))
    return worst


def padding(side: str) -> Callable[[Trial], float | str]:
    """A padded batch against its single texts. It may be refused where the untouched model is not the same either."""

    def step(trial: Trial) -> float | str:
        texts, tokens, mask = padded(side, 9)
        try:
            found = trial.model.forward(batch_of(trial, tokens, mask))
        except BadInput as error:
            # Where rounding decides, it does for some texts and not for others, so several are tried.
            tried = (own_padding(trial, *padded(side, seed)) for seed in range(9, 17))
            own = next((far for far in tried if far >= CLOSE), 0.0)
            if own < CLOSE:
                return f"wrong: refused ({error}), and yet the untouched model takes it"
            return f"rightly refused: {error} (the untouched model is off by {own:.2g} itself)"
        singles = [run(trial.plain, both(trial, text[None]))[0][0] for text in texts]
        return max(relative(found[i, mask[i]], single) for i, single in enumerate(singles))

    return step


def padded(side: str, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Random texts of several lengths, and the same as one batch: tokens and mask [example, pos]."""
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(5, 180, (n,), generator=generator) for n in LENGTHS]
    tokens = torch.full((len(texts), max(LENGTHS)), 7)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, text in enumerate(texts):
        where = slice(-len(text), None) if side == "left" else slice(0, len(text))
        tokens[i, where], mask[i, where] = text, True
    return texts, tokens, mask


def batch_of(trial: Trial, tokens: Tensor, mask: Tensor) -> Any:
    """A padded batch as it is handed over; both stacks of an encoder-decoder read the same ids."""
    if "decoder_input_ids" not in trial.given:
        return SimpleNamespace(tokens=tokens, mask=mask)
    told, pad = mask.long(), getattr(trial.model.config, "pad_token_id", None)
    tokens = tokens.masked_fill(~mask, pad if isinstance(pad, int) else 0)  # some count positions by it
    return {**both(trial, tokens), "attention_mask": told, "decoder_attention_mask": told}


def both(trial: Trial, tokens: Tensor) -> dict[str, Tensor]:
    return {name: tokens for name in trial.given}


@torch.no_grad()
def own_padding(trial: Trial, texts: list[Tensor], tokens: Tensor, mask: Tensor) -> float:
    """How far a padded batch is from single texts in the untouched model, at best, whichever way padding is told."""
    places = (mask.long().cumsum(1) - 1).clamp(min=0)
    best = float("inf")
    for extra in ({}, {"position_ids": places}):
        try:
            given = {**both(trial, tokens.masked_fill(~mask, 0)), "attention_mask": mask.long(), **extra}
            if "decoder_input_ids" in given:
                given["decoder_attention_mask"] = mask.long()
            found, _ = run(trial.plain, given)
        except Exception:
            continue
        far = [
            relative(found[i, mask[i]], run(trial.plain, both(trial, text[None]))[0][0]) for i, text in enumerate(texts)
        ]
        best = min(best, max(far))
    return best
