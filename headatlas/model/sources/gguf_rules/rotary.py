"""Rotary position embeddings as a GGUF file gives them: base, scaling and factors per frequency.

llama.cpp turns the pair i of a head by the angle position * base ** (-2i / d) / factor[i]. What Llama 3 calls its
scaling is only kept as these factors (`rope_freqs.weight`), from which the parameters are found again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from headatlas.model.sources.gguf_rules.metadata import Metadata, unknown

FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
_BASE = 10000.0  # what llama.cpp takes where the file names none
_NO_SCALING = (None, "none")
_EXACT = 2e-6  # relative; the factors are stored with 24 bits


def parameters(keys: Metadata, tensors: Mapping[str, np.ndarray], head_dim: int, *, partial: bool) -> dict[str, Any]:
    """The `rope_parameters` of a transformers configuration. Raises UnsupportedModel for what it cannot hold.

    tensors: those of FREQUENCIES, LONG and SHORT that the file has, each [rotated width / 2].
    partial: whether the architecture can leave a part of each head unturned.
    """
    base = float(keys.get("rope.freq_base", _BASE))
    width = int(keys.get("rope.dimension_count", head_dim))
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    if partial:
        rope["partial_rotary_factor"] = _share(keys, width, head_dim)
    elif width != head_dim:
        raise keys.refusal("rope.dimension_count", f"{width} of each head's {head_dim} dimensions would be turned")
    rope |= _scaling(keys, tensors)
    if FREQUENCIES in tensors:
        if rope["rope_type"] != "default":
            raise unknown("tensor", FREQUENCIES, keys.file, f"beside scaling of the type {rope['rope_type']}")
        rope |= llama3(tensors[FREQUENCIES], base, width, keys.file)
    return rope


def _share(keys: Metadata, width: int, head_dim: int) -> float:
    share = width / head_dim
    if int(head_dim * share) != width:  # transformers multiplies and cuts
        raise keys.refusal("rope.dimension_count", f"{width} of {head_dim} cannot be written as a share")
    return share


def _scaling(keys: Metadata, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    kind = keys.get("rope.scaling.type")
    factor = keys.get("rope.scaling.factor")
    old = keys.get("rope.scale_linear")  # of files from before the other keys
    attention = keys.get("rope.scaling.attn_factor")
    if (LONG in tensors) != (SHORT in tensors):
        raise unknown("tensor", LONG if LONG in tensors else SHORT, keys.file, "the other of the pair is missing")
    if LONG in tensors:
        if kind not in (*_NO_SCALING, "longrope"):
            raise unknown("tensor", LONG, keys.file, f"beside scaling of the type {kind}")
        return _long(keys, tensors, attention)
    if kind == "yarn":
        return _yarn(keys, factor, attention)
    if attention not in (None, 1):
        raise keys.refusal("rope.scaling.attn_factor", f"beside scaling of the type {kind}")
    if kind is None and old not in (None, 0, 1):
        return {"rope_type": "linear", "factor": float(old)}
    # Nothing is scaled without a type; llama.cpp takes a factor alone as linear.
    if kind == "linear" or (kind is None and factor not in (None, 0, 1)):
        keys.get("rope.scaling.original_context_length")  # of use to yarn alone
        return {"rope_type": "linear", "factor": float(keys.require("rope.scaling.factor"))}
    if kind not in _NO_SCALING:
        raise keys.refusal("rope.scaling.type", f"its value is {kind}")
    keys.get("rope.scaling.original_context_length")  # nothing is scaled, so the first length is no number of the model
    return {}


def _yarn(keys: Metadata, factor: Any, attention: Any) -> dict[str, Any]:
    factor = float(keys.require("rope.scaling.factor") if factor is None else factor)
    rope: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "beta_fast": float(keys.get("rope.scaling.yarn_beta_fast", 32.0)),
        "beta_slow": float(keys.get("rope.scaling.yarn_beta_slow", 1.0)),
        "original_max_position_embeddings": int(
            keys.get("rope.scaling.original_context_length", keys.require("context_length"))
        ),
    }
    if keys.get("rope.scaling.yarn_ext_factor", 1) != 1:
        raise keys.refusal("rope.scaling.yarn_ext_factor", "transformers mixes the two rotations fully")
    if keys.get("rope.scaling.yarn_log_multiplier", 0) != 0:
        raise keys.refusal("rope.scaling.yarn_log_multiplier")
    whole = keys.get("rope.scaling.yarn_attn_factor")  # written from transformers' attention_factor
    if whole is not None and attention not in (None, 1):
        raise keys.refusal("rope.scaling.attn_factor", "beside yarn_attn_factor")
    if whole is not None:
        rope["attention_factor"] = float(whole)
    elif attention not in (None, 1):
        rope["attention_factor"] = float(attention) * (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
    return rope


def _long(keys: Metadata, tensors: Mapping[str, np.ndarray], attention: Any) -> dict[str, Any]:
    first, longest = keys.require("rope.scaling.original_context_length"), keys.require("context_length")
    keys.get("rope.scaling.factor")  # the ratio of the two lengths
    rope: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": [float(str(value)) for value in tensors[SHORT].astype(np.float32)],
        "long_factor": [float(str(value)) for value in tensors[LONG].astype(np.float32)],
        "original_max_position_embeddings": int(first),
        "factor": longest / first,
    }
    return {**rope, "attention_factor": float(attention)} if attention is not None else rope


def llama3(factors: np.ndarray, base: float, width: int, file: str) -> dict[str, Any]:
    """The parameters of Llama 3's scaling that give these factors; empty where all are one.

    factors: [width / 2], what each frequency is divided by. Long waves are stretched by `factor`, short ones are
    kept, and between a factor is 1 / ((1 - s) / factor + s) with s linear in the frequency. The line has two
    numbers and the parameters three, of which transformers uses only ratios, so that low_freq_factor may be taken as
    1. Raises UnsupportedModel where no parameters give the factors back.
    """
    factors = np.asarray(factors, dtype=np.float64)
    if factors.shape != (width // 2,):
        raise unknown("tensor", FREQUENCIES, file, f"{factors.size} numbers for {width // 2} frequencies")
    waves = 2 * math.pi * base ** (np.arange(0, width, 2) / width)
    if np.all(factors == 1):
        return {}
    # Published models first: where few frequencies lie in the band, their numbers are the likeliest of those that fit.
    published = ((factor, 1.0, 4.0, 8192.0) for factor in (8.0, 32.0))
    stretches = sorted({float(str(np.float32(factors.max()))), 8.0, 32.0})
    fitted = (fit for stretch in stretches for fit in _fits(factors, waves, stretch))
    for stretch, low, high, length in itertools.chain(published, fitted):
        if low < high and np.allclose(_factors(waves, stretch, low, high, length), factors, rtol=_EXACT, atol=0):
            # Only ratios count, and transformers wants a whole length.
            whole = math.ceil(length)
            return {
                "rope_type": "llama3",
                "factor": stretch,
                "low_freq_factor": low * whole / length,
                "high_freq_factor": high * whole / length,
                "original_max_position_embeddings": whole,
            }
    raise unknown("tensor", FREQUENCIES, file, "no parameters of Llama 3's rotary scaling give its numbers")


def _factors(waves: np.ndarray, stretch: float, low: float, high: float, length: float) -> np.ndarray:
    smooth = np.clip((length / waves - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / stretch + smooth)


def _fits(factors: np.ndarray, waves: np.ndarray, stretch: float) -> list[tuple[float, float, float, float]]:
    """Candidates (factor, low, high, length), those rounded to what people choose before those as fitted."""
    if stretch <= 1:
        return []
    band = (factors > 1 + 1e-6) & (factors < stretch * (1 - 1e-6))
    smooth = (1 / factors[band] - 1 / stretch) / (1 - 1 / stretch)
    found: list[tuple[float, float, float, float]] = []
    if band.sum() >= 2:
        slope, shift = np.polyfit(1 / waves[band], smooth, 1)
        if slope > 0 > shift:
            high = 1 - 1 / shift
            for near in (round(high), round(high * 64) / 64, float(high)):
                length = float(slope * (near - 1))
                found += [(stretch, 1.0, float(near), float(round(length))), (stretch, 1.0, float(near), length)]
    elif band.sum() == 1:
        for high in (4.0, 2.0, 8.0, 16.0, 32.0, 1.5, 1.1, 1.01):  # the narrow ones fit between any neighbours
            length = float(waves[band][0] * (smooth[0] * (high - 1) + 1))
            found += [(stretch, 1.0, high, float(round(length))), (stretch, 1.0, high, length)]
    else:  # a sudden step: any band that lies between the two waves gives the same numbers
        kept, stretched = waves[factors < stretch * 0.5 + 0.5], waves[factors > stretch * 0.5 + 0.5]
        if kept.size and stretched.size and kept.max() < stretched.min():
            step = (stretched.min() / kept.max()) ** (1 / 3)
            found.append((stretch, 1.0, float(step), float(kept.max() * step * step)))
    return found
