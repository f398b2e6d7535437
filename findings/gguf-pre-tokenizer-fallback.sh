#!/usr/bin/env bash
# transformers 5.23.0 reads a GGUF tokenizer whose rule of cutting it does not know as if the rule were GPT-2's.
#
# GGUF files of byte-level vocabularies name how text is cut before merging, in the key `tokenizer.ggml.pre`. transformers
# knows 23 names (src/transformers/integrations/gguf/gguf_tokenizer_mapping.py, GGUF_PRE_TOKENIZER_SPLITS); for any other,
# set_split_regex does nothing, and GPT-2's rule of the builder stays. `smollm` (SmolLM, SmolLM2), `starcoder`, `refact` and
# `command-r` are among the others: llama.cpp (src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM) cuts digits off one by one
# first, so that two line breaks before a digit are one token; transformers makes two of them. What surprises: no warning is
# given, the vocabulary and the merges are right, and most texts come out equal.
#
# A small vocabulary is written to a GGUF file with the name smollm and read by AutoTokenizer; the truth is the rule as
# SmolLM2's own tokenizer.json states it: Digits(individual_digits), then ByteLevel.
# Exits with 0 as long as the fallback is silent, with 1 once the name is known or warned about.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0 accelerate==1.12.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import json
import sys

import gguf
import numpy as np
import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

print("versions:", "transformers", transformers.__version__, "tokenizers", tokenizers.__version__, "gguf 0.19.0")
own = Tokenizer(models.BPE())
own.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
own.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"],
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
own.train_from_iterator(["List:\n\n1. apples\n\n2. pears\n\n3. plums\n\nthe end\n\nof it"] * 4, trainer)
model = json.loads(own.to_str())["model"]
tokens = sorted(model["vocab"], key=model["vocab"].get)

writer = gguf.GGUFWriter("words.gguf", "llama")
for add, value in ((writer.add_context_length, 32), (writer.add_embedding_length, 32), (writer.add_block_count, 1),
                   (writer.add_feed_forward_length, 32), (writer.add_head_count, 2), (writer.add_head_count_kv, 2)):
    add(value)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("smollm")
writer.add_token_list(tokens)
writer.add_token_types([3 if token == "<|endoftext|>" else 1 for token in tokens])
writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
writer.add_eos_token_id(0)
writer.add_tensor("token_embd.weight", np.ones((len(tokens), 32), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

said = io.StringIO()
with contextlib.redirect_stderr(said):
    read = AutoTokenizer.from_pretrained(".", gguf_file="words.gguf")
text = "List:\n\n1. apples"
truth, found = own.encode(text).tokens, read.tokenize(text)
print("tokenizer.ggml.pre: smollm")
print("rule as loaded:", read.backend_tokenizer.pre_tokenizer)
print("tokens by the model's own rule:", truth)
print("tokens as loaded:              ", found)
print("without digits equal:", own.encode("the end\n\nof it").tokens == read.tokenize("the end\n\nof it"))
words = [line for line in said.getvalue().splitlines() if "pre" in line.lower() and "token" in line.lower()]
print("said about the rule:", words)
silent = found != truth and "ĊĊ" in truth and found.count("Ċ") == 2 and not words
print("behaviour: the name is passed over in silence and GPT-2's rule is used." if silent
      else "behaviour: CHANGED, the name is known or warned about.")
sys.exit(0 if silent else 1)
PYTHON
