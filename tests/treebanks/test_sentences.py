"""Treebanks of both kinds, what is refused in them, and the sentences of the grammar."""

from pathlib import Path

import pytest

from headatlas.errors import BadInput
from headatlas.treebanks.grammar import generated_sentences
from headatlas.treebanks.sentences import ROOT, Sentence, read_treebank

CONLLU = """# sent_id = one
1-2	Don't	_	_	_	_	_	_	_	SpaceAfter=No
1	Do	do	AUX	VB	_	3	aux	_	_
2	n't	not	PART	RB	_	3	advmod	_	_
3	go	go	VERB	VB	_	0	root	_	_
3.1	there	there	ADV	RB	_	_	_	_	_

# sent_id = two
1	She	she	PRON	PRP	_	2	nsubj	_	_
2	sings	sing	VERB	VBZ	_	0	root	_	SpaceAfter=No
3	.	.	PUNCT	.	_	2	punct	_	_
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bank"
    path.write_text(text, encoding="utf-8")
    return path


def test_dependencies_of_a_file(tmp_path: Path):
    first, second = read_treebank(written(tmp_path, CONLLU))
    assert first.words == ("Do", "n't", "go")
    assert first.text == "Don'tgo"  # no space inside the multiword token, none behind it: as the file says
    assert first.heads == (2, 2, ROOT)
    assert first.relations == ("aux", "advmod", "root")
    assert second.text == "She sings."
    assert second.root == 1


def test_trees_of_a_file(tmp_path: Path):
    text = """(ROOT (S (NP-SBJ (PRP She)) (VP (VBD saw) (NP (DT the) (NN sea)) (NP (-NONE- *T*-1))) (. .)))
    (S (NP (NN Rain)) (VP (VBZ falls)))"""
    first, second = read_treebank(written(tmp_path, text))
    assert first.words == ("She", "saw", "the", "sea")
    assert first.spans == {(0, 3, "ROOT"), (0, 3, "S"), (0, 0, "NP"), (1, 3, "VP"), (2, 3, "NP")}
    assert second.spans == {(0, 1, "S"), (0, 0, "NP"), (1, 1, "VP")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no sentence"),
        ("one two three\n", "has 1 columns in line 1, where CoNLL-U has 10"),
        ("1\tShe\t_\t_\t_\t_\t2\tnsubj\t_\t_\n", "0 roots"),
        ("1\tShe\t_\t_\t_\t_\t0\troot\t_\t_\n2\tgo\t_\t_\t_\t_\t9\tdep\t_\t_\n", "has head 9"),
        ("1\tShe\t_\t_\t_\t_\t_\tnsubj\t_\t_\n", "no head"),
        ("1\tShe\t_\t_\t_\t_\t0\troot\t_\t_\n2\tsings\t_\t_\t_\t_\t0\troot\t_\t_\n", "2 roots"),
        ("2\tShe\t_\t_\t_\t_\t0\troot\t_\t_\n", "word 2 where word 1 is due"),
        ("1\tShe\t_\t_\t_\t_\tx\troot\t_\t_\n", "bank"),
        (
            "1\ta\t_\t_\t_\t_\t2\tx\t_\t_\n2\tb\t_\t_\t_\t_\t1\tx\t_\t_\n3\tc\t_\t_\t_\t_\t0\troot\t_\t_\n",
            "lead in a circle",
        ),
        ("1\ta\t_\t_\t_\t_\t9\tx\t_\t_\n2\tb\t_\t_\t_\t_\t0\troot\t_\t_\n", r"word 1 \('a'\), has head 9"),
        ("1\ta\t_\t_\t_\t_\t1\tx\t_\t_\n2\tb\t_\t_\t_\t_\t0\troot\t_\t_\n", "has head 1"),
        ("1-3\tab\t_\t_\t_\t_\t_\t_\t_\t_\n1\ta\t_\t_\t_\t_\t0\troot\t_\t_\n", "words up to 3, and 1 words"),
        ("(S (NP (PRP she))) and more (S (NN x))", "outside of all trees, from 'and'"),
        ("(S (NP (PRP She)", "brackets that do not match"),
        ("(S (NP (PRP She))) )", "brackets that do not match"),
    ],
)
def test_what_is_no_treebank_is_told_in_a_line(tmp_path: Path, text: str, said: str):
    with pytest.raises(BadInput, match=said) as told:
        read_treebank(written(tmp_path, text))
    assert "\n" not in str(told.value)


def test_words_may_hold_what_ends_a_line_elsewhere(tmp_path: Path):
    row = "1\ta\u2028b\x85c\t_\t_\t_\t_\t0\troot\t_\t_\n\n"
    (found,) = read_treebank(written(tmp_path, row))
    assert found.words == ("a\u2028b\x85c",)


def test_sentences_keep_their_parts_in_step():
    with pytest.raises(BadInput, match="1 words"):
        Sentence(("a",), (True,), (ROOT, 0), ("root", "dep"))
    with pytest.raises(BadInput, match="a head 0"):
        Sentence(("a",), (True,), (0,), ("dep",))
    with pytest.raises(BadInput, match="lead in a circle"):
        Sentence(("a", "b", "c", "d"), (True,) * 4, (ROOT, 2, 3, 1), ("root", "x", "x", "x"))
    with pytest.raises(BadInput, match="a span"):
        Sentence(("a",), (True,), spans=frozenset({(0, 1, "NP")}))


def test_made_sentences_are_trees_of_both_kinds():
    made = generated_sentences(400)
    assert len({one.text for one in made}) == 400
    for one in made:
        assert one.heads.count(ROOT) == 1
        for i in range(len(one.words)):  # every word leads to the root
            seen = set()
            while one.heads[i] != ROOT:
                assert i not in seen
                seen.add(i)
                i = one.heads[i]
        for a, b, _ in one.spans:  # constituents nest, and only one edge leaves each
            assert not any(a < c <= b < d for c, d, _ in one.spans)
            assert sum(not a <= one.heads[i] <= b for i in range(a, b + 1)) == 1


def test_made_sentences_agree_across_what_stands_between():
    plural = {"are", "were"}
    asked = 0
    for one in generated_sentences(1500, seed=3):
        for i, (head, label) in enumerate(zip(one.heads, one.relations, strict=True)):
            if label in ("cop", "aux:pass"):
                (subject,) = [
                    one.words[k]
                    for k in range(len(one.words))
                    if one.heads[k] == head and one.relations[k] in ("nsubj", "nsubj:pass")
                ]
                many = subject.lower() in {"children", "women", "men"} or (subject[-1] == "s" and subject[0].islower())
                if subject not in ("that", "who", "she", "he"):
                    assert (one.words[i] in plural) == many, one.text
                    asked += 1
    assert asked > 100


def test_made_sentences_have_what_is_asked_of_them():
    made = generated_sentences(1500)
    found = {label for one in made for label in one.relations}
    assert {"acl:relcl", "nsubj:pass", "nmod:poss", "advcl", "ccomp", "xcomp", "compound:prt", "iobj", "conj"} <= found
    assert sum(bool(one.mentions) for one in made) > 100
    assert generated_sentences(5, seed=1) == generated_sentences(5, seed=1) != generated_sentences(5, seed=2)
    with pytest.raises(BadInput, match="0 sentences"):
        generated_sentences(0)
