"""What the site is built from in tests: atlases of runs, and a catalogue with markup in every text."""

from __future__ import annotations

import dataclasses
from typing import Any

from headatlas.catalogue import Catalogue, load

# What a hostile entry may try to smuggle in.
EVIL = "<script>document.title='hacked'</script><img src=x onerror=alert(1)>\"'</title>{{7*7}}&amp;\u202e"


def atlas(name: str, created: str, heads: list[dict[str, Any]], head_type: str = "induction-head") -> dict[str, Any]:
    detector = {"name": "induction", "head_type": head_type, "heads": heads, "task": "repeated", "group": {"heads": []}}
    return {
        "schema": "headatlas/atlas/1",
        "model": {"name": name, "d_model": 4},
        "run": {"id": created[:10], "created": created},
        "detectors": [detector],
    }


def hostile() -> Catalogue:
    """Our catalogue with markup in every text of a paper, a head type, a circuit and a claim."""
    ours = load()
    paper = ours.papers["wang-2023-ioi"]
    assert paper.summary
    summary = paper.summary.model_copy(update={"innovation": EVIL, "tasks": EVIL, "result": EVIL})
    link = paper.links[0].model_copy(update={"venue": EVIL, "url": "https://example.org/?a=1&b=<x>"})
    texts = {"title": EVIL, "authors": [EVIL], "venue": EVIL, "models": [EVIL], "notes": [EVIL], "corrections": [EVIL]}
    bad = paper.model_copy(update={**texts, "summary": summary, "links": [link]})
    head = ours.heads["induction-head"]
    words = dict.fromkeys(("name", "role", "reads", "writes", "tested_by", "scope"), EVIL)
    bad_head = head.model_copy(update={**words, "aliases": [EVIL], "models": [EVIL]})
    circuit = ours.circuits["ioi"]
    nodes = [node.model_copy(update={"label": EVIL, "positions": EVIL, "heads": [EVIL]}) for node in circuit.nodes]
    edges = [edge.model_copy(update={"note": EVIL}) for edge in circuit.edges]
    bad_circuit = circuit.model_copy(update={"name": EVIL, "task": EVIL, "nodes": nodes, "edges": edges})
    claims = {
        id_: c.model_copy(update={"statement": EVIL, "where": EVIL, "model": EVIL}) if c.paper == paper.id else c
        for id_, c in ours.claims.items()
    }
    return dataclasses.replace(
        ours,
        papers={**ours.papers, bad.id: bad},
        heads={**ours.heads, head.id: bad_head},
        circuits={**ours.circuits, "ioi": bad_circuit},
        claims=claims,
    )
