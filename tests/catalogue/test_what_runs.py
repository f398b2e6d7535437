"""docs/papers.md: it is what the files say today, each paper runs or has a reason, and each of its commands runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headatlas.catalogue import load
from headatlas.catalogue.export.what_runs import _in_order, first_list, markdown, what_runs
from headatlas.detector import detectors
from headatlas.treebanks.grammar import generated_sentences
from headatlas.treebanks.sentences import Sentence
from tests import pages
from tests.benchmarks.samples import truthfulqa

PAGE = "papers.md"
COMMANDS = pages.commands(PAGE)
# So that a command takes seconds: fewer examples and steps, heads named instead of looked for.
FEWER = {
    "mine": ["--n", "8", "--no-verdict"], "probe": ["--n", "40", "--heads", "18.6 20.0"],
    "steer": ["--n", "16", "--draws", "2", "--heads", "18.6 20.0"], "attribute": ["--n", "4", "--force"],
    "score": ["--n", "4"], "ablate": ["--n", "4", "--force"], "lags": ["--n", "2"], "protect": ["--n", "2"],
    "prune": ["--n", "2", "--points", "2", "--draws", "1", "--steps", "2"],
    "path": ["--n", "4", "--force"], "circuit find": ["--n", "8", "--force", "--largest", "8", "--seeds", "1"], "circuit test": ["--n", "8", "--force"],
    "toy": ["--steps", "40"],  # what a toy shows when it is trained to its end is the matter of tests/lab/test_toys.py
}  # fmt: skip


def conllu(sentence: Sentence) -> str:
    """A sentence in CoNLL-U, with what is known of it."""
    rows = zip(sentence.words, sentence.spaces, sentence.heads, sentence.relations, strict=True)
    return "\n".join(
        "\t".join([str(i), word, *"____", str(head + 1), relation, "_", "_" if space else "SpaceAfter=No"])
        for i, (word, space, head, relation) in enumerate(rows, 1)
    ) + "\n"  # fmt: skip


def test_the_page_is_what_the_files_say():
    assert pages.text(PAGE) == markdown(load()), "run: headatlas papers runs docs/papers.md"


def test_it_holds_forty_papers_and_their_forty_three_tags():
    papers = [load().papers[id_] for id_ in first_list()]
    assert len(papers) == len(set(first_list())) == 40
    tags = {tag for paper in papers for tag in paper.tags}
    # A tag that the list gave one of them later is no tag of that list.
    assert len(tags - {"CMR like Head"}) == 43


@pytest.mark.parametrize("row", what_runs(load()), ids=lambda row: row.paper.id)
def test_a_paper_runs_or_says_why_not(row):
    assert bool(row.commands) != bool(row.reasons)
    for reason in row.reasons:
        assert len(reason.split()) >= 2
    named = [name for command in row.commands for name in re.findall(r"--detector (\S+)", command)]
    assert set(named) <= set(detectors())


def test_a_paper_that_runs_has_no_reason_why_it_does_not():
    assert not [row.paper.id for row in what_runs(load()) if row.commands and row.paper.reason]


def test_what_a_row_says_comes_from_detectors_methods_and_circuits():
    rows = {row.paper.id: row for row in what_runs(load())}
    assert "detector `memory`" in rows["jin-2024-knowledge-conflict-ph3"].runs
    assert any("probabilities" in text for text in rows["jin-2024-knowledge-conflict-ph3"].differs)
    assert "`headatlas flow`" in rows["ferrando-2024-information-flow-routes"].runs
    assert "circuit `ioi` of GPT-2 small" in rows["wang-2023-ioi"].runs
    assert rows["pande-2021-heads-hypothesis"].commands == (
        "headatlas mine smollm2-135m --detector block --detector syntactic-sieve",
        "headatlas mine minilm-l6 --detector delimiter",
        "headatlas syntax minilm-l6 --measure sieve",
    )
    assert any("Edges are ranked by EAP-IG" in text for text in rows["yao-2024-knowledge-circuits"].differs)
    assert rows["gu-2016-copynet"].reasons == (load().papers["gu-2016-copynet"].reason,)


@pytest.mark.slow
def test_each_command_of_the_page_runs(tmp_path, monkeypatch, capsys, request):
    """In their order, as one reads what another has written; on a small model with the real tokenizer where it is a decoder's.

    Circuits are of the real one: one that knows no capital has none.
    """
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    truthfulqa(tmp_path).rename("TruthfulQA.csv")
    Path("en_pud-ud-test.conllu").write_text("\n".join(map(conllu, generated_sentences(60, 0))), encoding="utf-8")
    failed = []
    real = lambda words: "minilm-l6" in words or words[0] == "circuit"  # noqa: E731
    for command in sorted(COMMANDS, key=lambda words: not real(words)):
        if not real(command):
            request.getfixturevalue("load_gives_narrow_smollm2")
        words = " ".join(command[:2]) if command[0] == "circuit" else command[0]
        place = ["--out", f"runs/{len(list(Path('runs').glob('*')))}"] if words == "mine" else []
        code, out, err = pages.run(capsys, *command, *FEWER.get(words, []), *place)
        if code or not out.strip():
            failed.append((" ".join(command), code, err[-300:]))
    assert not failed


def test_a_line_that_reads_a_file_stands_behind_the_one_that_writes_it():
    lines = ["compare a.json b.json", "find --out b.json", "find --out a.json", "find --out b.json"]
    assert _in_order(lines) == ["find --out b.json", "find --out a.json", "compare a.json b.json"]
