"""What looking costs: the pass of `mine` against the bare forward, HF eager and TransformerLens on the same tokens.

    python benchmarks/mining.py [--model smollm2-135m] [--json]

Needs the extra `bench` (TransformerLens) for its last row; without it that row says so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import measure, report

import headatlas as ha
from headatlas.detector import LayerDetector, detectors
from headatlas.mining.scan import scan
from headatlas.task import Batch

TASKS = ("repeated", "prose", "registers")  # those whose detectors share a pass over ordinary sequences
ENTRY = ("induction", "duplicate-token", "previous-token", "attention-sink")


def batch(tokenizer: object, examples: int, length: int) -> Batch:
    """Random repeated tokens of exactly this shape, with every position that a detector asks for."""
    generator = torch.Generator().manual_seed(0)
    period = (length - 1) // 2
    ids = torch.tensor(tokenizer.plain_ids()[1000:20000])  # type: ignore[attr-defined]
    first = ids[torch.randint(len(ids), (examples, period), generator=generator)]
    tokens = torch.cat([torch.full((examples, 1), tokenizer.bos or 0), first, first], 1)  # type: ignore[attr-defined]
    second = torch.arange(1 + period, 1 + 2 * period).expand(examples, -1)
    at = {
        "predict": second[:, :-1],
        "induction_key": second[:, :-1] - period + 1,
        "second": second,
        "duplicate_key": second - period,
    }
    some = torch.arange(4, tokens.shape[1] - 2, 9).expand(examples, -1)
    half = some[:, : some.shape[1] // 2]
    at |= {"delimiters": some, "rare": half[:, :4], "ordinary": half[:, 4:8] if half.shape[1] >= 8 else half[:, :4]}
    at |= {"piece_query": some + 1, "piece_key": some, "start_query": some + 2, "start_key": some + 1}
    at |= {"middle": torch.full((examples,), length // 2)}
    marks = {"delimiter": torch.zeros_like(tokens)}
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), at, marks, facts={"period": period})


def fitting(model: ha.Model, chosen: list[LayerDetector]) -> list[LayerDetector]:
    """Those of the detectors that read nothing of a batch but what random tokens have (some want words or quantiles)."""
    found, short = [], batch(model.tokenizer, 1, 64)
    for one in chosen:
        with contextlib.suppress(KeyError):
            watched(model, short, [one])
            found.append(one)
    return found


def bare(name: str, shape: tuple[int, int]) -> Callable[[], object]:
    """The untouched model with SDPA."""
    model = ha.load(name)
    tokens = batch(model.tokenizer, *shape).tokens
    model.hf.set_attn_implementation("sdpa")
    return torch.no_grad()(lambda: model.hf(tokens, use_cache=False))


def ours(name: str, shape: tuple[int, int], only: tuple[str, ...] | None) -> Callable[[], object]:
    """The pass of `mine`: the same forward, logits included, with detectors watching."""
    model = ha.load(name)
    made = batch(model.tokenizer, *shape)
    chosen = [d for d in detectors().values() if isinstance(d, LayerDetector) and d.causal and d.task.name in TASKS]
    chosen = fitting(model, [d for d in chosen if only is None or d.name in only])
    return lambda: watched(model, made, chosen)


def watched(model: ha.Model, made: Batch, chosen: list) -> object:
    """One pass over the batch in one piece with all logits, so that the forward itself is the bare one."""
    from headatlas.task import Metric

    everywhere = Metric(
        "all logits", lambda b: torch.arange(b.tokens.shape[1]), lambda logits, b: logits[:, 0, 0], True, ""
    )
    return scan(model, chosen, made, metric=everywhere, size=len(made))


def full_rows(name: str, shape: tuple[int, int]) -> Callable[[], object]:
    """A full-row statistic (entropy and argmax of every row) streamed in blocks."""
    model = ha.load(name)
    made = batch(model.tokenizer, *shape)

    def look(layer: object) -> None:
        layer.reduce(lambda rows, _: torch.stack([torch.special.entr(rows).sum(-1), rows.argmax(-1).float()], -1))  # type: ignore[attr-defined]

    return lambda: model.forward(made, watch=look)


def eager(name: str, shape: tuple[int, int]) -> Callable[[], object]:
    """HF eager that returns all attention patterns."""
    model = ha.load(name)
    tokens = batch(model.tokenizer, *shape).tokens
    model.hf.set_attn_implementation("eager")
    return torch.no_grad()(lambda: model.hf(tokens, use_cache=False, output_attentions=True))


def transformer_lens(name: str, shape: tuple[int, int]) -> Callable[[], object]:
    """TransformerLens' full cache on the same weights."""
    from transformer_lens.model_bridge import TransformerBridge

    model = ha.load(name)
    tokens = batch(model.tokenizer, *shape).tokens
    model.hf.set_attn_implementation("eager")
    bridge = TransformerBridge.boot_transformers(
        str(model.source.folder), hf_model=model.hf, tokenizer=model.tokenizer._hf
    )  # type: ignore[union-attr]
    return torch.no_grad()(lambda: bridge.run_with_cache(tokens))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--shapes", default="16x128,4x1024", help="examples x tokens, comma separated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for text in arguments.shapes.split(","):
        shape = tuple(int(part) for part in text.split("x"))
        works = {
            f"{text} bare SDPA forward": functools.partial(bare, arguments.model, shape),
            f"{text} mine's pass, entry detectors ({len(ENTRY)})": functools.partial(
                ours, arguments.model, shape, ENTRY
            ),
            f"{text} mine's pass, all detectors of sequences": functools.partial(ours, arguments.model, shape, None),
            f"{text} full rows (entropy, argmax) in blocks": functools.partial(full_rows, arguments.model, shape),
            f"{text} HF eager, output_attentions=True": functools.partial(eager, arguments.model, shape),
            f"{text} TransformerLens run_with_cache": functools.partial(transformer_lens, arguments.model, shape),
        }
        rows += measure(works, repeats=arguments.repeats)
    report(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
