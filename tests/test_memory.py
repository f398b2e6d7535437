"""However long the text, no attention pattern of a whole layer is formed."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import headatlas as ha
from headatlas.detector import LayerDetector, detectors
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import Batch, Metric
from tests import toys


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.numel, self.what = 0, ""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for out in result if isinstance(result, tuple | list) else (result,):
            # A broadcast view has many elements and little memory: count what is stored.
            if (
                isinstance(out, torch.Tensor)
                and out.untyped_storage().nbytes() // max(out.element_size(), 1) > self.numel
            ):
                self.numel, self.what = (
                    out.untyped_storage().nbytes() // max(out.element_size(), 1),
                    f"{operation} {tuple(out.shape)}",
                )
        return result


def long_batch(length: int, top: int) -> Batch:
    period = (length - 1) // 2
    first = torch.randint(5, top, (1, period), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.tensor([[1]]), first, first], 1)
    second = torch.arange(1 + period, 1 + 2 * period)[None]
    few = torch.arange(10, length, 97)[None]
    at = {
        "predict": second[:, :-1], "induction_key": second[:, :-1] - period + 1, "second": second, "duplicate_key": second - period,
        "delimiters": few, "rare": few[:, :3], "ordinary": few[:, 3:6], "middle": torch.tensor([length // 2]),
        "piece_query": few + 1, "piece_key": few, "start_query": few + 2, "start_key": few + 1,
    }  # fmt: skip
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), at, {"delimiter": torch.zeros_like(tokens)},
                 facts={"period": period})  # fmt: skip


def watched_largest(model: ha.Model, batch: Batch, watch=None) -> Largest:
    plain = ("repeated", "prose", "registers")  # their positions are those that the batch above has
    chosen = [d for d in detectors().values() if isinstance(d, LayerDetector) and d.causal and d.task.name in plain]
    one = Metric("one", lambda b: torch.zeros(1, dtype=torch.long), lambda logits, b: logits[:, 0, 0], True, "")
    with Largest() as largest:
        if watch is not None:
            model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
        else:
            scan(model, chosen, batch, metric=one)
    return largest


def check(model: ha.Model, length: int) -> None:
    heads = model.layers[0].n_heads
    whole = heads * length * length
    batch = long_batch(length, 150)
    found = watched_largest(model, batch)
    assert found.numel < whole / 4, found.what
    sums = []
    blocks = watched_largest(
        model, batch, watch=lambda layer: sums.append(layer.reduce(lambda rows, _: rows.sum(-1)).mean().item())
    )
    assert blocks.numel < whole / 4, blocks.what
    np.testing.assert_allclose(sums, 1.0, atol=1e-4)


def test_4096_tokens_never_make_a_full_pattern():
    check(attach(toys.llama(max_position_embeddings=4096)), 4096)


def test_models_without_the_fast_kernel_recompute_rows_in_blocks():
    model = attach(toys.gemma2(max_position_embeddings=1024))
    model.block_bytes = 1 << 20
    check(model, 1024)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_4096_tokens_on_the_built_in_model():
    check(ha.load("smollm2-135m"), 4096)
