"""Heads that matter and that no known kind explains: found where planted, told from heads that are explained or that do nothing."""

import json

import numpy as np
import pytest

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.pages import unknown
from headatlas.pages.run import PageOptions
from headatlas.pages.sources import documents
from headatlas.pages.unknown import beyond_chance, profiles, unknown_heads
from headatlas.progress import Silent

OPTIONS = PageOptions(tokens=1500, length=100, every=4, sample=64)


@pytest.fixture(scope="module")
def corpus():
    return [one.text for one, _ in zip(documents(), range(3), strict=False)]


def test_heads_that_are_not_explained_are_removed_and_those_that_matter_are_kept(opened, corpus, tmp_path, monkeypatch):
    model = opened["gqa"]
    monkeypatch.setattr(unknown, "MATTERS", 0.0)
    found = unknown_heads(model, corpus, options=OPTIONS, out=tmp_path / "u")
    assert len(found.tried) > 3  # random heads read everything alike: no kind explains them beyond chance
    assert (beyond_chance(found.pages) < 0.5).sum() >= len(found.tried)
    for head, (effect, low, high) in found.effects.items():
        assert low <= effect <= high
        assert (head in found.heads) == (effect >= 0 and low > 0)
    data = json.loads((tmp_path / "u" / "unknown.json").read_text())
    assert [group["heads"] for group in data["groups"]] == [[str(head) for head in group] for group in found.groups]
    assert set(found.pages.pages) == set(found.heads)
    assert (tmp_path / "u" / "index.html").exists()
    assert f"{len(found.tried)} head" in found.lines()[0]


def test_an_interrupted_call_measures_nothing_twice(opened, corpus, tmp_path, monkeypatch):
    model = opened["gqa"]
    whole = unknown_heads(model, corpus, options=OPTIONS, out=tmp_path / "whole")
    with monkeypatch.context() as once:
        once.setattr(unknown, "_alike", dies)
        with pytest.raises(KeyboardInterrupt):
            unknown_heads(model, corpus, options=OPTIONS, out=tmp_path / "u")
    assert not (tmp_path / "u").exists()
    told = Counted()
    found = unknown_heads(model, corpus, options=OPTIONS, out=tmp_path / "u", progress=told)
    assert "ablate" not in told.steps
    assert found.effects == whole.effects
    assert found.data == whole.data
    names = {str(path.relative_to(tmp_path / "u")) for path in (tmp_path / "u").rglob("*")}
    assert names == {str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*")}
    assert "effects" not in names


def test_the_index_says_what_the_loss_does_without_each_head(opened, corpus):
    from headatlas.pages.html import index_html

    found = unknown_heads(opened["gqa"], corpus, options=OPTIONS)
    head, other = found.pages.heads[:2]
    page = index_html(found.pages, [("", [head, other])], (), {head: (0.123, 0.1, 0.2), other: (-0.5, -1.0, 0.25)})
    assert '<td class="n">+0.12 (+0.10 to +0.20)</td>' in page
    assert "loss without it" in page
    assert "loss without it" not in index_html(found.pages)


def dies(*_, **__):
    raise KeyboardInterrupt


class Counted(Silent):
    """The steps that moved."""

    def __init__(self) -> None:
        self.steps: set[str] = set()

    def advance(self, step: str, amount: int = 1, of: int | None = None) -> None:
        self.steps.add(step)


def test_effects_are_those_of_removing_each_head(opened, corpus):
    """Against a plain pass with the head's output replaced by its mean over the scored windows."""
    from headatlas.edits import Mean
    from headatlas.pages.corpus import read_corpus
    from headatlas.progress import Silent
    from headatlas.task import next_token_loss

    model, head = opened["gqa"], HeadId(1, 0)
    batch = unknown._scored(read_corpus(model.tokenizer, corpus, tokens=OPTIONS.tokens, length=128), OPTIONS.seed)
    effect, low, high = unknown._effects(model, batch, [head], None, Silent())[head]
    places = batch.positions["predict"]
    edit = Mean.over(model, [head], batch)
    clean, changed = (
        next_token_loss.score(model.forward(batch, edits=edits, logit_positions=places), batch)
        for edits in ([], [edit])
    )
    assert effect == pytest.approx(float((changed - clean).mean()), abs=1e-5)
    assert low < effect < high


def test_like_heads_come_together(opened, corpus):
    model = opened["gqa"]
    found = unknown_heads(model, corpus, options=OPTIONS)
    rows = profiles(found.pages, model.heads)
    np.testing.assert_allclose(rows.sum(1), 2, atol=1e-5)  # the partition and the distances
    effects = dict.fromkeys(model.heads, (0.1, 0.05, 0.2))
    (group,) = unknown._alike(found.pages, model.heads[:2], effects)  # random heads read alike
    assert set(group) == set(model.heads[:2])
    assert unknown._alike(found.pages, (), effects) == ()


def test_what_cannot_be_asked_is_refused(opened, corpus):
    with pytest.raises(UnsupportedModel, match="no next token"):
        unknown_heads(opened["encoder"], corpus)
    with pytest.raises(BadInput, match="Leave generate out"):
        unknown_heads(opened["gqa"], corpus, options=PageOptions(generate=5))
    with pytest.raises(BadInput, match="too short to remove"):
        unknown_heads(opened["gqa"], [corpus[0][:150]], options=PageOptions(length=60, every=2))
