"""Seeded atlases that look like real ones, so that pictures can be tested without a model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

# name | head type | its name | stage | task | metric, then its heads in a 30x9 model: layer.head score verdict.
TABLE = """
previous-token|previous-head|Previous Head|ici|repeated|next-token loss :
  11.1 0.92 causal, 16.0 0.88 causal, 1.2 0.83 group, 2.1 0.78 causal, 19.3 0.71 refuted, 22.1 0.57 group, 10.5
  0.51 group, 13.1 0.41 refuted
duplicate-token|duplicate-head|Duplicate Head|ici|repeated|next-token loss :
  14.3 0.67 group, 8.0 0.66 causal, 15.6 0.5 group, 5.6 0.25 refuted, 2.4 0.24 refuted
induction|induction-head|Induction Head|lr|repeated|next-token loss :
  18.6 0.92 causal, 17.3 0.78 causal, 17.4 0.76 causal, 17.5 0.65 group, 18.7 0.54 group, 20.6 0.46 causal, 23.2
  0.42 group, 23.7 0.35 group, 22.7 0.29 group, 24.4 0.27 refuted
retrieval|retrieval-head|Retrieval Head|ici|needle|answer loss :
  18.6 0.86 causal, 17.4 0.66 causal, 17.3 0.65 group, 23.2 0.47 group, 18.7 0.45 group, 20.6 0.28 group, 24.4
  0.25 group, 6.0 0.24 refuted
attention-sink|streaming-head|Streaming Head|ici|prose| :
  18.8 1 untested, 24.2 0.85 untested, 25.8 0.81 untested, 18.7 0.81 untested, 20.8 0.8 untested, 24.6 0.8
  untested, 26.5 0.79 untested, 24.5 0.78 untested
successor|successor-head|Successor Head|lr|successor|logit difference :
  21.2 0.61 causal, 25.1 0.33 group
name-mover|name-mover-head|Name Mover Head|ep|ioi|logit difference :
  23.0 0.68 causal, 23.1 0.56 causal, 23.7 0.52 group, 23.2 0.38 group, 23.3 0.41 causal
negative-name-mover|negative-head|Negative Head|kr|ioi|logit difference :
  24.4 0.74 causal, 29.0 0.44 causal, 24.5 0.31 group
memory|memory-head|Memory Head|kr|capitals|logit difference :
  21.4 0.39 causal, 26.2 0.34 group, 27.7 0.22 refuted, 23.0 0.2 group
function-vector|function-vector|Function Vector|lr|antonyms|logit difference :
  14.7 0.36 causal, 16.4 0.31 group, 23.0 0.27 group
