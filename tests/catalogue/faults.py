"""Faults to plant in the sample catalogue, one a line."""

from __future__ import annotations

import datetime
from typing import NamedTuple

ROE, POE, DOE = "papers/roe-2024-patterns.yaml", "papers/poe-2025-names.yaml", "papers/doe-2019-words.yaml"
MOVER, MEMORY = "heads/mover-head.yaml", "heads/memory-head.yaml"
CLAIMS, CIRCUIT = "claims/roe-2024-patterns.yaml", "circuits/repeats.yaml"
TOMORROW = datetime.date.today() + datetime.timedelta(days=1)


class Fault(NamedTuple):
    """What is planted, the text in the line that must be named (None: line 1), and what must be said."""

    file: str
    old: str
    new: str
    line: str | None
    message: str


FAULTS = {
    "unknown key": Fault(POE, "title:", "tittle: x\ntitle:", "tittle", "has no key 'tittle'. Did you mean 'title'"),
    "key missing": Fault(POE, "title: Names Move\n", "", None, "lacks 'title'"),
    "empty value": Fault(POE, "title: Names Move", "title:", "title", "'title' is not a text but None"),
    "arxiv id as number": Fault(ROE, "'2403.01234'\nlinks", "2403.01234\nlinks", "arxiv: 2403", "Put it in quotes"),
    "arxiv id with version": Fault(ROE, "'2403.01234'\nlinks", "'2403.01234v2'\nlinks", "v2", "an arXiv id in quotes"),
    "date as number": Fault(POE, "date: 2025-01-07", "date: 20250107", "20250107", "a date is written year-month-day"),
    "date as seconds in quotes": Fault(POE, "2025-01-07", "'1736208000'", "1736208000", "year-month-day"),
    "no such day": Fault(POE, "2025-01-07", "2025-02-30", "2025-02-30", "is no date"),
    "script address": Fault(POE, "https://example.org/names", "javascript:alert(1)", "javascript", "starts with http"),
    "unknown kind of link": Fault(POE, "kind: paper", "kind: papre", "papre", "It is one of 'paper', 'code'"),
    "no link": Fault(POE, "  - {kind: paper, url: 'https://example.org/names'}", "  []", "links:", "'links' is []"),
    "unknown evidence": Fault(POE, "[abstract]", "[rumour]", "rumour", "It is one of 'upstream', 'abstract'"),
    "not a mapping": Fault(POE, "", "- a\n", None, "is not a mapping of keys to values"),
    "unknown head type": Fault(POE, "[mover-head]", "[moving-head]", "heads", "no head type 'moving-head'. Did you mean"),
    "unknown method": Fault(POE, "probing]", "prodding]", "methods", "there is no method 'prodding'"),
    "unknown benchmark": Fault(ROE, "[pairs]", "[trios]", "benchmarks", "there is no benchmark 'trios'"),
    "unknown paper of a head type": Fault(MEMORY, "[doe-2019-words]", "[doe-2018]", "papers", "no paper 'doe-2018'"),
    "unknown related head type": Fault("heads/induction-head.yaml", "[mover-head]", "[x]", "related", "no head type 'x'"),
    "unknown paper of a method": Fault("methods.yaml", "[doe-2019-words]", "[nobody]", "papers", "no paper 'nobody'"),
    "unknown head type of a claim": Fault(CLAIMS, "type: induction-head", "type: echo", "echo", "no head type 'echo'"),
    "unknown node of an edge": Fault(CIRCUIT, "source: previous", "source: prior", "prior", "has no node 'prior'"),
    "unknown head type of a node": Fault(CIRCUIT, "type: induction-head", "type: echo", "echo", "no head type 'echo'"),
    "unknown dimension": Fault(MOVER, "dimension: lr-task", "dimension: lr-tusk", "lr-tusk", "has no dimension"),
    "dimension of another stage": Fault(MOVER, "stage: lr", "stage: kr", "dimension", "stage kr has no dimension"),
    "unknown stage": Fault(MOVER, "stage: lr", "stage: xx", "stage", "It is one of 'kr', 'ici', 'lr' or 'ep'"),
    "file name is not the id": Fault(POE, "id: poe-2025-names", "id: poe-2025", "id: poe-2025", "Rename the file to"),
    "section of another year": Fault(POE, "section: '2025'", "section: '2024'", "section", "does not fit the date"),
    "unknown section": Fault(POE, "section: '2025'", "section: latest", "latest", "there is no section 'latest'"),
    "date in the future": Fault(POE, "2025-01-07", str(TOMORROW), "date", "is in the future"),
    "date after arXiv": Fault(ROE, "2024-03-05", "2025-03-05", "date", "months after arXiv 2403.01234 came in"),
    "date of the venue": Fault(ROE, "2024-03-05", "2024-12-10", "date", "first public, not that of the venue"),
    "date long before arXiv": Fault(ROE, "2024-03-05", "2021-03-05", "date", "years before arXiv 2403.01234"),
    "arXiv month 13": Fault(ROE, "'2403.01234'\nlinks", "'2413.01234'\nlinks", "2413", "has no month"),
    "arXiv id too short": Fault(ROE, "'2403.01234'\nlinks", "'2403.0123'\nlinks", "2403.0123'", "has 4 digits"),
    "link to another paper": Fault(ROE, "abs/2403.01234", "abs/2403.04321", "04321", "leads to 2403.04321 but arxiv is"),
    "DOI only in the link": Fault(DOE, "doi: 10.1000/words\n", "", "doi.org", "Add doi: '10.1000/words'"),
    "no link to the paper": Fault(POE, "kind: paper", "kind: blog", "links", "no link leads to the paper itself"),
    "same link twice": Fault(ROE, "https://github.com/example/patterns", "https://arxiv.org/abs/2403.01234", "code", "twice"),
    "no head type": Fault(DOE, "heads: [memory-head]", "heads: []", "heads", "names neither a head type nor a method"),
    "head type twice": Fault(POE, "[mover-head]", "[mover-head, mover-head]", "heads", "stands twice in heads"),
    "no summary": Fault(DOE, DOE, "", "id", "the summary is missing"),
    "empty part of a summary": Fault(POE, "tasks: Stories.", "tasks: ''", "tasks", "at least 1 character"),
    "long summary": Fault(POE, "Tracks names.", "word " * 60, "summary", "the summary has 70 words"),
    "number from recall": Fault(DOE, "Facts sit in few heads", "Few heads hold 87% of facts", "87%", "recall alone"),
    "HTML in a title": Fault(POE, "Names Move", "Names <img src=x onerror=alert(1)>", "<img", "holds markup"),
    "script in a summary": Fault(POE, "Stories.", "<script>alert(1)</script>", "<script>", "holds markup"),
    "dead internal link": Fault(POE, "Stories.", "As in [[roe-2023]].", "roe-2023", "links to 'roe-2023', which is no entry"),
    "dead relative link": Fault(POE, "Stories.", "'See [it](papers/x.html).'", "x.html", "which is no entry"),
    "alias of another head type": Fault(MOVER, "S-Mover Head", "prefix matching-head", "aliases", "a name of 'induction-head'"),
    "name of another head type": Fault(MOVER, "name: Mover Head", "name: Induction head", "name", "of 'induction-head' too"),
    "related to itself": Fault("heads/induction-head.yaml", "[mover-head]", "[induction-head]", "related", "to itself"),
    "head outside the model": Fault(CLAIMS, "'6.9'", "'12.0'", "12.0", "has no head 12.0: it has 12 layers of 12 heads"),
    "head outside the layer": Fault(CLAIMS, "'6.9'", "'6.12'", "6.12", "GPT-2 small has no head 6.12"),
    "head as a number": Fault(CLAIMS, "'6.9'", "6.10", "6.1", "Put it in quotes"),
    "head named twice": Fault(CLAIMS, "'6.9'", "'5.5'", "- {head: '5.5'}", "head 5.5 is named twice"),
    "claim of another paper": Fault(CLAIMS, "    paper: roe-2024-patterns", "    paper: poe-2025-names", "poe-2025", "Move it"),
    "claim of nothing": Fault(CLAIMS, "    heads:\n      - {head: '5.5', role: induction, value: 0.9}\n      - {head: '6.9'}\n",
                              "", "- id", "neither a head nor a value"),
    "value that is no number": Fault(CLAIMS, "value: 0.9", "value: true", "value", "valid number"),
    "unit without value": Fault(CLAIMS, "    metric", "    unit: percent\n    metric", "unit", "without a value"),
    "no Hub id": Fault(CLAIMS, "openai-community/gpt2", "'a b/c'", "a b/c", "is no Hub id"),
    "node twice": Fault(CIRCUIT, "id: logits, label: Logits", "id: induction, label: Logits", "Logits", "stands here twice"),
    "node without an edge": Fault(CIRCUIT, "edges:", "  - {id: mlp, label: MLP}\nedges:", "MLP", "no edge touches"),
    "edge to itself": Fault(CIRCUIT, "source: previous, t", "source: induction, t", "kind: k", "leads to itself"),
    "circuit head outside the model": Fault(CIRCUIT, "'4.11'", "'40.1'", "40.1", "has no head 40.1"),
    "unknown edge kind": Fault(CIRCUIT, "kind: k}", "kind: z}", "kind: z", "It is one of 'q', 'k', 'v'"),
    "claim id twice": Fault(CLAIMS, "claims:\n", "claims:\n  - {id: roe-2024-induction, paper: roe-2024-patterns, head_type: "
                            "mover-head, model: x, value: 1, statement: s, evidence: code, where: w}\n",
                            "  - id: roe", "stands at"),
    "duplicate key": Fault(POE, "title:", "title: Other\ntitle:", "title: Names", "the key 'title' stands here twice"),
    "anchor": Fault(POE, "authors: [", "authors: &a [", "&a", "is a YAML anchor"),
    "broken UTF-8": Fault(POE, "Edgar Poe", "Edgar Po\udcff", "Edgar", "is not UTF-8"),
    "list instead of text": Fault(POE, "Names Move", "[Names, Move]", "title", "Write one text here"),
    "bibliography key twice": Fault(ROE, "[Patterns_24]", "[P_24, P_24]", "bib_keys", "'P_24' stands twice"),
    "method list that is a mapping": Fault("methods.yaml", "", "id: probing\n", None, "a list of methods is expected"),
    "orphan head type": Fault(MEMORY, "papers: [doe-2019-words]\n", "", None, "no paper names this head type"),
    "dimension without head type": Fault("stages.yaml", "    - {id: lr-task, name: Task-Specific Reasoning}",
                                         "    - {id: lr-task, name: T}\n    - {id: lr-x, name: X}", "lr-x", "no head type belongs"),
}  # fmt: skip
