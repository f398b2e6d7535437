"""The catalogue's words and example texts for synthetic atlases, also for hostile ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from headatlas.heads import HeadId
from tests.report.synthetic import planted

TEXT = "When Mary and John went to the store , John gave a drink to Mary . The keeper of the old map smiled at her"
WORDS = TEXT.split(" ")
STAGE_NAMES = {
    "kr": "Knowledge Recalling",
    "ici": "In-Context Identification",
    "lr": "Latent Reasoning",
    "ep": "Expression Preparation",
}
PAPERS = (
    ("olsson-2022", "In-context Learning and Induction Heads", 2022, "https://arxiv.org/abs/2209.11895"),
    (
        "wang-2022",
        "Interpretability in the Wild: a Circuit for IOI in GPT-2 small",
        2022,
        "https://arxiv.org/abs/2211.00593",
    ),
    ("zheng-2024", "Attention Heads of Large Language Models: A Survey", 2024, "https://arxiv.org/abs/2409.03752"),
)


def extras(of: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """The catalogue's words and example texts for an atlas made here."""
    rng = np.random.default_rng(seed)
    papers = [{"id": key, "title": title, "year": year, "url": url} for key, title, year, url in PAPERS]
    kinds = {
        kind: {
            "name": name,
            "stage": stage,
            "dimension": f"{stage}-x",
            "role": f"What a {name.lower()} does: it moves what it reads earlier to the place where it is needed.",
            "papers": papers[: 1 + i % 3],
        }
        for i, ((_, kind, name, stage, *_), _) in enumerate(planted())
    }
    tokens = ["<|im_start|>", *(word if word in ",." else f" {word}" for word in WORDS + WORDS)]
    examples = {}
    for entry in of["detectors"]:
        addresses = [str(HeadId(line["layer"], line["head"], line["stack"])) for line in entry["heads"][:6]]
        shown = {address: _links(rng, len(tokens)) for address in addresses}
        examples[entry["name"]] = {"tokens": tokens, "task": entry["task"], "heads": shown}
    about = {
        "doc": "Mean attention from a repeated token to the token after its first copy. 0: none, 1: all of it.",
        "formula": "mean_q A[q, q - period + 1]",
        "range": "0 to 1",
    }
    return {
        "head_types": kinds,
        "stages": [{"id": key, "name": name} for key, name in STAGE_NAMES.items()],
        "examples": examples,
        "detectors": {entry["name"]: about for entry in of["detectors"]},
    }


def _links(rng: np.random.Generator, n_tokens: int) -> list[list[float]]:
    """Up to four keys for each query, with weights that sum to 1."""
    links: list[list[float]] = []
    for query in range(1, n_tokens):
        keys = rng.choice(query + 1, min(query + 1, 4), replace=False)
        weights = rng.dirichlet(np.ones(len(keys)) * 0.4)
        links += [[query, int(key), round(float(weight), 4)] for key, weight in zip(keys, weights, strict=True)]
    return links


def hostile_extras(of: dict[str, Any]) -> dict[str, Any]:
    """Words for `hostile` with scripts in tokens, roles and links."""
    made = extras(of)
    bad = of["model"]["name"]
    paper = {"id": "x", "title": bad, "year": 2024, "url": "javascript:window.hacked=1"}
    made["head_types"] = {bad: {"name": bad, "stage": "lr", "dimension": bad, "role": bad, "papers": [paper]}}
    made["detectors"] = {entry["name"]: {"doc": bad, "formula": bad, "range": bad} for entry in of["detectors"]}
    for example in made["examples"].values():
        example["tokens"] = [bad, *example["tokens"][1:]]
    return made
