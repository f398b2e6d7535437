"""Named words of a text, found again as positions of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.model.text.start_end import rule_of
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.own_prompts.spans import FORMS, Span


def span_positions(
    texts: Sequence[tuple[str, str, Mapping[str, list[Span]]]], tokenizer: Tokenizer
) -> dict[str, Tensor]:
    """name -> [example, k] positions of the tokens that have a part in the spans of each (where, text, spans); -1 for none.

    Positions count as the stack that predicts tokens reads the text. Raises BadInput for spans that no token covers.
    """
    names = dict.fromkeys(name for _, _, spans in texts for name in spans)
    found: dict[str, list[list[int]]] = {name: [] for name in names}
    for where, text, spans in texts:
        tokens = tokenizer.spans(text) if spans else []
        front = _in_front(tokenizer.encode(text), tokenizer) if spans else 0
        for name in names:
            at = [
                place + front
                for place, (start, stop) in enumerate(tokens)
                if any(start < end and stop > begin for begin, end in spans.get(name, []))
            ]
            if name in spans and not at:
                raise BadInput(f"{where}, span '{name}': no token covers it.", FORMS)
            found[name].append(at)
    width = {name: max(map(len, rows)) for name, rows in found.items()}
    return {
        name: torch.tensor([[*row, *[-1] * (width[name] - len(row))] for row in rows]) for name, rows in found.items()
    }


def _in_front(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many tokens stand before a text's own."""
    rule = rule_of(tokenizer)
    return len(rule.missing_front(ids)) + (rule.two_stacks and rule.decoder_start is not None)
