#!/usr/bin/env bash
# transformers 5.23.0: PaliGemma on text alone reads both ways with attn_implementation="sdpa", and one way with "eager".
#
# PaliGemmaModel.forward (src/transformers/models/paligemma/modeling_paligemma.py) makes its mask by create_causal_mask, and
# adds the blocks that attend both ways only where token_type_ids are given. On unpadded text without token_type_ids one
# expects a causal model, whichever attention computes it. With "eager" it is: a change of the last token leaves the logits of
# the first alone. With "sdpa" the first token's logits move. What surprises: "sdpa" is the default, no warning is given, and the
# two implementations are held to be the same up to rounding.
#
# A small model of random weights is run with both on the same ids, and with another last token.
# Exits with 0 as long as the two differ in this way, with 1 once both are causal.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

print("versions:", "transformers", transformers.__version__, "torch", torch.__version__)
text = {"model_type": "gemma", "vocab_size": 120, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
          "num_attention_heads": 4, "image_size": 28, "patch_size": 14, "projection_dim": 32}
config = PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=32, image_token_id=119)
ids = torch.arange(5, 17)[None]
other = ids.clone()
other[0, -1] = 80
logits, moved = {}, {}
for path in ("sdpa", "eager"):
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration._from_config(config, attn_implementation=path).eval()
    model.set_attn_implementation(path)
    with torch.no_grad():
        logits[path] = model(input_ids=ids).logits
        moved[path] = float((model(input_ids=other).logits[0, 0] - logits[path][0, 0]).abs().max())
    print(f"{path}: with another last token the first token's logits move by {moved[path]:.2g}")
apart = float((logits["sdpa"] - logits["eager"]).abs().max())
print(f"sdpa against eager on the same ids: {apart:.2g} apart, where logits spread by {float(logits['eager'].std()):.2g}")
if moved["eager"] == 0.0 and moved["sdpa"] > 1e-4 and apart > 1e-3:
    print("behaviour: on text alone PaliGemma attends to later tokens with sdpa, and not with eager")
else:
    sys.exit("the behaviour has changed")
PYTHON
