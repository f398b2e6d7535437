"""Progress that prints: one line that is rewritten on a terminal and in a notebook, lines now and then in a log."""

import io

import pytest

import headatlas as ha
from headatlas import progress
from headatlas import progress as unit
from headatlas.detector import detectors
from headatlas.methods.information_flow.routes import Node, Route
from headatlas.mining.scan import scan_task
from headatlas.model import attach
from headatlas.task import find_task
from tests import toys


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(unit, "time", found)
    return found


def test_a_log_gets_lines_with_done_total_and_time_left(clock):
    out = io.StringIO()
    told = ha.PrintedProgress(every=30, file=out)
    told.plan([("scan", 100)])
    for second in range(100):
        clock.now = float(second)
        told.advance("scan")
    told.say("over\x1b[2J")
    lines = out.getvalue().splitlines()
    assert lines == [
        "scan: 1 of 100",
        "scan: 31 of 100, about 67 s left",
        "scan: 61 of 100, about 38 s left",
        "scan: 91 of 100, about 8.9 s left",
        "scan: 100 of 100 done in 99 s",
        "over\\x1b[2J",
    ]


def test_the_first_part_of_a_step_counts_with_the_time_that_it_took(clock):
    out = io.StringIO()
    told = ha.PrintedProgress(every=30, file=out)
    told.plan([("verdict", 100)])
    clock.now = 50.0
    told.advance("verdict", 50)
    assert out.getvalue() == "verdict: 50 of 100, about 50 s left\n"


def test_time_spent_between_two_steps_is_not_the_next_one_s(clock):
    """A scan of a task by a detector of the whole model, which takes long and reports nothing, then one of layers alone."""
    told = ha.PrintedProgress(every=30, file=(out := io.StringIO()))
    told.plan([("first", 1), ("second", 100)])
    told.advance("first")
    clock.now = 600.0
    told.plan(())
    clock.now = 602.0
    told.advance("second", 2)
    assert out.getvalue().splitlines()[-1] == "second: 2 of 100, about 98 s left"


class Plans(progress.Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def plan(self, steps):
        self.told.append(f"planned {len(steps)}")

    def advance(self, step, amount=1, of=None):
        self.told.append(step)


def test_a_scan_says_when_it_has_ended_what_it_does_not_count():
    model = toys.model("gqa")
    task = find_task("repeated")
    group = [one for one in detectors().values() if one.task == task]
    scan_task(model, task, group, task(model.tokenizer, 4, 0), progress=(told := Plans()))
    assert told.told[-1] == "planned 0"


def test_a_part_that_needs_fewer_steps_than_it_might_counts_them_at_its_end():
    class Kept(progress.Silent):
        done = 0

        def advance(self, step, amount=1, of=None):
            assert (step, of) == ("verdict", 10)
            self.done += amount

    whole = Kept()
    told = progress.AtMost(whole, "verdict", 10)
    told.advance("runs", 4, of=7)
    assert whole.done == 4
    told.advance("runs", 20)
    told.ends()
    assert whole.done == 10


def test_a_terminal_gets_one_line_that_is_rewritten(clock):
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    told = ha.PrintedProgress(file=out)
    for second in range(3):
        clock.now = float(second)
        told.advance("ablate", of=3)
    told.advance("more", of=5)
    told.say("note")
    first, *rest = out.getvalue().split("\n")
    assert first.count("\r") == 3
    assert first.split("\r")[-1].startswith("ablate: 3 of 3 done")
    assert rest[-2] == "note"


def test_a_sweep_tells_how_far_it_has_come():
    out = io.StringIO()
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    ha.ablate(model, "It is", "0.*", edit="zero", progress=ha.PrintedProgress(file=out))
    assert "ablate: 4 of 4 done" in out.getvalue()


def test_what_a_session_prints_says_what_it_is():
    model = attach(toys.llama(vocab_size=49152), tokenizer=toys.smollm2_vocabulary())
    batch = ha.prompts(
        model,
        [{"prompt": "It is", "answer": " a", "wrong": " b"}, {"prompt": "It was all", "answer": " a", "wrong": " b"}],
    )
    assert repr(batch) == "Batch(2 prompts of 3 to 4 tokens; positions end; labels row, answer, wrong)"
    assert (
        repr(model)
        == "Model(LlamaForCausalLM: LlamaForCausalLM, decoder, 2 attention layers, 8 heads, torch.float32 on cpu)"
    )
    for found, begin in (
        (ha.ablate(model, batch, "0.*"), "HeadEffects(ablation in logit difference: 4 changes; largest"),
        (ha.attribute(model, batch), "Attribution(direct: 8 parts estimated, 8 measured; largest"),
        (ha.direct_effects(model, batch), "DirectEffects(8 heads on 2 prompts;"),
        (ha.head_lens(model, batch), "HeadLens(8 heads on 2 prompts; largest"),
        (ha.flow(model, "It is"), "Route("),
        (Route((1, 2), Node(2, 1), 0.04, ()), "Route(0 edges above 0.04 to token 1 of 2; heads none)"),
        (model.attention("It is", "0.1"), "AttentionMap(LlamaForCausalLM, 1 head, 3 queries x 3 keys)"),
    ):
        assert repr(found).startswith(begin), repr(found)
        assert len(repr(found)) < 1000
