"""A cache plan written as a DuoAttention pattern, read by kvpress with its own loader, and the next token of both.

    python examples/kvpress_pattern.py write FOLDER      # with headatlas: a model of random weights, a pattern, our numbers
    python examples/kvpress_pattern.py read FOLDER       # in an environment with kvpress 0.5.5 and transformers 5.2 (kvpress
                                                         # wants less than 5.3, headatlas is tried with 5.23)
    python examples/kvpress_pattern.py compare FOLDER

kvpress loads patterns from a web address; what it would get from there is handed to it from the folder. Its `recent_size` counts the tokens before the
one that comes, ours the token itself too, so that the plan to compare with keeps one more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

SINKS, RECENT, READ = 4, 16, 80
WHOLE = (1, 4)  # of six groups


def sizes() -> dict[str, int]:
    """Of the model."""
    return {
        "vocab_size": 160, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 160,
    }  # fmt: skip


def write(folder: Path) -> None:
    """The model, the pattern, and the next token's logits under the plan."""
    import transformers

    import headatlas as ha
    from headatlas.apply.kv_cache.plan import groups_of, plan_of
    from headatlas.model import attach
    from headatlas.model.families.tiny_models import spread
    from headatlas.model.holding.cache import cache_shapes
    from headatlas.model.holding.span import Span

    hf = spread(transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes())).eval(), 1.0)
    hf.save_pretrained(folder / "model")
    model = attach(hf)
    shapes = cache_shapes(model)
    whole = [groups_of(shapes)[i] for i in WHOLE]
    share = ha.export_duo_attention(plan_of(shapes, whole, Span(SINKS, RECENT)), folder / "pattern")
    ids = torch.randint(3, 160, (1, READ + 1), generator=torch.Generator().manual_seed(0))
    plan = plan_of(shapes, whole, Span(SINKS, RECENT + 1))
    with plan.on(model):
        cache = plan.cache(model)
        model.hf(input_ids=ids[:, :READ], past_key_values=cache)
        logits = model.hf(input_ids=ids[:, READ:], past_key_values=cache).logits
    torch.save({"share": share, "ids": ids, "logits": logits}, folder / "ours.pt")
    print(f"{folder}: pattern written, {share:.4f} of the groups stream")


class _Answer:
    def __init__(self, path: Path) -> None:
        self.text = path.read_text()

    def json(self) -> Any:
        return json.loads(self.text)


def read(folder: Path) -> None:
    """kvpress' mask and the next token's logits under its press."""
    import kvpress
    import transformers
    from kvpress.presses import duo_attention_press as duo

    ours = torch.load(folder / "ours.pt")
    model = transformers.LlamaForCausalLM.from_pretrained(folder / "model", attn_implementation="sdpa").eval()
    duo.requests.get = lambda address: _Answer(folder / "pattern" / address.rsplit("/", 1)[1])
    duo.PATTERNS_DICT[model.config.name_or_path] = "pattern"
    press = kvpress.DuoAttentionPress(head_compression_ratio=ours["share"])
    press.post_init_from_model(model)
    cache = transformers.DynamicCache()
    with torch.no_grad():
        with press(model):
            model(ours["ids"][:, :READ], past_key_values=cache)
        logits = model(ours["ids"][:, READ:], past_key_values=cache).logits
    torch.save({"streaming": press.streaming_mask, "logits": logits}, folder / "theirs.pt")
    print(f"transformers {transformers.__version__}: first {press.sink_size}, recent {press.recent_size}")


def compare(folder: Path) -> None:
    """Exit code 1 unless both name the same groups and give the same logits."""
    ours, theirs = torch.load(folder / "ours.pt"), torch.load(folder / "theirs.pt")
    whole = [i for i, streams in enumerate(theirs["streaming"].flatten().tolist()) if not streams]
    off = float((ours["logits"] - theirs["logits"]).abs().max())
    print(
        f"groups that keep everything: {whole}; logits differ by {off:.2g} at most, of {float(ours['logits'].abs().max()):.2g}"
    )
    sys.exit(int(whole != list(WHOLE) or off > 1e-4))


if __name__ == "__main__":
    {"write": write, "read": read, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
