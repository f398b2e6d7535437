"""One run on an accelerator: is what it computes what the processor computes, and what does looking cost there?

    python benchmarks/gpu.py [--device cuda] [--small] [--out FILE.json]

1. **Numbers.** The same prompts on the processor and on the device, in float32: logits, attention rows, the scores of every detector of a layer, ablation,
   patching, path patching, attribution. The largest difference, relative to the largest number, must stay below 1e-4. In bfloat16 on both: 0.05.
2. **Cost.** SmolLM2-135M, and Llamas of 1 and 7 billion random weights in bfloat16, 4 texts of 1,024 tokens: the bare forward, mine's pass with
   entry detectors and with all of sequences, full rows, a sweep of END-only ablations; best of three, with peak memory. TransformerLens where it is installed.

Exit code 1 where a number is off. `--small` is for trying the script: tiny models, short texts; with `--device cpu` it runs anywhere, and the
device is then the processor itself.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import mining

import headatlas as ha
from headatlas.detector import LayerDetector, detectors
from headatlas.errors import HeadAtlasError
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.model import attach
from headatlas.task import find_task, logit_difference

FP32, BF16 = 1e-4, 0.05
LLAMAS = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32},
}  # fmt: skip
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


# ---- numbers -----------------------------------------------------------------------------------------------------------
def numbers(model: ha.Model) -> Iterator[tuple[str, torch.Tensor]]:
    """What is compared, by name."""
    prompts = ha.Prompts("ioi", n=4, force=True)
    batch = find_task("ioi")(model.tokenizer, 4, 0)
    yield "logits", model.forward(batch)[batch.mask]
    rows: list[torch.Tensor] = []
    model.forward(
        batch, watch=lambda layer: rows.append(layer.rows(batch.positions["end"][:, None].to(layer.q.device)).cpu())
    )
    yield "attention rows", torch.cat(rows, 1)
    some = "1.* 2.*"
    yield "ablation, zero", torch.as_tensor(ha.ablate(model, prompts, heads=some).values)
    yield "ablation, mean", torch.as_tensor(ha.ablate(model, prompts, heads=some, edit="mean").values)
    yield "patching", torch.as_tensor(ha.patch(model, prompts, heads=some).values)
    yield "path patching", torch.as_tensor(ha.path_patch(model, prompts, senders="0.* 1.*").values)
    yield "edge attribution", torch.as_tensor(ha.edge_scores(model, batch, logit_difference, steps=2)[1])
    for name, one in detectors().items():
        if not isinstance(one, LayerDetector) or not one.causal:
            continue
        with contextlib.suppress(HeadAtlasError):  # a task that does not fit this tokenizer
            made = one.task(model.tokenizer, 2, 0)
            found: list[torch.Tensor] = []
            model.forward(
                made,
                watch=lambda layer, one=one, made=made, found=found: found.append(one.score(layer, made).float().cpu()),
            )
            yield f"detector {name}", torch.cat([x.flatten(1) for x in found], 1)


def compared(make: Callable[[str], ha.Model], device: str, bound: float) -> list[dict[str, Any]]:
    """A row for each number: by how much it differs at most, relative to the largest."""
    with contextlib.closing(make("cpu")) as model:
        wanted = {name: value.detach().float().cpu() for name, value in numbers(model)}
    with contextlib.closing(make(device)) as model:
        got = {name: value.detach().float().cpu() for name, value in numbers(model)}
    rows = []
    for name, one in wanted.items():
        other = got.get(name)
        both = other is not None and one.shape == other.shape and bool((one.isnan() == other.isnan()).all())
        off = (
            float((one - other).nan_to_num(0).abs().max() / one.nan_to_num(0).abs().max().clamp(min=1e-6))
            if both
            else float("inf")
        )
        rows.append({"what": name, "off": off, "bound": bound, "right": off <= bound})
    return rows


# ---- cost --------------------------------------------------------------------------------------------------------------
def timed(run: Callable[[], object], device: str, repeats: int = 3) -> dict[str, float]:
    """Best seconds of some runs, and peak memory of the device in megabytes (0 on a processor)."""
    cuda = device.startswith("cuda")
    run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return {"seconds": best, "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if cuda else 0.0}


def works(model: ha.Model, shape: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """What is timed, the bare forward first."""
    made = mining.batch(model.tokenizer, *shape)
    tokens = made.tokens.to(model.device)
    sequences = [
        one
        for one in detectors().values()
        if isinstance(one, LayerDetector) and one.causal and one.task.name in mining.TASKS
    ]
    sequences = mining.fitting(model, sequences)
    entry = [one for one in sequences if one.name in mining.ENTRY]

    def rows(layer: Any) -> None:
        layer.reduce(lambda rows, _: torch.stack([torch.special.entr(rows).sum(-1), rows.argmax(-1).float()], -1))

    ioi = find_task("ioi")(model.tokenizer, 16, 0)
    bench = CachedRuns(model, ioi, logit_difference)
    end = ioi.positions["end"].flatten()
    heads = model.heads[:: max(len(model.heads) // 256, 1)]

    def sweep() -> object:
        return bench.measure([[ha.Zero([head], positions=end[:, None])] for head in heads])

    return {
        "bare forward": torch.no_grad()(lambda: model.hf(tokens, use_cache=False)),
        "entry detectors": lambda: mining.watched(model, made, entry),
        "all detectors of sequences": lambda: mining.watched(model, made, sequences),
        "full rows": lambda: model.forward(made, watch=rows),
        "ioi forward (16 prompts)": lambda: model.forward(ioi),
        f"END-only ablation of {len(heads)} heads": sweep,
    }  # fmt: skip


def costs(name: str, make: Callable[[str], ha.Model], device: str, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """A row for each piece of work, with its ratio to the bare forward."""
    found: list[dict[str, Any]] = []
    with contextlib.closing(make(device)) as model:
        for what, run in works(model, shape).items():
            try:
                row = timed(run, device)
            except torch.OutOfMemoryError:
                row = {"seconds": float("nan"), "peak_mb": float("nan")}
            found.append(
                {"model": name, "what": what, **row, "ratio": row["seconds"] / found[0]["seconds"] if found else 1.0}
            )
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return found


def llama(sizes: dict[str, int], dtype: torch.dtype, context: int) -> Callable[[str], ha.Model]:
    """Makes a Llama of random weights on a device, with SmolLM2's tokenizer."""

    def make(device: str) -> ha.Model:
        import transformers

        config = transformers.LlamaConfig(
            vocab_size=49152, max_position_embeddings=context, bos_token_id=0, eos_token_id=0, **sizes
        )
        config.dtype = dtype
        torch.manual_seed(0)
        with torch.device(device):
            hf = transformers.LlamaForCausalLM._from_config(config).eval()
        return attach(hf.to(device=device, dtype=dtype), tokenizer=ha.load("smollm2-135m").tokenizer)

    return make


