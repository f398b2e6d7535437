"""Passes that overlap: forks, tasks, threads, generators left half-run."""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.model import LayerView, Model, attach
from headatlas.model.runs.cached_forward import few_logits
from tests import toys
from tests.model.core.passes import EDITS, IDS, plain, right

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def child_says(work: Callable[[], bool], seconds: int = 60) -> bool:
    """Fork, do `work` in the child alone, and give its answer; a child that hangs is stopped and counts as wrong."""
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(seconds)
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Held:
    """A thread that stands still in the middle of its work until it may go on."""

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        self._there, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=work, args=(self._stand,))

    def _stand(self) -> None:
        self._there.set()
        self._go.wait(60)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._there.wait(60)

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join()


def in_a_pass(model: Model, stand: Callable[[], None]) -> None:
    model.forward(IDS, edits=EDITS, watch=lambda layer: stand() if layer.index == 1 else None)


def in_a_late_pass(model: Model, stand: Callable[[], None]) -> None:
    start = torch.zeros(*IDS.shape, model.d_model)
    model.forward(IDS, start_at=(1, start), watch=lambda layer: stand())


def with_few_logits(model: Model, stand: Callable[[], None]) -> None:
    with few_logits(model, torch.tensor([3, 4])):
        model.forward(IDS, watch=lambda layer: stand() if layer.index == 1 else None)


def under_edits(model: Model, stand: Callable[[], None]) -> None:
    with model.edited(EDITS) as hf:
        plain(hf)
        stand()


WORK = (in_a_pass, in_a_late_pass, with_few_logits, under_edits)


@forks
@pytest.mark.parametrize("work", WORK)
def test_a_child_that_another_thread_forks_during_a_pass(model: Model, truth, work):
    with Held(lambda stand: work(model, stand)):
        assert child_says(lambda: right(model, truth))
    assert right(model, truth)


@forks
@pytest.mark.parametrize("work", WORK)
def test_a_child_that_is_forked_inside_a_pass(model: Model, truth, work):
    told = []

    def fork() -> None:
        if not told:
            told.append(child_says(lambda: torch.equal(plain(model.hf), truth[0]) or work is under_edits))
            if work is not under_edits:  # a pass inside the edits of the same context is refused in words
                told.append(child_says(lambda: right(model, truth)))

    work(model, fork)
    assert told
    assert all(told)
    assert right(model, truth)


