"""The whole self-check in its order; what it finds that a model cannot do is noted on the model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from torch import Tensor

from headatlas.errors import HeadAtlasError
from headatlas.model.core.model import Model
from headatlas.model.structure import edit_checks, selfcheck
from headatlas.model.structure.selfcheck import Check
from headatlas.model.structure.whole_run import WholeRun


def all_checks(model: Model, inputs: Mapping[str, Tensor], reference: Tensor, *, thorough: bool) -> list[Check]:
    """Every check on sample inputs, against the untouched model's `reference` output; sets what the model can do by them.

    thorough: also where one run tells of several things, each is tried by itself.
    """
    whole = WholeRun()

    def look() -> list[Check]:
        return [*selfcheck.inspect_model(model, inputs, reference, whole), *_edit_checks(model, inputs, reference, thorough)]  # fmt: skip

    checks = look()
    if model.path == "sdpa" and not all(check.ok for check in checks):
        model.fast = (
            False  # the kernel with log-sum-exp is an optimisation; without it all goes through the model's own code
        )
        checks = look()
    editable = next(check for check in checks if check.name == edit_checks.IDENTITY)
    if not editable.ok:
        for layer in model.layers:
            object.__setattr__(layer, "pattern_editable", False)
        checks[checks.index(editable)] = Check(
            "patterns can be edited",
            True,
            editable.value,
            editable.bound,
            "no: the output is not formed from the pattern alone; edits of patterns are refused",
        )
    return [*checks, selfcheck.restart(model, inputs, reference, whole)]


def _edit_checks(model: Model, inputs: Mapping[str, Tensor], reference: Tensor, thorough: bool) -> list[Check]:
    tokens = inputs.get("input_ids")
    if tokens is not None and model.kind == "decoder" and not thorough:
        with contextlib.suppress(HeadAtlasError, TypeError, ValueError, RuntimeError):  # then each by itself
            found = edit_checks.edits_in_padding(model, tokens, reference)
            if found is not None:
                return found
    checks = edit_checks.edits(model, inputs, reference)
    return checks if tokens is None else [*checks, *selfcheck.padding(model, tokens, reference)]
