"""Heads of languages: importance against a mask that is really there, what counts as one language's head, what padding changes."""

import pytest
import torch

from headatlas.detectors import _languages as module
from headatlas.detectors.language_general import language_general
from headatlas.detectors.language_specific import language_specific
from headatlas.edits.collect import pieces
from headatlas.errors import UnfitTask
from headatlas.mining.scan import scan
from headatlas.model.runs.shared_pass import alone
from headatlas.task import Batch, next_token_loss
from tests import toys


def texts(n: int = 10, length: int = 20) -> Batch:
    tokens = torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(0))
    positions = {"predict": torch.arange(8, length - 1).expand(n, -1)}
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), positions, facts={"languages": list("abcde")})
    return Batch(batch.tokens, batch.mask, positions, facts=batch.facts, control=batch)


def by_masks(kind: str, batch: Batch) -> torch.Tensor:
    """[text, head] -dL/dm where it is above 0, m a mask that plain hooks put on each head's output, in an untouched copy of the model."""
    hf = toys.MAKERS[kind]()
    config = hf.config
    blocks = hf.transformer.h if hasattr(hf, "transformer") else hf.model.layers
    heads = config.num_attention_heads
    mask = torch.ones(len(blocks), heads, requires_grad=True)
    for i, block in enumerate(blocks):
        out = block.attn.c_proj if hasattr(block, "attn") else block.self_attn.o_proj

        def scaled(_, given, i=i):
            return (given[0] * mask[i].repeat_interleave(given[0].shape[-1] // heads),)

        out.register_forward_pre_hook(scaled)
    found = []
    for row, places in zip(batch.tokens, batch.positions["predict"], strict=True):
        logits = hf(row[None]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[places], row[places + 1])
        found.append(torch.autograd.grad(loss, mask)[0].flatten())
    return (-torch.stack(found)).clamp(min=0)


@pytest.mark.parametrize("kind", ["gqa", "gpt2", "window"])
def test_importance_is_the_slope_in_a_mask_that_is_there(kind: str):
    model, batch, told = toys.model(kind), texts(), {}
    one = module.LanguageHeads(lambda found: told.setdefault("found", found), 5)
    alone(model, pieces(batch), one)
    wanted = by_masks(kind, batch)
    torch.testing.assert_close(torch.cat(one._found), wanted, atol=2e-6, rtol=2e-3)
    assert wanted.max() > 1e-4
    for s in range(2):
        for language in range(5):
            row = wanted[5 * s + language].sort(descending=True)
            top = set(row.indices[: int(told["found"][s, language].sum())].tolist())
            assert top == set(told["found"][s, language].nonzero()[:, 0].tolist())
            assert len(top) == 1  # of eight heads


def hits(rows: list[list[str]]) -> torch.Tensor:
    """[set, language, head] of rows of sets, one word of 0 and 1 a language."""
    return torch.tensor([[[c == "1" for c in word] for word in row] for row in rows])


def test_a_head_of_one_language_exceeds_what_another_language_would_give():
    #            heads: of the first language always, of three, of four, of none
    one = ["1110", "0110", "0110", "0010", "0000"]
    found = module.specific(hits([one] * 4))
    torch.testing.assert_close(found.values, torch.tensor([[1.0, 1, 0, 0]]).expand(4, -1))
    torch.testing.assert_close(found.control, torch.tensor([[0.2, 0.6, 0, 0]]).expand(4, -1))


def test_the_language_is_chosen_in_the_other_half():
    """A head that is of another language in each half is of none."""
    even, odd = ["1", "0", "0", "0", "0"], ["0", "1", "0", "0", "0"]
    found = module.specific(hits([even, odd] * 3))
    assert found.values.sum() == 0
    assert found.control.min() == pytest.approx(0.2)


def test_a_general_head_is_of_four_languages_and_chance_is_that_of_independent_draws():
    found = module.general(hits([["110", "110", "110", "100", "000"], ["010", "110", "110", "110", "110"]]))
    torch.testing.assert_close(found.values, torch.tensor([[1.0, 0, 0], [1, 1, 0]]))
    shares = torch.tensor([[2 / 3, 2 / 3, 2 / 3, 1 / 3, 0], [1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3]])
    draws = torch.rand(200_000, 5, generator=torch.Generator().manual_seed(0))
    for e in range(2):
        simulated = ((draws < shares[e]).sum(1) >= 4).float().mean()
        assert found.control[e].tolist() == pytest.approx([float(simulated)] * 3, abs=0.005)


def test_sets_are_made_over_the_parts_of_a_batch_and_a_rest_is_left_out():
    model, batch = toys.model("gqa"), texts(13)
    found = scan(model, [language_specific, language_general], batch, metric=next_token_loss, size=4).scores
    for detector in (language_specific, language_general):
        own = detector.measure(model, batch.rows(slice(0, 10)))
        torch.testing.assert_close(torch.from_numpy(found[detector.name].values).float(), own.values)
        torch.testing.assert_close(torch.from_numpy(found[detector.name].control).float(), own.control)


def test_padding_changes_nothing():
    model, batch = toys.model("gqa"), texts()
    whole = language_specific.measure(model, batch)
    got = language_specific.measure(model, batch.padded(left=3))
    torch.testing.assert_close(got.values, whole.values)
    torch.testing.assert_close(got.control, whole.control)


def test_one_set_is_too_few():
    with pytest.raises(UnfitTask, match="two sets of 5 parallel texts or more, got 9 texts"):
        language_specific.measure(toys.model("gqa"), texts(9))