@forks
def test_a_pass_that_is_forked_in_its_middle_is_right_in_both(model: Model, truth):
    children = []

    def watch(layer: LayerView) -> None:
        if layer.index == 0:
            children.append(os.fork())

    found = model.forward(IDS, edits=EDITS, watch=watch)
    if children == [0]:
        os._exit(0 if torch.equal(found, truth[1]) and right(model, truth) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert torch.equal(found, truth[1])


@forks
def test_a_child_has_its_owners_training_mode():
    hf = toys.gpt2(resid_pdrop=0.5)
    hf.train()
    model = attach(hf)
    with Held(lambda stand: in_a_pass(model, stand)):
        assert not hf.training
        assert child_says(lambda: hf.training and hf.transformer.h[0].training)
        assert not hf.training
    assert hf.training


def test_training_mode_comes_back_with_the_last_of_passes_that_overlap():
    hf = toys.gpt2(resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    model = attach(hf)
    expected = model.forward(IDS)
    hf.train()
    with Held(lambda stand: under_edits(model, stand)):
        assert torch.equal(model.forward(IDS), expected)
        assert not hf.training
    assert hf.training
    with model.edited([ha.Zero("0.1")]):
        with Held(lambda stand: under_edits(model, stand)):
            pass
        assert not hf.training
    assert hf.training


# ---- asyncio ----------------------------------------------------------------------------------------------------------
def in_a_loop(work: Coroutine[None, None, Any]) -> Any:
    """What a coroutine gives in a loop of its own: in another thread, since a browser that other tests keep open has
    a loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def test_tasks_take_turns_each_under_its_own_edits(model: Model, truth):
    others = [ha.Zero("0.0")]
    expected = model.forward(IDS, edits=others)

    async def under(edits: list[ha.Zero], wanted: torch.Tensor) -> list[bool]:
        found = []
        with model.edited(edits) as hf:
            for _ in range(4):
                await asyncio.sleep(0)
                found.append(torch.equal(plain(hf), wanted))
        return found

    async def without() -> list[bool]:
        found = []
        for _ in range(4):
            await asyncio.sleep(0)
            found += [torch.equal(plain(model.hf), truth[0]), torch.equal(model.forward(IDS, edits=EDITS), truth[1])]
        return found

    async def all_of_them() -> list[list[bool]]:
        return await asyncio.gather(under(EDITS, truth[1]), under(others, expected), without(), under(EDITS, truth[1]))

    found = in_a_loop(all_of_them())
    assert [len(one) for one in found] == [4, 4, 8, 4]
    assert all(all(one) for one in found)
    assert right(model, truth)


def test_a_coroutine_may_wait_for_a_pass_in_another_thread_while_its_own_edits_are_in_force(model: Model, truth):
    async def work() -> list[torch.Tensor]:
        loop = asyncio.get_running_loop()
        with model.edited(EDITS) as hf:
            plain(hf)
            passes = [loop.run_in_executor(None, lambda: model.forward(IDS, edits=EDITS)) for _ in range(3)]
            calls = [loop.run_in_executor(None, plain, hf) for _ in range(3)]
            taken_along = [asyncio.to_thread(plain, hf) for _ in range(3)]
            return await asyncio.wait_for(asyncio.gather(*passes, *calls, *taken_along), 60)

    found = in_a_loop(work())
    for one, wanted in zip(found, [truth[1]] * 3 + [truth[0]] * 3 + [truth[1]] * 3, strict=True):
        assert torch.equal(one, wanted)
    assert right(model, truth)


def test_edits_that_only_other_threads_could_have_seen_are_refused(model: Model):
    async def work() -> None:
        with model.edited(EDITS) as hf:
            await asyncio.get_running_loop().run_in_executor(None, plain, hf)

    with pytest.raises(BadInput, match=r"called 1 times while edits were in force, but never in .* asyncio\.to_thread"):
        in_a_loop(work())
    with model.edited(EDITS):
        pass  # not called at all


def test_a_task_begun_under_edits_outlives_them_plain(model: Model, truth):
    async def work() -> list[torch.Tensor]:
        found, over = [], asyncio.Event()

        async def calls() -> None:
            found.append(plain(model.hf))
            await over.wait()
            found.append(plain(model.hf))

        with model.edited(EDITS):
            task = asyncio.create_task(calls())
            await asyncio.sleep(0)
        over.set()
        await task
        return found

    first, second = in_a_loop(work())
    assert torch.equal(first, truth[1])
    assert torch.equal(second, truth[0])


# ---- generators ---------------------------------------------------------------------------------------------------------
def calls_under_edits(model: Model) -> Iterator[torch.Tensor]:
    with model.edited(EDITS) as hf:
        while True:
            yield plain(hf)


def in_another_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("end", ["closed", "forgotten", "closed in another thread"])
def test_a_generator_left_half_run_leaves_nothing(model: Model, truth, end: str):
    half = calls_under_edits(model)
    assert torch.equal(next(half), truth[1])
    found: list[bool] = []
    in_another_thread(lambda: found.append(right(model, truth)))  # while it stands still: nothing is held
    assert found == [True]
    if end == "closed":
        half.close()
    elif end == "closed in another thread":
        in_another_thread(half.close)
    else:
        del half
        gc.collect()
    assert right(model, truth)
    assert not model.hf._forward_pre_hooks


def test_an_async_generator_that_the_loop_closes_leaves_nothing(model: Model, truth):
    async def calls() -> AsyncIterator[torch.Tensor]:
        with model.edited(EDITS) as hf:
            while True:
                yield plain(hf)

    async def work() -> torch.Tensor:
        async for found in calls():
            return found
        raise AssertionError

    assert torch.equal(in_a_loop(work()), truth[1])
    gc.collect()
    assert right(model, truth)


def test_two_generators_are_refused_in_words_and_the_first_goes_on(model: Model, truth):
    half = calls_under_edits(model)
    next(half)
    with pytest.raises(BadInput, match="inside another one"):
        next(calls_under_edits(model))
    assert torch.equal(next(half), truth[1])
    half.close()
    assert right(model, truth)


def test_a_watcher_may_make_a_pass_of_its_own(model: Model, truth):
    found = []
    assert torch.equal(model.forward(IDS, edits=EDITS, watch=lambda _: found.append(right(model, truth))), truth[1])
    with few_logits(model, torch.tensor([3, 4])):
        few = model.forward(IDS, watch=lambda _: found.append(right(model, truth)))
    assert torch.allclose(few, truth[0][..., 3:5], atol=1e-6)
    assert found == [True] * 4