correct-letter|correct-letter-head|Correct Letter Head|lr|letters|logit difference :
"""
Planted = tuple[int, int, float, str]


def planted() -> list[tuple[list[str], list[Planted]]]:
    """The table: the words about each detector, and its heads."""
    found: list[tuple[list[str], list[Planted]]] = []
    for block in TABLE.strip().replace("\n  ", " ").splitlines():
        about, _, heads = block.partition(" :")
        places = re.findall(r"(\d+)\.(\d+)\s([\d.]+)\s(\w+)", heads)
        found.append((about.split("|"), [(int(layer), int(head), float(score), v) for layer, head, score, v in places]))
    return found


def atlas(n_layers: int = 30, n_heads: int = 9, *, seed: int = 0, per_detector: int | None = None) -> dict[str, Any]:
    """An atlas of the usual shape; `per_detector` draws that many heads at random instead of the planted ones."""
    rng = np.random.default_rng(seed)
    entries = []
    for about, heads in planted():
        if per_detector is not None:
            heads = _drawn(rng, n_layers, n_heads, per_detector)
        entries.append(_detector(rng, about, heads, n_layers, n_heads))
    entries[-1]["baseline"] |= {"value": 0.04, "floor": 0.02, "able": False, "accuracy": 0.28, "chance": 0.25}
    entries[-1]["untested"] = "the model cannot do the task"
    skipped = {
        "subword-merge": "The tokenizer splits none of the 200 rare words.",
        "syntactic": "Made for encoders, this model reads one way.",
    }
    return {
        "schema": "headatlas/atlas/1",
        "model": _model(n_layers, n_heads),
        "run": _run(seed),
        "detectors": entries,
        "skipped": [{"detector": name, "reason": reason} for name, reason in skipped.items()],
    }


def _drawn(rng: np.random.Generator, n_layers: int, n_heads: int, count: int) -> list[Planted]:
    places = rng.choice(n_layers * n_heads, count, replace=False)
    verdicts = rng.choice(["causal", "group", "refuted", "untested"], count)
    scores = rng.uniform(0.2, 0.95, count)
    drawn = zip(places, scores, verdicts, strict=True)
    return [(int(place) // n_heads, int(place) % n_heads, float(score), str(v)) for place, score, v in drawn]


def _detector(
    rng: np.random.Generator, about: list[str], places: list[Planted], n_layers: int, n_heads: int
) -> dict[str, Any]:
    name, kind, _, stage, task, metric = about
    signed = metric == "logit difference"
    chance = rng.normal(0.0, 0.01, (n_layers, n_heads)) if signed else rng.beta(2, 60, (n_layers, n_heads))
    scores = chance + rng.normal(0.0, 0.02 if signed else 0.004, (n_layers, n_heads))
    heads = [_line(rng, entry, chance, tested=bool(metric)) for entry in places]
    for line in heads:
        scores[line["layer"], line["head"]] = line["score"]
    heads.sort(key=lambda line: -line["score"])
    grid: list[list[float | None]] = [[round(float(v), 5) for v in row] for row in scores]
    if name == "successor":
        grid[0] = [None] * n_heads
    group = {
        "effect": 1.8,
        "effect_low": 1.5,
        "effect_high": 2.1,
        "heads": [],
        "examples": 8,
        "rest": {"effect": 0.6, "effect_low": 0.4, "effect_high": 0.8, "random_effect": 0.12},
    }
    return {
        "name": name,
        "head_type": kind,
        "stage": stage,
        "task": task,
        "version": 1,
        "n_examples": 64,
        "minimum_effect": 0.1,
        "baseline": {
            "metric": metric or None,
            "value": 3.2 if signed else 2.1,
            "floor": 0.1 if signed else 9.4,
            "able": True,
        },
        "scores": grid,
        "chance": [[round(float(v), 5) for v in row] for row in chance],
        "heads": heads,
        "group": group if heads and metric else None,
    }


def _line(rng: np.random.Generator, planted: Planted, chance: Any, *, tested: bool) -> dict[str, Any]:
    layer, head, score, verdict = planted
    half = float(rng.uniform(0.02, 0.07))
    effect = {"causal": 0.6, "group": 0.08, "refuted": 0.01}.get(verdict, 0.0) * float(rng.uniform(0.6, 1.8))
    line: dict[str, Any] = {
        "layer": layer,
        "head": head,
        "stack": "decoder",
        "score": score,
        "low": round(score - half, 4),
        "high": round(min(1.0, score + half), 4),
        "chance": round(float(chance[layer, head]), 5),
        "p": 0.0002,
        "q": 0.0011,
        "verdict": verdict,
        "effect": round(effect, 4),
        "effect_low": round(effect - 0.06, 4),
        "effect_high": round(effect + 0.06, 4),
        "random_effect": 0.09,
    }
    if not tested or verdict == "untested":
        line |= dict.fromkeys(("effect", "effect_low", "effect_high", "random_effect")) | {"verdict": "untested"}
    return line


def _model(n_layers: int, n_heads: int) -> dict[str, Any]:
    return {
        "name": "smollm2-135m",
        "source": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "revision": "12fd25f",
        "sha256": "ab12" * 16,
        "architecture": "LlamaForCausalLM",
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": max(1, n_heads // 3),
        "d_model": 64 * n_heads,
        "d_head": 64,
        "dtype": "float32",
        "attention_path": "sdpa",
    }


def _run(seed: int) -> dict[str, Any]:
    return {
        "id": "20261121-1f3a9c",
        "created": "2026-11-21T07:12:44Z",
        "seed": seed,
        "n": 64,
        "device": "cpu",
        "bos": "<|im_start|>",
        "versions": {"headatlas": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "seconds": {"load": 1.1, "forward": 41.8, "detect": 12.4, "verdict": 188.0},
    }


def encoder() -> dict[str, Any]:
    """A 6x12 model that reads both ways; all heads are in the stack `encoder`."""
    made = atlas(6, 12, seed=3, per_detector=5)
    for entry in made["detectors"]:
        for line in entry["heads"]:
            line["stack"] = "encoder"
    made["model"] |= {"name": "minilm-l6", "architecture": "BertModel"}
    return made


def hybrid() -> dict[str, Any]:
    """12 layers of 8 heads of which every layer but 3, 7 and 11 has no attention."""
    made = atlas(12, 8, seed=5, per_detector=96)
    for entry in made["detectors"]:
        for layer in set(range(12)) - {3, 7, 11}:
            entry["scores"][layer] = entry["chance"][layer] = []
        entry["heads"] = [line for line in entry["heads"] if line["layer"] in (3, 7, 11)][:4]
    return made


def nothing() -> dict[str, Any]:
    """A model in which no head was observed."""
    return atlas(4, 4, seed=1, per_detector=0)


def hostile() -> dict[str, Any]:
    """Every string tries to run a script or to break the page."""
    run = "window.hacked=1"
    bad = f'</script><img src=x onerror="{run}"><script>{run}</script>\'"`${{{run}}}<!--&amp;\u2028'
    made = atlas(3, 3, seed=2, per_detector=2)
    made["model"] |= {"name": bad, "architecture": bad}
    made["run"] |= {"id": bad, bad: bad}
    for entry in made["detectors"]:
        entry["name"] = f"{bad} {entry['name']}"
        entry["task"] = entry["head_type"] = entry["baseline"]["metric"] = bad
    made["skipped"] = [{"detector": bad, "reason": bad}]
    return made
