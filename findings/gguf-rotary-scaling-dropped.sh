#!/usr/bin/env bash
# transformers 5.23.0 loads a GGUF file of a Llama 3.1-like model without its rotary scaling, and says nothing.
#
# llama.cpp keeps Llama 3's rotary scaling as one tensor, `rope_freqs.weight` (conversion script LlamaModel,
# generate_extra_tensors), and linear and yarn scaling as keys `llama.rope.scaling.*`. transformers maps neither for the
# architecture llama: src/transformers/integrations/ggml.py, GGUF_CONFIG_MAPPING["llama"], has only `rope.freq_base` and
# `rope.dimension_count`, and modeling_gguf_pytorch_utils.py, load_gguf_checkpoint, passes over every tensor that no
# parameter has the name of ("if name not in tensor_key_mapping: continue"). What surprises: `output_loading_info` reports
# no missing, unexpected or mismatched key and no warning is printed, while the logits are those of another model. Attention
# biases of Llama are passed over in the same way.
#
# The same model is saved once by save_pretrained and once as GGUF by the gguf package; both are loaded by transformers.
# Exits with 0 as long as the scaling is dropped silently, with 1 once it is not.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.12.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import gguf
import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

transformers.logging.disable_progress_bar()
print("versions:", "transformers", transformers.__version__, "gguf 0.19.0", "torch", torch.__version__)
torch.manual_seed(0)
rope = {"rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16, "rope_type": "llama3"}
config = LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, rms_norm_eps=1e-5,
                     rope_parameters=rope, tie_word_embeddings=True)
original = LlamaForCausalLM(config).eval()
original.save_pretrained("saved")
default = 10000.0 ** (-np.arange(0, 8, 2) / 8)
factors = default / original.model.rotary_emb.inv_freq.numpy()  # what each frequency is divided by

writer = gguf.GGUFWriter("model.gguf", "llama")
writer.add_context_length(128)
writer.add_embedding_length(32)
writer.add_block_count(2)
writer.add_feed_forward_length(64)
writer.add_head_count(4)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(8)
writer.add_rope_freq_base(10000.0)
writer.add_vocab_size(96)
writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
for name, values in original.state_dict().items():
    if name == "lm_head.weight":
        continue
    values = values.numpy()
    for part, heads in (("q_proj", 4), ("k_proj", 2)):
        if part in name:  # llama.cpp puts the halves of rotary pairs side by side
            values = values.reshape(heads, 2, 4, 32).swapaxes(1, 2).reshape(values.shape).copy()
    writer.add_tensor(names.get_name(name.removesuffix(".weight")) + ".weight", values)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    loaded, info = LlamaForCausalLM.from_pretrained(".", gguf_file="model.gguf", dtype=torch.float32, output_loading_info=True)
tokens = torch.randint(3, 96, (2, 40), generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    truth = LlamaForCausalLM.from_pretrained("saved")(tokens).logits
    found = loaded.eval()(tokens).logits
apart = float((found - truth).abs().max())
weights = all(torch.equal(a, b) for a, b in zip(original.state_dict().values(), loaded.state_dict().values(), strict=True))
print("rope_freqs.weight in the file:", factors.round(4).tolist())
print("rope of the original:", original.config.rope_parameters)
print("rope as loaded from the GGUF file:", loaded.config.rope_parameters)
print("weights equal:", weights)
print("loading info:", {key: sorted(value) for key, value in info.items() if isinstance(value, (set, list))})
print("warnings about rope:", [str(one.message) for one in said if "rope" in str(one.message).lower()])
print(f"largest difference of the logits: {apart:.3f} (their spread is {float(truth.std()):.3f})")
dropped = loaded.config.rope_parameters["rope_type"] == "default" and apart > 0.1 * float(truth.std())
silent = not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
print("behaviour: the rotary scaling of the GGUF file is dropped without a word." if dropped and silent and weights
      else "behaviour: CHANGED, the scaling is read, or the loader says that it is not.")
sys.exit(0 if dropped and silent and weights else 1)
PYTHON
