"""Attention compared with the softmax of all products, written out in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nlmeans.operator.attention import HEAD, attention, head_size


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def average(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = torch.einsum("bif,bjf->bij", query, key).exp()
    return torch.einsum("bij,bjc->bic", weights / weights.sum(2, keepdim=True), value)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("features", "channels"), [(1, 1), (3, 5), (9, 2), (8, 16)])
def test_it_is_the_average_weighted_by_the_softmax(
    features: int, channels: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlmeans.operator.attention.threads", lambda: threads)
    query, key = random(2, 11, features, seed=1), random(2, 7, features, seed=2)
    value = random(2, 7, channels, seed=3)
    result = attention(query, key, value)
    assert result.shape == (2, 11, channels)
    torch.testing.assert_close(result, average(query, key, value), rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_the_formula() -> None:
    tensors = [random(2, 5, 3, seed=1), random(2, 4, 3, seed=2), random(2, 4, 2, seed=3)]
    found, expected = (
        torch.autograd.grad(function(*inputs).square().sum(), inputs)
        for function in (attention, average)
        for inputs in [[tensor.clone().requires_grad_() for tensor in tensors]]
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("features", "channels"), [(1, 1), (8, 3), (9, 1), (3, 17)])
def test_vectors_are_padded_to_the_next_multiple(features: int, channels: int) -> None:
    size = head_size(features, channels)
    assert size % HEAD == 0
    assert max(features, channels) <= size < max(features, channels) + HEAD
