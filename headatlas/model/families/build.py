"""A tiny model with random weights of any text class of the installed transformers, ready to be tried.

The configuration comes from `shrink.py`, with what single classes need on top from `overrides.py`. Weights are drawn from
a fixed seed and spread so that every part matters: transformers' own start values would leave attention rows nearly
uniform, norms without effect and zero-initialised gates shut, and many mistakes would not show.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.model.core.refusals import read_output
from headatlas.model.families.classes import TextClass, listed, text_classes
from headatlas.model.families.overrides import OVERRIDES, VARIANTS, Override
from headatlas.model.families.shrink import LEFT_OUT, tiny_configuration
from headatlas.registry import lookup

LENGTH = 40  # tokens of a sample: longer than every tiny window, chunk and top-k
MOST_PARAMETERS = 40_000_000

# Fields that some classes cannot take as the others do; tried in this order until a model runs.
WAYS: tuple[Mapping[str, Any], ...] = (
    {},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 4, "head_dim": 8},  # low-rank attention whose head width is that of its rotary part
    {"head_dim": LEFT_OUT},
    {"num_key_value_heads": LEFT_OUT},
    {"head_dim": LEFT_OUT, "num_key_value_heads": 4},
    {"sliding_window": LEFT_OUT},
)


class CannotBuild(Exception):
    """No tiny model of the class runs on plain tokens; says why, one reason for each way that was tried."""


@dataclass(frozen=True)
class FamilyRow:
    """One row of the table of families: a class, or a variant of one that has another mechanism.

    name: the class's name, with the variant after a colon. changes: fields of the configuration beyond the tiny sizes.
    gain: how far weights are spread out. why: the reason for the changes. needs: what the class demands beside text.
    """

    name: str
    text_class: TextClass
    changes: Mapping[str, Any]
    gain: float = 1.0
    why: str = ""
    needs: str = ""

    def build(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The tiny model, in eval mode, the same each time. Raises CannotBuild."""
        reasons: list[str] = []
        for way in WAYS:
            try:
                return self._build(way).to(dtype)
            except Exception as error:  # any class may stumble in its own way
                reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
        raise CannotBuild(f"{self.name}: " + "; ".join(dict.fromkeys(reasons)))

    def _build(self, way: Mapping[str, Any]) -> nn.Module:
        kind = self.text_class.transformer
        config = tiny_configuration(self.text_class.configuration, self.changes, way)
        with torch.device("meta"):  # a size that was missed is found before it fills the memory
            size = sum(parameter.numel() for parameter in kind(copy.deepcopy(config)).parameters())
        if size > MOST_PARAMETERS:
            raise CannotBuild(f"{size / 1e6:.0f} million parameters")
        torch.manual_seed(0)
        model: nn.Module = kind(config).eval()
        spread(model, self.gain)
        if self.needs:
            return model
        with torch.no_grad():
            output = copy.deepcopy(model)(**sample(model))
        if not bool(torch.isfinite(read_output(output)).all()):
            raise CannotBuild("its output is not finite")
        return model


def family_rows() -> tuple[FamilyRow, ...]:
    """Every row: all text classes, then the variants."""
    known = {line.architecture for line in text_classes()}
    plain = [_row(line.architecture) for line in text_classes()]
    return (*plain, *(_row(variant.full_name) for variant in VARIANTS if variant.architecture in known))


def family_row(name: str) -> FamilyRow:
    """The row called `name`, without importing the others; raises UnknownName with the nearest."""
    variants = {variant.full_name: variant for variant in VARIANTS}
    if name not in variants:
        name = lookup(listed(), name, "class", "See: headatlas families --all").name
    return _row(name)


def _row(name: str) -> FamilyRow:
    variant = next((one for one in VARIANTS if one.full_name == name), None)
    text_class = listed()[name if variant is None else variant.architecture]
    override = OVERRIDES.get(text_class.architecture, Override({}, ""))
    if variant is None:
        return FamilyRow(name, text_class, override.changes, override.gain, override.why, override.needs)
    return FamilyRow(name, text_class, {**override.changes, **variant.changes}, variant.gain, variant.why)


def sample(model: nn.Module, n_examples: int = 2, length: int = LENGTH, seed: int = 3) -> dict[str, Tensor]:
    """Plain random text in the model's own words; a decoder gets another text than its encoder, and a shorter one."""
    generator = torch.Generator().manual_seed(seed)
    given = {"input_ids": torch.randint(5, 180, (n_examples, length), generator=generator)}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:  # a configuration need not say so (T5Gemma)
        given["decoder_input_ids"] = torch.randint(5, 180, (n_examples, length * 3 // 4), generator=generator)
    return given


@torch.no_grad()
def spread(model: nn.Module, gain: float, seed: int = 1) -> None:
    """Draw the weights anew: matrices of this gain, gains and biases off their neutral values, padding rows zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        if parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1:
            parameter.copy_(noise * gain / math.sqrt(parameter.shape[-1]))
        elif any(word in name for word in ("A_log", ".D", "dt_bias", "decay")):
            parameter.add_(0.05 * noise)  # rates of recurrences: exponents, so a little goes far
        else:
            parameter.add_(0.2 * noise)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx] = 0  # as in every trained model: some mix neighbours in (MobileBERT)
