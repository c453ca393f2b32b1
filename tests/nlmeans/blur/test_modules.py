"""The layers: their parameters, their results, and how they learn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nlmeans.blur import COVARIANCE_TYPES, GaussianBlur, LocalGaussianBlur, gaussian_blur, local_gaussian_blur


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("shape", [(9,), (6, 7), (4, 5, 6)])
def test_the_layers_do_what_the_functions_do(shape: tuple[int, ...], covariance_type: str) -> None:
    images = torch.rand(2, 3, *shape)
    one = GaussianBlur(len(shape), covariance=2.0, covariance_type=covariance_type)
    torch.testing.assert_close(one(images), gaussian_blur(images, 2.0, spatial_dims=len(shape)))
    local = LocalGaussianBlur(shape, covariance=2.0, covariance_type=covariance_type, padding="zeros")
    expected = local_gaussian_blur(images, torch.full((1, 1, *shape), 2.0), spatial_dims=len(shape), padding="zeros")
    torch.testing.assert_close(local(images), expected)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_parameters_are_learnable_saved_and_moved_with_the_layer(covariance_type: str) -> None:
    for layer in (
        GaussianBlur(2, covariance_type=covariance_type),
        LocalGaussianBlur((5, 6), covariance_type=covariance_type),
    ):
        assert [name for name, _ in layer.named_parameters()] == ["log_cholesky"]
        layer(torch.rand(5, 6)).square().sum().backward()
        assert layer.log_cholesky.grad is not None
        other = copy.deepcopy(layer)
        with torch.no_grad():
            other.log_cholesky += 1
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other.covariance, layer.covariance)
        assert layer.double()(torch.rand(5, 6).double()).dtype == torch.float64


def test_learning_may_start_anywhere() -> None:
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    torch.testing.assert_close(GaussianBlur(2, covariance=matrix, covariance_type="full").covariance, matrix)
    everywhere = torch.rand(5, 6) + 0.5
    torch.testing.assert_close(LocalGaussianBlur((5, 6), covariance=everywhere).covariance, everywhere)
    per_axis = LocalGaussianBlur((5, 6), covariance=(1.0, 2.0), covariance_type="full").covariance
    torch.testing.assert_close(per_axis[3, 4], torch.diag(torch.tensor([1.0, 2.0])))
    round_everywhere = LocalGaussianBlur((5, 6), covariance=everywhere, covariance_type="diagonal").covariance
    torch.testing.assert_close(round_everywhere[..., 1], everywhere)


def test_what_a_type_cannot_express_is_refused() -> None:
    with pytest.raises(ValueError, match="covariance_type='full'"):
        GaussianBlur(2, covariance=torch.eye(2), covariance_type="diagonal")
    with pytest.raises(ValueError, match="greater than 0"):
        GaussianBlur(2, covariance=-1.0)
    with pytest.raises(ValueError, match="covariance"):
        LocalGaussianBlur((5, 6), covariance=torch.ones(4, 6))
    with pytest.raises(ValueError, match="spatial_dims=4"):
        LocalGaussianBlur((2, 2, 2, 2))


def test_a_layer_trains_inside_a_network() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 24, 24)
    target = gaussian_blur(image, (4.0, 1.0), spatial_dims=2)
    layer = GaussianBlur(2, covariance=2.0, covariance_type="diagonal", kernel_size=(9, 5))
    network = nn.Sequential(layer, nn.Identity())
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    first = last = 0.0
    for step in range(100):
        optimiser.zero_grad()
        loss = (network(image) - target).square().mean()
        loss.backward()
        optimiser.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < first / 1000
    torch.testing.assert_close(layer.covariance.detach(), torch.tensor([4.0, 1.0]), rtol=0.1, atol=0)
