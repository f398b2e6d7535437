"""Pages of heads: events are those of the model's own rows, removals those of plain edits, files are whole and resumed."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from headatlas.edits import Mean
from headatlas.errors import BadInput, StoreError, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.pages import removal, roles, run
from headatlas.pages.corpus import read_corpus
from headatlas.pages.events import look_at
from headatlas.pages.kinds import PAIRS
from headatlas.pages.removal import AFTER, remove_at
from headatlas.pages.run import PageOptions, head_pages
from headatlas.pages.scan import Settings, mean_z, scan
from tests.head_pages.conftest import KINDS, OTHER, TEXT

real = removal._Window.agrees
OPTIONS = PageOptions(length=64, every=3, sample=64)


@pytest.mark.parametrize("kind", KINDS)
def test_events_show_the_model_s_own_rows(kind, opened, eager):
    model = opened[kind]
    corpus = read_corpus(model.tokenizer, [TEXT, OTHER], length=64)
    wanted = {head: [(0, 50), (1, 9)] for head in (HeadId(0, 1, model.stacks[0]), HeadId(1, 3, model.stacks[0]))}
    found = look_at(model, corpus, wanted)
    assert len(found) == 4
    for (head, (window, position)), event in found.items():
        batch = corpus.batch([window])
        with torch.no_grad():
            rows = eager[kind](input_ids=batch.tokens, output_attentions=True).attentions[head.layer][0, head.head]
        low = position - event.query
        np.testing.assert_allclose(event.weights, rows[position, low : low + len(event.weights)], atol=1e-5)
        assert event.tokens[event.query] == model.tokenizer.pieces([int(batch.tokens[0, position])])[0]
        assert low == max(0, position - 40)
        for back, _, weight in event.far:
            assert weight == pytest.approx(float(rows[position, position - back]), abs=1e-5)
        assert (kind == "encoder") == (event.raised == ())


def test_what_a_write_raises_is_what_the_lens_of_one_head_says(opened):
    from headatlas.methods.logit_lens import head_lens

    model = opened["window"]
    corpus = read_corpus(model.tokenizer, [TEXT], length=64)
    head = HeadId(1, 2)
    event = look_at(model, corpus, {head: [(0, 40)]})[head, (0, 40)]
    lens = head_lens(model, corpus.batch([0]), torch.tensor([40]), [head], k=5)
    np.testing.assert_allclose([value for _, value in event.raised], lens.raised[0, 0], rtol=1e-4)
    np.testing.assert_allclose([value for _, value in event.lowered], lens.lowered[0, 0], rtol=1e-4)
    assert [token for token, _ in event.raised] == model.tokenizer.pieces(lens.promoted[0, 0].tolist())


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("kind", ["gqa", "window"])
def test_removals_are_those_of_one_plain_edited_pass_for_each_event(kind, late, opened, monkeypatch):
    model = opened[kind]
    agreed = []
    monkeypatch.setattr(removal._Window, "agrees", lambda *given: agreed.append(real(*given)) or (late and agreed[-1]))
    corpus = read_corpus(model.tokenizer, [TEXT, OTHER], length=64)
    *_, counts = scan(model, corpus, Settings())
    means, head = mean_z(model, counts), HeadId(1, 1)
    places = [(0, 10), (1, 40), (0, 61), (1, 3)]
    found = remove_at(model, corpus, {"one": (head, places)}, means)["one"]
    for i, (window, position) in enumerate(places):
        batch = corpus.batch([window])
        edit = Mean([head], {("decoder", 1): means["decoder", 1]}, positions=[position])
        losses = []
        for edits in ([], [edit]):
            logits = model.forward(batch, edits=edits)[0].log_softmax(-1)
            losses.append([-float(logits[p, batch.tokens[0, p + 1]]) for p in range(batch.tokens.shape[1] - 1)])
        change = np.array(losses[1]) - np.array(losses[0])
        assert np.abs(change[:position]).max(initial=0) == 0
        assert found.there[i] == pytest.approx(change[position], abs=1e-5)
        behind = change[position + 1 : position + 1 + AFTER]
        assert found.after[i] == pytest.approx(behind.mean() if len(behind) else np.nan, abs=1e-5, nan_ok=True)
    assert np.abs(found.there).max() > 1e-4
    assert agreed == [True]  # runs of late tokens alone are those of whole ones, and are taken where they are


def test_pages_are_written_whole_and_said_again_in_json_and_tables(opened, tmp_path):
    model = opened["gqa"]
    said = []
    progress = type(
        "Told",
        (),
        {"plan": lambda *_: None, "advance": lambda *_, **__: None, "say": lambda _, line: said.append(line)},
    )()
    found = head_pages(model, [TEXT + OTHER] * 3, "1.1 0.3", options=OPTIONS, out=tmp_path / "pages", progress=progress)
    assert "removals:" in said[0]
    data = json.loads((tmp_path / "pages" / "pages.json").read_text())
    assert data["schema"] == "headatlas/pages/1"
    assert set(data["pages"]) == {"1.1", "0.3"}
    page = data["pages"]["1.1"]
    assert len(page["strongest"]) == 12
    assert len(page["deciles"]) == 10
    for group in page["behaviours"]:
        assert group["removal"]["events"]["n"] >= 1
    heads = pq.read_table(tmp_path / "pages" / "heads.parquet").to_pydict()
    assert heads["head"] == [str(head) for head in model.heads]
    np.testing.assert_allclose(heads["explained"], found.explained)
    assert sum(row["write"] for row in data["heads"]) > 0
    for head in ("1.1", "0.3"):
        html = (tmp_path / "pages" / "pages" / f"{head}.html").read_text()
        assert "http" not in html.replace("http-equiv", "").replace("https://www.w3.org", "")
        assert f"<h1>Head {head}</h1>" in html
    assert (tmp_path / "pages" / "index.html").read_text().count('href="pages/') == 2
    with pytest.raises(StoreError, match="exists already"):
        head_pages(model, [TEXT], "1.1", options=OPTIONS, out=tmp_path / "pages")


def test_text_in_pages_cannot_become_markup(opened):
    from headatlas.pages.html import page_html

    text = "a <script>alert(1)</script> <b>bold</b> & so on, again and again. " * 6
    found = head_pages(opened["gqa"], [text], "1.1", causal=False, options=OPTIONS)
    html = page_html(found, HeadId(1, 1))
    assert "<script" not in html
    assert "<b>" not in html


def test_an_interrupted_call_goes_on_from_its_scan(opened, tmp_path, monkeypatch):
    model, corpus = opened["gqa"], [TEXT + OTHER] * 2
    whole = head_pages(model, corpus, "1.1", causal=False, options=OPTIONS)
    real = run._looked_at
    monkeypatch.setattr(run, "_looked_at", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        head_pages(model, corpus, "1.1", causal=False, options=OPTIONS, out=tmp_path / "p")
    assert not (tmp_path / "p").exists()
    monkeypatch.setattr(run, "_looked_at", real)
    read = []
    monkeypatch.setattr(run, "scan", lambda *a, **k: (read.append(1) or one for one in scan(*a, **k)))
    again = head_pages(model, corpus, "1.1", causal=False, options=OPTIONS, out=tmp_path / "p")
    assert read == []  # the scan was over
    for name, values in whole.counts.arrays.items():
        assert torch.equal(values, again.counts.arrays[name]), name
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "behaviours.parquet", "heads.parquet", "index.html", "pages", "pages.json", "run.json",
    ]  # fmt: skip


def test_roles_of_a_run_are_looked_for_in_the_text(opened):
    model = opened["gqa"]
    found = head_pages(model, [TEXT + OTHER], "1.1", causal=False, options=OPTIONS)
    (role,) = roles.played(found, HeadId(1, 1), {"follows-same": "induction"})
    i = found.heads.index(HeadId(1, 1))
    met = found.counts.met[i, list(PAIRS).index("follows-same")]
    assert (role.met, role.does, role.rests) == tuple(map(int, met[:3]))
    assert role.met == role.does + role.rests + role.otherwise > 0
    assert role.mean == pytest.approx(met[3] / met[0])


def test_what_cannot_be_asked_is_refused(opened):
    with pytest.raises(UnsupportedModel, match="predicts no next token"):
        head_pages(opened["encoder"], [TEXT], "encoder:0.0")
    with pytest.raises(BadInput, match="causal=False"):
        head_pages(opened["gqa"], [TEXT], "0.0", edits=[Mean(["0.0"], {("decoder", 0): torch.zeros(4, 8)})])
    with pytest.raises(BadInput, match="every is 0"):
        replace(OPTIONS, every=0)
    with pytest.raises(BadInput, match="no attention layer 9"):
        head_pages(opened["gqa"], [TEXT], "9.9")
    found = head_pages(opened["encoder"], [TEXT], "encoder:0.0", causal=False, options=OPTIONS)
    assert found.page("encoder:0.0").strongest
