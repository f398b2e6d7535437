"""A small catalogue without a fault, written anew for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

STAGES = """\
- id: kr
  name: Knowledge Recalling
  description: Heads bring up what training stored.
  dimensions:
    - {id: kr-general, name: General Tasks}
- id: lr
  name: Latent Reasoning
  description: Heads work the answer out.
  dimensions:
    - {id: lr-icl, name: In-context Learning}
    - {id: lr-task, name: Task-Specific Reasoning}
"""
METHODS = """\
- id: mean-ablation
  name: Mean Ablation
  category: modeling-free
  group: replacement-based
  operation: Put the mean over a data set in place of a state.
- id: probing
  name: Probing
  category: modeling-required
  group: training
  operation: Train a small classifier on a state.
  papers: [doe-2019-words]
"""
BENCHMARKS = """\
- id: pairs
  name: Word Pairs
  kind: mechanism
  description: Pairs of words that repeat.
  url: https://example.org/pairs
"""
MODELS = """\
- id: gpt-2-small
  names: [GPT-2 small]
  hub_ids: [openai-community/gpt2, gpt2]
  layers: 12
  heads: 12
"""
INDUCTION = """\
id: induction-head
name: Induction Head
aliases: [Prefix Matching Head]
stage: lr
dimension: lr-icl
placed_by: survey
role: Continues a repeated pattern.
reads: What came after the earlier copy.
writes: The token that came next.
depth: [middle]
models: [GPT]
tested_by: Repeated random tokens.
related: [mover-head]
evidence: [code]
"""
MOVER = """\
id: mover-head
name: Mover Head
aliases: [S-Mover Head]
stage: lr
dimension: lr-task
placed_by: ours
role: Copies a name to the end.
reads: Names in the context.
writes: The name's logit.
tested_by: Swap the names.
evidence: [recall]
"""
MEMORY = """\
id: memory-head
name: Memory Head
stage: kr
dimension: kr-general
placed_by: survey
role: Recalls facts about a subject.
reads: The subject.
writes: Attributes.
papers: [doe-2019-words]
tested_by: Facts that training held.
evidence: [abstract]
"""
ROE = """\
id: roe-2024-patterns
title: 'Patterns That Repeat: Induction in GPT-2 & Friends'
authors: [Jané Roe, Ada Example]
date: 2024-03-05
venue: NeurIPS 2024
section: '2024'
arxiv: '2403.01234'
links:
  - {kind: paper, url: 'https://arxiv.org/abs/2403.01234', venue: arXiv}
  - {kind: code, url: 'https://github.com/example/patterns', venue: GitHub}
heads: [induction-head, mover-head]
methods: [mean-ablation]
models: [GPT-2 small, Llama-2-7B]
benchmarks: [pairs]
bib_keys: [Patterns_24]
summary:
  innovation: Follows repeated patterns through two layers.
  tasks: Random tokens, twice.
  result: Two heads suffice.
  evidence: [abstract, code]
corrections: [The list gives another year.]
"""
POE = """\
id: poe-2025-names
title: Names Move
authors: [Edgar Poe]
date: 2025-01-07
section: '2025'
links:
  - {kind: paper, url: 'https://example.org/names'}
heads: [mover-head]
methods: [mean-ablation, probing]
models: [Pythia 70M]
summary:
  innovation: Tracks names.
  tasks: Stories.
  result: 'Names move late; < 5% of heads do it.'
  evidence: [abstract]
"""
DOE = """\
id: doe-2019-words
title: Words and Facts
date: 2019-06-01
section: before-2023
doi: 10.1000/words
links:
  - {kind: paper, url: 'https://doi.org/10.1000/words', venue: ACL}
heads: [memory-head]
models: [BERT-base]
summary:
  innovation: Looks at words.
  tasks: Reading.
  result: Facts sit in few heads.
  evidence: [recall]
"""
CLAIMS = """\
paper: roe-2024-patterns
claims:
  - id: roe-2024-induction
    paper: roe-2024-patterns
    head_type: induction-head
    model: GPT-2 small
    hub_id: openai-community/gpt2
    heads:
      - {head: '5.5', role: induction, value: 0.9}
      - {head: '6.9'}
    statement: Two heads attend to the token after the copy.
    metric: prefix matching
    evidence: code
    where: Table 1
"""
CIRCUIT = """\
id: repeats
name: Repeated tokens
paper: roe-2024-patterns
task: Continue a repeated sequence.
model: GPT-2 small
runs_on: repeated
nodes:
  - {id: previous, label: Previous token heads, heads: ['4.11']}
  - {id: induction, label: Induction heads, head_type: induction-head, heads: ['5.5', '6.9']}
  - {id: logits, label: Logits}
edges:
  - {source: previous, target: induction, kind: k}
  - {source: induction, target: logits, kind: logits}
evidence: [code]
"""
FILES = {
    "stages.yaml": STAGES,
    "methods.yaml": METHODS,
    "benchmarks.yaml": BENCHMARKS,
    "models.yaml": MODELS,
    "heads/induction-head.yaml": INDUCTION,
    "heads/mover-head.yaml": MOVER,
    "heads/memory-head.yaml": MEMORY,
    "papers/roe-2024-patterns.yaml": ROE,
    "papers/poe-2025-names.yaml": POE,
    "papers/doe-2019-words.yaml": DOE,
    "claims/roe-2024-patterns.yaml": CLAIMS,
    "circuits/repeats.yaml": CIRCUIT,
}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogue"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
