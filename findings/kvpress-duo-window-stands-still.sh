#!/usr/bin/env bash
# kvpress 0.5.5: the window of DuoAttentionPress' streaming heads stands still while text is written.
#
# In DuoAttention (Xiao et al. 2024) a streaming head sees the first `sink_size` tokens and the last `recent_size`, whichever token
# is being written. kvpress' press of that name takes both numbers from the same pattern files. It marks, once, behind the text that was read, which
# cached tokens streaming heads shall not see (kvpress/presses/duo_attention_press.py, compress; kvpress/attention_patch.py puts keys of
# no weight there at each step). What surprises: the marks do not move. The tokens that were the most recent ones then stay visible for good, and
# so does all that is written after them, so that a streaming head that writes n tokens sees recent_size + n, and its window grows with the answer.
#
# One layer of attention, so that a token can only be felt by being attended to; all heads stream. Twenty tokens behind a text of 40, with a window
# of 8, the token that was the oldest in the window when the text ended is changed: does the next token's distribution move?
# Exits with 0 as long as it does (and does not for the token before it), with 1 once the window moves on.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 kvpress==0.5.5 transformers==5.2.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import torch
from kvpress import DuoAttentionPress
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

print("versions:", *(f"{name} {version(name)}" for name in ("kvpress", "transformers", "torch")))
READ, WRITTEN, SINKS, RECENT = 40, 20, 2, 8
torch.manual_seed(0)
sizes = dict(vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128)
model = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="sdpa")).eval()
with torch.no_grad():
    for weight in model.parameters():
        weight.copy_(torch.randn_like(weight) * (weight.shape[-1] ** -0.5 if weight.ndim > 1 else 1))


class AllStream(DuoAttentionPress):
    @staticmethod
    def load_attention_pattern(model):
        return SINKS, RECENT, np.zeros((1, 2))


@torch.no_grad()
def last(ids):
    press = AllStream(head_compression_ratio=1.0)
    press.post_init_from_model(model)
    cache = DynamicCache()
    with press(model):
        model(ids[:, :READ], past_key_values=cache)
    for i in range(READ, READ + WRITTEN):
        logits = model(ids[:, i : i + 1], past_key_values=cache).logits
    return logits[0, -1]


ids = torch.randint(3, 100, (1, READ + WRITTEN))
plain = last(ids)


def moved(place):
    other = ids.clone()
    other[0, place] = (other[0, place] + 1) % 100
    return float((last(other) - plain).abs().max())


oldest, before = moved(READ - RECENT), moved(READ - RECENT - 1)
print(f"{WRITTEN} tokens later, window {RECENT}: changing the token {WRITTEN + RECENT - 1} back moves a logit by {oldest:.3g}, the one before it by {before:.3g}")
stands = oldest > 1e-4 and before < 1e-6
print("the window of streaming heads", "stands still" if stands else "moves on, or is another")
sys.exit(0 if stands else 1)
PYTHON
