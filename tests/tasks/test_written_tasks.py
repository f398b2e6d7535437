"""Contract of all tasks with written prompts: lengths, positions, halves, determinism, any number, any tokenizer."""

import re

import pytest
import torch

from headatlas.errors import UnfitTask
from headatlas.model import Tokenizer
from headatlas.model.sources.cache import home_folder, read_manifest
from headatlas.model.sources.resolve import resolve
from headatlas.task import HELD_OUT, Batch, find_task, held_out, tasks
from tests import toys

# Of the real tokenizers those that are on this machine; SmolLM2's always is.
VOCABULARY = {
    name: size
    for name, size in {"smollm2-135m": 49152, "gemma3-270m": 262144}.items()
    if name == "smollm2-135m" or read_manifest(home_folder() / "models" / name) is not None
}
# Words among random tokens have no answer of one token: test_meanings reads them.
OTHERS = ("ioi", "repeated-words")
WRITTEN = [
    name for name in tasks() if name + HELD_OUT in tasks() and name not in OTHERS and not name.startswith("needle-")
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    found = {
        name: Tokenizer.load(resolve(name).folder, causal=True, context=8192, vocab_size=size)
        for name, size in VOCABULARY.items()
    }
    folder = tmp_path_factory.mktemp("bytes")
    toys.with_tokenizer(toys.llama(vocab_size=300), folder)
    return {**found, "bytes": Tokenizer.load(folder, causal=True, context=2048, vocab_size=300)}


def parts(batch: Batch) -> list[Batch]:
    assert batch.counterfactual is not None
    assert batch.control is not None
    return [batch, batch.counterfactual, batch.control]


def rows(batch: Batch) -> set[tuple[int, ...]]:
    return {tuple(row[real].tolist()) for row, real in zip(batch.tokens, batch.mask, strict=True)}


def built(name: str, tokenizer: Tokenizer, n: int, seed: int = 0) -> Batch | None:
    """The batch, or None where the task says in a sentence that it does not fit the tokenizer."""
    try:
        return find_task(name)(tokenizer, n, seed)
    except UnfitTask as error:
        reason = str(error)
    assert reason.endswith(".")
    assert len(reason) > 20
    return None


def test_there_are_the_tasks_of_the_literature():
    icl = [name for name in WRITTEN if name.startswith("icl-") and not name.endswith("-zero-shot")]
    assert len(icl) >= 15
    assert {f"{name}-zero-shot" for name in icl} <= set(WRITTEN)
    assert {"greater-than", "acronyms", "succession", "movie-review", "mood-story", "facts", "capitals"} <= set(WRITTEN)
    assert {
        "knowledge-conflict",
        "needle",
        "yes-no",
        "statements",
        "colored-objects",
        "mcqa-2",
        "mcqa-4-3-shot",
    } <= set(WRITTEN)
    assert {f"needle-{length}" for length in (1024, 2048, 4096, 8192)} <= set(tasks())


@pytest.mark.parametrize("name", WRITTEN)
def test_prompt_counterfactual_and_control_are_alike_but_for_what_decides(name, tokenizers):
    for kind in VOCABULARY:
        tokenizer = tokenizers[kind]
        batch = built(name, tokenizer, 8)
        assert batch is not None, f"{name} should fit {kind}"
        prompt, other, control = parts(batch)
        for part in (other, control):
            assert torch.equal(part.mask, prompt.mask)
            assert (part.tokens != prompt.tokens).any(1).all(), "nothing was changed"
        torch.testing.assert_close(control.answer, prompt.answer)
        torch.testing.assert_close(control.wrong, prompt.wrong)
        right, wrong = prompt.answer.reshape(8, -1), prompt.wrong.reshape(8, -1)
        for yes, no in zip(right.tolist(), wrong.tolist(), strict=True):
            assert not ({*yes} - {-1}) & ({*no} - {-1})
            assert yes[0] >= 0
            assert no[0] >= 0
        if tokenizer.bos is not None:
            assert (prompt.tokens[:, 0] == tokenizer.bos).all()
        for part in (prompt, other, control):
            for role, places in part.positions.items():
                present = places.reshape(8, -1) >= 0
                assert present.any() or part is not prompt or role == "letters", role
                inside = part.mask.gather(1, places.reshape(8, -1).clamp(min=0))
                assert inside[present].all(), f"{role} stands outside the text"
        if not name.startswith("needle"):
            assert torch.equal(prompt.positions["end"], prompt.mask.sum(1) - 1)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_halves_share_no_prompt_and_the_seed_decides(name, tokenizers):
    tokenizer = tokenizers["smollm2-135m"]
    task, twin = find_task(name), held_out(find_task(name))
    assert twin is not None
    assert twin.metric is task.metric
    assert twin.margin == task.margin
    n = 10
    first, second = task(tokenizer, n), twin(tokenizer, n)
    assert not rows(first) & rows(second)
    assert len(rows(first)) == n, "the same prompt twice"
    assert torch.equal(task(tokenizer, n).tokens, first.tokens)
    again = task(tokenizer, n, 1)
    assert rows(again) != rows(first)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_byte_level_tokenizer_fits_or_is_told_why_not(name, tokenizers):
    tokenizer = tokenizers["bytes"]
    batch = built(name, tokenizer, 3)
    if batch is not None:
        for part in parts(batch):
            assert torch.equal(part.mask, batch.mask)
            assert batch.tokens.shape[1] <= tokenizer.context


def test_some_tasks_do_fit_bytes(tokenizers):
    fit = [
        name
        for name in ("facts", "greater-than", "knowledge-conflict", "icl-uppercase")
        if built(name, tokenizers["bytes"], 2)
    ]
    assert len(fit) >= 3


@pytest.mark.parametrize("name", ["movie-review", "greater-than", "colored-objects", "capitals"])
def test_a_thousand_prompts_or_the_reason_why_not(name, tokenizers):
    tokenizer = tokenizers["smollm2-135m"]
    if name in (
        "capitals",
        "movie-review",
    ):  # few facts or words: the reason is given, and as many as there are do work
        with pytest.raises(UnfitTask, match=r"for this tokenizer and context, 1000 were asked for") as refused:
            find_task(name)(tokenizer, 1000)
        most = int(str(refused.value).split(" has ")[1].split()[0])
        assert most >= 100
        assert len(rows(find_task(name)(tokenizer, most))) == most
    else:
        assert len(rows(find_task(name)(tokenizer, 1000))) == 1000


def test_short_contexts_and_encoders_are_told_so(tokenizers):
    short = tokenizers["smollm2-135m"].within(3)
    encoder = Tokenizer.load(resolve("smollm2-135m").folder, causal=False, context=512, vocab_size=49152)
    for name in WRITTEN:
        with pytest.raises(UnfitTask, match="bidirectional attention"):
            find_task(name)(encoder, 2)
    for name in ("facts", "succession", "needle", "icl-antonym", "mcqa-2", "movie-review"):
        with pytest.raises(UnfitTask, match="this model has 3"):
            find_task(name)(short, 2)


def test_every_kind_of_prompt_comes_equally_often(tokenizers):
    tokenizer = tokenizers["smollm2-135m"]
    for name, label, kinds in [
        ("movie-review", "positive", 2), ("mood-story", "positive", 2), ("statements", "truth", 2), ("yes-no", "yes", 2),
        ("yes-no", "yes_first", 2), ("acronyms", "letter", 3), ("colored-objects", "asked", 3), ("mcqa-3", "right", 3),
        ("knowledge-conflict", "kind", 4), ("facts", "relation", 12),
    ]:  # fmt: skip
        counts = find_task(name)(tokenizer, 24).labels[label].bincount()
        assert counts.tolist() == [24 // kinds] * kinds, name


def test_mining_builds_only_the_tasks_of_its_detectors(monkeypatch):
    from headatlas import task as unit
    from headatlas.mining import plan

    asked = []
    whole = unit.Task.__call__
    monkeypatch.setattr(unit.Task, "__call__", lambda self, *rest: asked.append(self.name) or whole(self, *rest))
    plan(toys.model("gqa"), ["induction"], None, 4, 0)
    assert set(asked) == {"repeated"}


SHOWN = ("icl-antonym", "icl-antonym-zero-shot")  # of the in-context tasks, which are made alike


@pytest.mark.parametrize("name", [*(one for one in WRITTEN if not one.startswith("icl-") or one in SHOWN), "ioi"])
def test_the_second_family_is_the_same_task_in_other_prompts(name: str, tokenizers):
    words, first = tokenizers["smollm2-135m"], find_task(name)
    own, test, other = (one(words, 8, 1) for one in (first, held_out(first), first.second))
    later = re.compile(r"_\d+(_last)?$")  # a text may name things more often
    wanted = {place for place in own.positions if not later.search(place)}
    assert set(other.positions) >= wanted, "detectors find their way there"
    assert set(other.labels) == set(own.labels)
    assert len(rows(other)) == 8
    starts = {tuple(row[:4]) for batch in (own, test) for row in rows(batch)}
    # They differ in what stands behind that; of two rewordings one is of the first family.
    if name not in ("needle", "statements", "rewordings"):
        assert not starts & {row[:4] for row in rows(other)}
    assert other.control is not None
    assert other.counterfactual is not None
    assert torch.equal(other.tokens, first.second(words, 8, 1).tokens)
