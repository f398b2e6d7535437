"""What head pages cost beside the bare forward over the same tokens, side by side.

    python benchmarks/pages.py [--model smollm2-135m] [--tokens 16384 65536] [--json]

For each size one process reads a corpus twice at once: a batch by the plain transformers model (logits at one position only),
then the same batch by the scan of all heads, and so on. Each batch is timed by the processor, which other programs on the
machine disturb less than a clock. The bundled prose is read again from the start when it is used up. Wanted: a ratio of
1.5 or less, and a peak of memory that does not grow with the corpus.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import _peak_mb, machine

import headatlas as ha
from headatlas.pages.corpus import read_corpus
from headatlas.pages.scan import Settings, batches, scan
from headatlas.pages.sources import documents


def timed(name: str, tokens: int) -> dict[str, Any]:
    """One corpus, both ways: seconds of processor time, and the peak of memory beyond what the loaded model took."""
    model = ha.load(name)
    corpus = read_corpus(model.tokenizer, [one.text for one in documents()] * (1 + tokens // 16_384), tokens=tokens)
    steps = scan(model, corpus, Settings())
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    resting, bare, scanned = _peak_mb(), 0.0, 0.0
    for number, windows in enumerate(batches(corpus)):
        batch = corpus.batch(windows)
        mask = None if bool(batch.mask.all()) else batch.mask.long()
        more = {"logits_to_keep": 1} if "logits_to_keep" in model.accepts else {}
        began = time.process_time()
        with torch.no_grad():
            model.hf(input_ids=batch.tokens, attention_mask=mask, **model.uncached(more))
        between = time.process_time()
        next(steps)
        if number:  # the first batch warms up
            bare, scanned = bare + between - began, scanned + time.process_time() - between
    return {
        "model": name, "tokens": corpus.n_tokens, "bare_s": bare, "scan_s": scanned, "ratio": scanned / bare, "peak_mb": _peak_mb() - resting,
    }  # fmt: skip


def _child(name: str, tokens: int, pipe: Any) -> None:
    pipe.send(timed(name, tokens))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16_384, 65_536])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    for tokens in given.tokens:
        here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_child, args=(given.model, tokens, there))
        process.start()
        rows.append(here.recv())
        process.join()
        if not given.json:
            row = rows[-1]
            print(
                f"{row['model']:<14} {row['tokens']:>7,} tokens: bare {row['bare_s']:7.1f} s, scan {row['scan_s']:7.1f} s, {row['ratio']:.2f}x; "
                f"{row['peak_mb']:.0f} MB beyond the loaded model",
                flush=True,
            )
    if given.json:
        print(json.dumps({"rows": rows, "machine": machine()}))


if __name__ == "__main__":
    main()
