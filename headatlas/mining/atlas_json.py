"""What a run found, as plain data: the content of atlas.json, of the tables and of the attention examples."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headatlas import catalogue
from headatlas.atlas import Run
from headatlas.detector import Detector
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import DRAWS, Effect, Verdict
from headatlas.methods.sweeps.task_gate import Gate
from headatlas.mining.scan import Scan
from headatlas.model import Model
from headatlas.scores import grid
from headatlas.store import write_table
from headatlas.task import Batch, Task
from headatlas.version import __version__


def result(model: Model, detector: Detector, found: Scan, able: Gate | None) -> dict[str, Any]:
    """One detector's part of atlas.json as far as a scan knows it, and under "all" a row per head for the tables."""
    scores = found.scores[detector.name]
    lines = {line.head: line for line in scores.summary()}
    reason = "the model has no metric on this task" if able is None else ""
    if able is not None and not able.able:
        reason = "the model does not do the task"
    heads = [
        {**_line(line.head), "score": line.score, "low": line.low, "high": line.high, "chance": line.chance,
         "p": line.p, "q": line.q, "verdict": "untested", **_effect(None)}
        for line in scores.observed(detector.minimum_effect)
    ]  # fmt: skip
    score, chance = (np.array([getattr(lines[head], name) for head in model.heads]) for name in ("score", "chance"))
    main = model.stacks[0]
    return {
        "name": detector.name,
        "head_type": detector.head_type,
        "stage": catalogue.head_type(detector.head_type).stage,
        "task": detector.task.name,
        "version": detector.version,
        "n_examples": len(scores.values),
        "minimum_effect": detector.minimum_effect,
        "baseline": able.baseline if able is not None else None,
        "untested": reason,
        "scores": grid(model.heads, score, main).tolist(),
        "chance": grid(model.heads, chance, main).tolist(),
        "all": [
            {
                **_line(head),
                "score": lines[head].score,
                "low": lines[head].low,
                "high": lines[head].high,
                "chance": lines[head].chance,
                "p": lines[head].p,
                "q": lines[head].q,
            }
            for head in model.heads
        ],
        "heads": heads,
        "group": None,
        "about": detector.about,
    }


def verdict(found: Verdict) -> dict[str, Any]:
    """A detector's verdict as plain data, for `judged`."""
    return {
        "heads": {
            str(head): {"verdict": word, **_effect(found.effects[head])} for head, word in found.verdicts.items()
        },
        "group": {
            **_effect(found.group), "p": found.group.p, "draws": DRAWS, "examples": found.examples,
            "metric": found.metric.name, "unit": found.metric.unit,
        },
    }  # fmt: skip


def judged(entry: Mapping[str, Any], found: Mapping[str, Any] | None, wanted: bool) -> dict[str, Any]:
    """A detector's part of atlas.json with its verdict, or with the reason why there is none."""
    if found is None:
        reason = "verdicts were switched off" if not wanted else "its verdict cannot be measured on this model"
        return {**entry, "untested": entry["untested"] or (reason if entry["heads"] or not wanted else "")}
    heads = [{**row, **found["heads"][str(HeadId(row["layer"], row["head"], row["stack"]))]} for row in entry["heads"]]
    return {**entry, "heads": heads, "group": found["group"]}


def _line(head: HeadId) -> dict[str, Any]:
    return {"layer": head.layer, "head": head.head, "stack": head.stack}


def _effect(effect: Effect | None) -> dict[str, float | None]:
    names = {
        "effect": "effect",
        "effect_low": "low",
        "effect_high": "high",
        "random_effect": "random_effect",
        "random_median": "random_median",
    }
    return {name: getattr(effect, field) if effect is not None else None for name, field in names.items()}


def per_example(detector: Detector, found: Scan) -> dict[str, Any]:
    """Scores and chance level of every example and head."""
    scores = found.scores[detector.name]
    return {"detector": detector.name, "values": scores.values.tolist(), "control": scores.control.tolist()}


