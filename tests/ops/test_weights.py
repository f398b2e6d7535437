"""Circuits as thin factors, against the same things computed from whole matrices."""

import numpy as np
import pytest
import torch

from headatlas.ops import weights
from headatlas.ops.weights import Factored


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def factored():
    return Factored(drawn(3, 20, 5), drawn(3, 5, 20, seed=1))


def test_norm_and_singular_vectors_are_those_of_the_product(factored):
    dense = factored.dense()
    torch.testing.assert_close(factored.norm(), dense.norm(dim=(1, 2)))
    u, sizes, v = factored.svd()
    torch.testing.assert_close((u * sizes[:, None]) @ v.mT, dense, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sizes, torch.linalg.svdvals(dense)[:, :5], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(u.mT @ u, torch.eye(5).expand(3, 5, 5), atol=1e-5, rtol=0)


def test_eigenvalues_are_those_of_the_product_that_are_not_zero(factored):
    dense = Factored(factored.left.double(), factored.right.double()).dense()
    whole = torch.from_numpy(np.linalg.eigvals(dense.numpy()))
    for ours, all_of_them in zip(factored.eigenvalues(), whole, strict=True):
        largest = all_of_them[all_of_them.abs().argsort(descending=True)]
        for value in ours:
            assert (largest[:5] - value).abs().min() < 1e-4
        assert largest[5:].abs().max() < 1e-9


def test_copying_is_one_for_a_copier_and_minus_one_for_a_suppressor():
    embeddings = torch.linalg.qr(drawn(64, 40))[0].T  # orthonormal rows, one a token
    factors = Factored(embeddings @ drawn(64, 8), (embeddings @ drawn(64, 8)).T)
    for sign in (1, -1):
        whole = Factored(factors.left, sign * factors.left.T)
        assert weights.copying(whole.eigenvalues()) == pytest.approx(sign, abs=1e-6)
    noise = torch.stack(
        [
            weights.copying(Factored(drawn(500, 64, seed=i), drawn(64, 500, seed=100 + i)).eigenvalues())
            for i in range(20)
        ]
    )
    assert noise.abs().max() < 0.3
    assert weights.copying(Factored(torch.zeros(9, 2), torch.zeros(2, 9)).eigenvalues()).isnan()


def test_composition_of_projectors_and_of_strangers():
    basis = torch.linalg.qr(drawn(32, 32))[0]
    inside, outside = basis[:, :4], basis[:, 4:8]
    same = Factored(inside[None], inside.T[None])
    other = Factored(outside[None], outside.T[None])
    assert weights.compositions(same, same).item() == pytest.approx(4**-0.5, abs=1e-6)
    assert weights.compositions(same, other).item() == pytest.approx(0, abs=1e-6)


def test_composition_is_that_of_whole_matrices_for_every_pair():
    writes, reads = (
        Factored(drawn(3, 20, 5), drawn(3, 5, 20, seed=1)),
        Factored(drawn(2, 20, 7, seed=2), drawn(2, 7, 20, seed=3)),
    )
    found = weights.compositions(writes, reads)
    assert found.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            a, b = writes.dense()[i], reads.dense()[j]
            assert found[i, j].item() == pytest.approx(((a @ b).norm() / a.norm() / b.norm()).item(), rel=1e-5)


def test_random_rotations_give_the_floor_whatever_the_ranks():
    generator = torch.Generator().manual_seed(0)
    rotation = weights.random_rotation(48, generator)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(48), atol=1e-5, rtol=0)
    writes, reads = (
        Factored(drawn(1, 48, 3), drawn(1, 3, 48, seed=1)),
        Factored(drawn(1, 48, 6, seed=2), drawn(1, 6, 48, seed=3)),
    )
    found = torch.stack(
        [weights.compositions(writes, reads, weights.random_rotation(48, generator)) for _ in range(300)]
    )
    assert found.square().mean().sqrt().item() == pytest.approx(48**-0.5, rel=0.03)


@pytest.mark.parametrize("bias", [None, drawn(50, seed=4)])
@pytest.mark.parametrize("size", [7, 50, 1000])
def test_ranks_are_places_in_the_sorted_logits(bias, size):
    vectors, matrix = drawn(2, 6, 16), drawn(16, 50, seed=1)
    targets = torch.randint(0, 50, (2, 6, 3), generator=torch.Generator().manual_seed(2))
    raised, lowered = weights.ranks(vectors, matrix, bias, targets, size)
    for found, sign in ((raised, 1), (lowered, -1)):
        logits = sign * vectors @ matrix + (0 if bias is None else bias)
        order = logits.argsort(-1, descending=True)
        for i in range(2):
            for j in range(6):
                for t in range(3):
                    assert order[i, j].tolist().index(int(targets[i, j, t])) == found[i, j, t]


@pytest.mark.parametrize("bias", [None, drawn(50, seed=4)])
@pytest.mark.parametrize("size", [7, 50, 1000])
def test_the_highest_are_those_with_a_low_rank(bias, size):
    vectors, matrix = drawn(40, 16), drawn(16, 50, seed=1)
    targets = torch.randint(0, 50, (40,), generator=torch.Generator().manual_seed(2))
    raised, _ = weights.ranks(vectors, matrix, bias, targets[:, None])
    for k in (1, 10, 50):
        found = weights.highest(vectors, matrix, bias, targets, k, size)
        assert torch.equal(found, raised[:, 0] < k)
        assert found.any()


def test_a_vector_of_zeros_puts_every_token_last():
    raised, lowered = weights.ranks(torch.zeros(1, 4), drawn(4, 30), None, torch.tensor([[7]]), 8)
    assert raised.item() == lowered.item() == 29


@pytest.mark.parametrize("size", [4, 11, 100])
def test_top_tokens_in_pieces_are_the_top_tokens(size):
    vectors, matrix, bias = drawn(5, 8), drawn(8, 40, seed=1), drawn(40, seed=2)
    values, columns = weights.top(vectors, matrix, 6, bias=bias, size=size)
    expected = (vectors @ matrix + bias).topk(6)
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(columns, expected.indices)