def main() -> int:
    """Compare, measure, print; 1 where a number is off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out")
    chosen = parser.parse_args()
    began = time.perf_counter()
    card = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else "the processor"
    print(f"{card}, PyTorch {torch.__version__}", flush=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result: dict[str, Any] = {
        "card": card,
        "torch": torch.__version__,
        "small": chosen.small,
        "numbers": [],
        "costs": [],
    }
    small = llama(SMALL, torch.float32, 2048)
    plain: dict[str, Callable[[str], ha.Model]] = {"small": small} if chosen.small else {
        "smollm2-135m": lambda device: ha.load("smollm2-135m", device=device, dtype="float32")
    }  # fmt: skip
    halves: dict[str, Callable[[str], ha.Model]] = {"small": llama(SMALL, torch.bfloat16, 2048)} if chosen.small else {
        "smollm2-135m": lambda device: ha.load("smollm2-135m", device=device, dtype="bfloat16")
    }  # fmt: skip
    for kind, makers, bound in (("float32", plain, FP32), ("bfloat16", halves, BF16)):
        for name, make in makers.items():
            for row in compared(make, chosen.device, bound):
                result["numbers"].append({"model": name, "dtype": kind, **row})
                if not row["right"]:
                    print(f"OFF: {name} {kind} {row['what']}: {row['off']:.2g} (bound {bound:g})", flush=True)
    wrong = [row for row in result["numbers"] if not row["right"]]
    print(
        f"numbers: {len(result['numbers']) - len(wrong)} of {len(result['numbers'])} within bounds, {time.perf_counter() - began:.0f} s",
        flush=True,
    )
    shape = (2, 128) if chosen.small else (4, 1024)
    timed_models = (
        plain
        if chosen.small
        else {**halves, **{f"Llama {name}": llama(sizes, torch.bfloat16, 2048) for name, sizes in LLAMAS.items()}}
    )
    for name, make in timed_models.items():
        for row in costs(name, make, chosen.device, shape):
            result["costs"].append(row)
            print(
                f"{name:14s} {row['what']:34s} {row['seconds']:8.4f} s {row['ratio']:7.2f}x {row['peak_mb']:9.0f} MB",
                flush=True,
            )
    result["seconds"] = time.perf_counter() - began
    print(f"in all {result['seconds']:.0f} s")
    if chosen.out:
        Path(chosen.out).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