def attention(
    model: Model, task: Task, group: list[Detector], observed: Mapping[str, list[HeadId]], batch: Batch
) -> dict[str, Any]:
    """For each detector an example text and where its observed heads look in it: the three strongest keys."""
    wanted = {(head.stack, head.layer) for heads in observed.values() for head in heads}
    if not wanted:
        return {}
    one = batch.rows(slice(0, 1))
    rows: dict[HeadId, list[list[float]]] = {}

    def strongest(weights: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        top = weights.float().topk(min(3, weights.shape[-1]), dim=-1)
        return torch.stack([top.values, top.indices.float()], -1)  # [example, head, query, 3, 2]

    def watch(layer: Any) -> None:
        if (layer.stack, layer.index) not in wanted:
            return
        top = layer.reduce(strongest)[0]
        for head in {
            head
            for heads in observed.values()
            for head in heads
            if (head.stack, head.layer) == (layer.stack, layer.index)
        }:
            weights, keys = top[head.head].unbind(-1)
            rows[head] = [
                [q, int(k), round(float(w), 3)]
                for q in range(layer.n_queries)
                for w, k in zip(weights[q], keys[q], strict=True)
                if w >= 0.05
            ]

    model.forward(one, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    pieces = model.tokenizer.pieces(one.tokens[0].tolist())
    return {
        d.name: {"tokens": pieces, "task": task.name, "heads": {str(head): rows[head] for head in observed[d.name]}}
        for d in group
        if observed[d.name]
    }


def summary(
    model: Model, run: Run, results: list[dict[str, Any]], skipped: list[dict[str, str]], seconds: dict[str, float]
) -> dict[str, Any]:
    """The content of atlas.json."""
    source, first = model.source, model.layers[0]
    return {
        "schema": "headatlas/atlas/1",
        "model": {
            "name": model.name,
            "source": source.origin if source is not None else "in memory",
            "revision": run.facts["revision"],
            "sha256": run.facts["sha256"],
            "architecture": model.architecture,
            "n_layers": model.n_layers,
            "n_heads": max(layer.n_heads for layer in model.layers),
            "n_kv_heads": first.n_groups,
            "d_model": model.d_model,
            "d_head": first.d_head,
            "dtype": run.facts["dtype"],
            "attention_path": model.path,
            "stacks": list(model.stacks),
        },
        "run": {
            "id": run.id,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seed": run.facts["seed"],
            "n": run.facts["n"],
            "device": str(model.device),
            "bos": run.facts["bos"],
            "versions": {
                "headatlas": __version__,
                "torch": torch.__version__,
                "transformers": version("transformers"),
                "python": platform.python_version(),
            },
            "seconds": seconds,
        },
        "detectors": results,
        "skipped": skipped,
    }


def write_tables(folder: Path, data: dict[str, Any], examples: list[dict[str, Any]], model: Model) -> None:
    """Write scores.parquet and examples.parquet."""
    names = ("score", "low", "high", "chance", "p", "q")
    extra = ("verdict", "effect", "effect_low", "effect_high", "random_effect")
    columns: dict[str, list[Any]] = {name: [] for name in ("detector", "stack", "layer", "head", *names, *extra)}
    for found in data["detectors"]:
        judged = {(row["stack"], row["layer"], row["head"]): row for row in found["heads"]}
        for row in found.pop("all"):
            known = judged.get((row["stack"], row["layer"], row["head"]), {})
            columns["detector"].append(found["name"])
            for name in ("stack", "layer", "head", *names):
                columns[name].append(row[name])
            for name in extra:
                columns[name].append(known.get(name))
    write_table(folder / "scores.parquet", columns)
    heads = model.heads
    long: dict[str, list[Any]] = {
        name: [] for name in ("detector", "example", "stack", "layer", "head", "score", "control")
    }
    for found in examples:
        for e, (values, control) in enumerate(zip(found["values"], found["control"], strict=True)):
            for head, value, chance in zip(heads, values, control, strict=True):
                for name, item in zip(
                    long, (found["detector"], e, head.stack, head.layer, head.head, value, chance), strict=True
                ):
                    long[name].append(item)
    write_table(folder / "examples.parquet", long)
