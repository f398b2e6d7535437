"""What each row of the table of families should be in the end, and which are not so yet.

expected.json: `exact` works in all steps of the oracle; `refused` with the reason, which a probe must show; `either` may
be refused in words or work exactly, and says why it is hard; `not built` cannot be tried on text; `today` is what is not
as it should be, and why: its tests are expected to fail, and fail the suite once they pass, so that the line is removed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

EXPECTED: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))

# The mechanisms that the default suite tries, by the row that shows each in the shortest time.
SAMPLE = {
    "plain": "LlamaForCausalLM",
    "sparse": "DeepseekV32ForCausalLM",
    "low-rank": "DeepseekV3ForCausalLM",
    "sink logit": "GptOssForCausalLM",
    "sink factor": "GraniteSWAForCausalLM",
    "gate and heads by layer": "LagunaForCausalLM",
    "shared keys and values": "Gemma4ForCausalLM:shared-kv",
    "configuration by layer": "Dots3NoteForCausalLM",
    "hybrid": "BambaForCausalLM",
    "encoder": "BertForMaskedLM",
    "cross-attention": "BartForConditionalGeneration",
    "several streams": "HYV4ForCausalLM",
    "own attention": "MptForCausalLM",
}


def rows(names: Sequence[str]) -> list[Any]:
    """Rows as pytest's parameters; those that are not as they should be are expected to fail, and say why."""
    return [
        pytest.param(
            name,
            marks=pytest.mark.xfail(reason=EXPECTED["today"][name], strict=True) if name in EXPECTED["today"] else (),
        )
        for name in names
    ]


def all_rows() -> list[str]:
    """Every row that can be built, without importing what builds them."""
    return [*EXPECTED["exact"], *EXPECTED["refused"], *EXPECTED["either"]]
