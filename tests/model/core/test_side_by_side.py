"""Calls of one model that threads make at the same time under the same edits."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

import headatlas as ha
from headatlas.model import LayerView, Model, attach
from headatlas.model.families.tiny_models import family as tiny_family
from headatlas.model.runs.cached_forward import few_logits
from tests import toys
from tests.model.core.passes import EDITS, IDS, plain
from tests.model.core.test_overlap import in_a_loop


@contextmanager
def meeting(module: torch.nn.Module, n: int) -> Iterator[None]:
    """Calls of the module wait until `n` threads have come to it, each time, before the hooks that come later run."""
    gate = threading.Barrier(n)

    def meet(*_: object) -> None:
        gate.wait(20)

    handle = module.register_forward_pre_hook(meet)
    try:
        yield
    finally:
        handle.remove()
        gate.abort()  # a thread that waits for one which failed goes on to an error of its own


def at_once(calls: list[Callable[[], torch.Tensor]]) -> list[torch.Tensor]:
    """What the calls give, each in a thread that takes the edits in force along."""

    async def all_of_them() -> list[torch.Tensor]:
        return await asyncio.gather(*[asyncio.to_thread(call) for call in calls])

    found: list[torch.Tensor] = asyncio.run(all_of_them())
    return found


def edits_of(model: Model) -> list[ha.Zero]:
    return EDITS if "decoder" in model.stacks else [ha.Zero(["encoder:0.1", "encoder:1.2"])]


def wanted(model: Model) -> torch.Tensor:
    with model.edited(edits_of(model)) as hf:
        return plain(hf)


@pytest.mark.parametrize("family", ["llama", "gpt2", "albert"])
def test_threads_that_stand_in_the_same_layer_at_the_same_time(family: str):
    """In ALBERT one module is every layer, told apart by how often it was called."""
    model = attach(tiny_family(family).build()) if family == "albert" else attach(getattr(toys, family)())
    expected = wanted(model)
    assert not torch.equal(expected, plain(model.hf))

    def work() -> list[torch.Tensor]:
        with meeting(model.layers[0].projection, 3), model.edited(edits_of(model)) as hf:
            return at_once([lambda: plain(hf)] * 3)

    for found in in_a_loop(asyncio.to_thread(work)):
        assert torch.equal(found, expected)


class Places:
    """An edit that changes nothing and notes which token of the whole sequence each query is, by thread."""

    component, heads = "z", ()

    def __init__(self) -> None:
        self.layers, self.seen = frozenset([("decoder", 0)]), {}

    def __call__(self, layer: LayerView, x: torch.Tensor) -> torch.Tensor:
        self.seen.setdefault(threading.get_ident(), []).append(layer.query_positions[0].tolist())
        return x


def test_each_of_two_texts_written_at_once_knows_its_own_tokens():
    model, edit = attach(toys.llama()), Places()

    def write(hf: torch.nn.Module, length: int) -> torch.Tensor:
        return hf.generate(IDS[:1, :length], max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)

    alone = [write(model.hf, length) for length in (5, 9)]

    def work() -> list[torch.Tensor]:
        with meeting(model.layers[0].projection, 2), model.edited([edit]) as hf:
            return at_once([lambda: write(hf, 5), lambda: write(hf, 9)])

    found = in_a_loop(asyncio.to_thread(work))
    assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    assert sorted(edit.seen.values(), key=lambda places: len(places[0])) == [
        [list(range(length)), *[[length + i] for i in range(3)]] for length in (5, 9)
    ]


def test_a_call_given_up_halfway_does_not_shift_the_layers_of_the_next():
    model = attach(tiny_family("albert").build())
    expected = wanted(model)

    def fail(*_: object) -> None:
        raise KeyError("in the middle")

    with model.edited(edits_of(model)) as hf:
        handle = model.layers[0].projection.register_forward_hook(fail)
        with pytest.raises(KeyError, match="in the middle"):
            plain(hf)
        handle.remove()
        assert torch.equal(plain(hf), expected)


def test_edits_of_one_thread_do_not_reach_calls_beside_it():
    model = attach(toys.gpt2())
    bare, expected = plain(model.hf), wanted(model)
    gate = threading.Barrier(2)
    found: list[torch.Tensor] = []

    def beside() -> None:
        gate.wait(60)
        found.append(plain(model.hf))

    thread = threading.Thread(target=beside)
    thread.start()
    with meeting(model.layers[0].projection, 2), model.edited([ha.Zero("0.1 1.2")]) as hf:
        gate.wait(60)
        found.append(plain(hf))
        thread.join()  # in here, or the meeting may end before the other thread has woken up from it
    assert {True} == {torch.equal(one, bare) or torch.equal(one, expected) for one in found}
    assert torch.equal(found[0], bare) != torch.equal(found[1], bare)


def test_passes_of_a_module_wait_while_it_is_opened_again():
    hf = toys.llama()
    model = attach(hf)
    truth, me, calls = model.forward(IDS), threading.get_ident(), []

    def elsewhere(*_: object) -> None:
        if threading.get_ident() == me:
            calls.append(pool.submit(model.forward, IDS))
            with contextlib.suppress(TimeoutError):
                calls[-1].result(0.05)  # which is long enough for a pass, if it does not wait

    with ThreadPoolExecutor(1) as pool:
        handle = hf.model.layers[0].register_forward_pre_hook(elsewhere)
        attach(hf, anew=True)
        handle.remove()
        assert calls
        assert all(torch.equal(call.result(20), truth) for call in calls)


def test_two_models_of_one_module_take_turns():
    """What a pass puts in the place of the unembedding's `forward` is not another's, begun on the same transformers model."""
    hf = toys.llama()
    first, second = attach(hf), attach(hf)
    every, found = first.forward(IDS), []

    def other() -> None:
        with few_logits(second, torch.tensor([5])):
            found.append(second.forward(IDS))

    thread = threading.Thread(target=other)

    def watch(layer: LayerView) -> None:
        if layer.index == 1:
            thread.start()
            thread.join(0.3)  # which is long enough for its run, if it does not wait

    with few_logits(first, torch.tensor([3, 4])):
        found.append(first.forward(IDS, watch=watch))
    thread.join()
    mine, others = sorted(found, key=lambda logits: -logits.shape[-1])
    torch.testing.assert_close(mine, every[..., [3, 4]])
    torch.testing.assert_close(others, every[..., [5]])
