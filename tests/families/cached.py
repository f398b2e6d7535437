"""Cached generation, half precision, and a user's own choice of eager attention, each against the truth."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import torch
from torch import Tensor

import headatlas as ha
from headatlas.heads import HeadId
from headatlas.model import attach
from tests.families import writers
from tests.families.trial import CLOSE, Trial
from tests.families.truth import relative, run


def generation(kind: str, new: int = 6) -> Callable[[Trial], float | str]:
    """Cached generation (plain, with a head zeroed, with a head zeroed at one place of the prompt) against whole passes."""

    def step(trial: Trial) -> float | str:
        can = hasattr(trial.plain, "generate") and trial.plain.can_generate()
        if not can or trial.model.kind == "encoder" or not trial.model.has_logits:
            return "does not apply: it does not generate"
        prompt = {"input_ids": trial.given["input_ids"]}
        options = {
            "attention_mask": torch.ones_like(prompt["input_ids"]), "max_new_tokens": new, "min_new_tokens": new,
            "do_sample": False, "num_beams": 1, "output_logits": True, "return_dict_in_generate": True,
            "eos_token_id": None, "pad_token_id": 0, "use_cache": True,
        }  # fmt: skip
        seq2seq = "decoder_input_ids" in trial.given

        def whole(ids: Tensor) -> Tensor:
            given = {**prompt, "decoder_input_ids": ids[:, :-1]} if seq2seq else {"input_ids": ids[:, :-1]}
            return run(trial.plain, given)[0][:, -new:]

        try:
            own = copy.deepcopy(trial.fresh).generate(**prompt, **options)  # type: ignore[operator]
            drift = relative(torch.stack(own.logits, 1), whole(own.sequences))
        except Exception as error:
            return f"does not apply: the untouched model does not generate ({type(error).__name__}: {str(error)[:80]})"
        trial.facts["own cache against whole passes"] = drift
        index = max(i for i, layer in enumerate(trial.model.layers) if not seq2seq or layer.stack == "decoder")
        layer, where = trial.model.layers[index], trial.find_writers()[index]
        if where is None:
            return "no truth: nothing takes the heads' outputs"
        head = layer.n_heads - 1
        # An encoder-decoder's prompt is in its encoder; its decoder starts with one token.
        position = None if kind == "zero" else 0 if seq2seq else prompt["input_ids"].shape[1] - 1
        name = HeadId(layer.index, head, layer.stack)
        edits = (
            [] if kind == "plain" else [ha.Zero(name)] if position is None else [ha.Zero(name, positions=[position])]
        )
        with trial.model.edited(edits) as hf:
            found = hf.generate(**prompt, **options)  # type: ignore[operator]
        logits = torch.stack(found.logits, 1)
        other = copy.deepcopy(trial.fresh) if drift > CLOSE else trial.plain
        with writers.zeroed(other, where, head, position) if kind != "plain" else contextlib.nullcontext():
            if drift <= CLOSE:
                return relative(logits, whole(found.sequences))
            if kind == "place":
                return f"no truth: the untouched model's cached logits are off by {drift:.2g} from its whole passes"
            # A model whose cached passes differ from its whole ones: its own cached generation is the truth.
            return relative(logits, torch.stack(other.generate(**prompt, **options).logits, 1))  # type: ignore[operator]

    return step


def in_type(dtype: torch.dtype) -> Callable[[Trial], float | str]:
    """Unwatched, watched and with a head zeroed, in half precision."""

    def step(trial: Trial) -> float | str:
        hf = copy.deepcopy(trial.fresh).to(dtype)
        plain = copy.deepcopy(hf)
        try:
            expected, _ = run(plain, trial.given)
        except Exception as error:
            return f"does not apply: the untouched model does not run in it ({type(error).__name__})"
        if not bool(torch.isfinite(expected).all()):
            return "does not apply: the untouched model overflows in it"
        model = attach(hf)
        worst = relative(model.forward(trial.given), expected)
        worst = max(worst, relative(model.forward(trial.given, watch=lambda layer: layer.pattern), expected))
        layer, where = model.layers[0], trial.find_writers()[0]
        if where is not None:
            with writers.zeroed(plain, where, 0):
                expected, _ = run(plain, trial.given)
            found = model.forward(trial.given, edits=[ha.Zero(HeadId(layer.index, 0, layer.stack))])
            worst = max(worst, relative(found, expected))
        return worst

    return step


def chosen_eager(trial: Trial) -> float | str:
    """A user who chose eager attention keeps its numbers."""
    hf = copy.deepcopy(trial.fresh)
    try:
        hf.set_attn_implementation("eager")  # type: ignore[operator]
        expected, _ = run(hf, trial.given)
    except Exception as error:
        return f"does not apply: {type(error).__name__}"
    model = attach(copy.deepcopy(hf))
    return relative(model.forward(trial.given), expected)
