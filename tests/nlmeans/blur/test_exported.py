"""The blurs in graphs, against the layers themselves, whose kernels are tested elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nlmeans.blur import GaussianBlur, LocalGaussianBlur
from nlmeans.blur.exported import exported_blur, padded_axis
from tests.nlmeans.graphs import GRAPHS, check_graph, saved_and_loaded

SHAPES = {1: (11,), 2: (9, 10), 3: (5, 6, 7)}


def image(*shape: int) -> Any:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def randomised(layer: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        layer.log_cholesky.add_(0.2 * torch.randn(layer.log_cholesky.shape))
    layer.radius = layer.radius_now()
    return layer


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("kind", ["spherical", "diagonal", "full"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_every_covariance_and_padding_gives_the_same(dimensions: int, kind: str, padding: str) -> None:
    options: dict[str, Any] = {"covariance_type": kind, "padding": padding, "spacing": (1.0, 0.8, 1.5)[:dimensions]}
    shape = SHAPES[dimensions]
    for layer in (GaussianBlur(dimensions, **options), LocalGaussianBlur(shape, **options)):
        randomised(layer)
        noisy = image(2, 3, *shape)
        torch.testing.assert_close(layer.exported(noisy), layer(noisy), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.exported(noisy.half()), layer(noisy.half()))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", ["spherical", "full"])
def test_a_blur_that_is_the_same_everywhere_takes_other_shapes(graph: str, kind: str) -> None:
    layer = randomised(GaussianBlur(2, covariance_type=kind, kernel_size=3))
    others = [image(1, 2, 7, 13), image(5, 2, 21, 6)]
    check_graph(graph, layer, image(2, 2, 12, 10), others, (0, 2, 3))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("kind", "shape"), [("diagonal", SHAPES[2]), ("full", SHAPES[3])])
def test_a_blur_per_voxel_takes_other_batches(graph: str, kind: str, shape: tuple[int, ...]) -> None:
    layer = randomised(LocalGaussianBlur(shape, covariance_type=kind, kernel_size=3))
    check_graph(graph, layer, image(2, 2, *shape), [image(3, 2, *shape)], (0,))


def test_a_script_comes_back_from_a_file(tmp_path: Path) -> None:
    layer = randomised(LocalGaussianBlur((12, 10), covariance_type="full"))
    noisy = image(2, 3, 12, 10)
    torch.testing.assert_close(saved_and_loaded(layer, tmp_path)(noisy), layer(noisy), rtol=1e-4, atol=1e-5)


def test_the_kernel_has_the_size_that_loaded_parameters_ask_for() -> None:
    wide, layer = GaussianBlur(2, covariance=16.0), GaussianBlur(2)
    assert (wide.radius, layer.radius) == ([8, 8], [2, 2])
    layer.load_state_dict(wide.state_dict())
    assert layer.radius == [8, 8]
    torch.testing.assert_close(layer.exported(image(1, 24, 24)), wide(image(1, 24, 24)))


def test_graphs_are_differentiable() -> None:
    layer = randomised(LocalGaussianBlur((6, 7), covariance_type="full"))
    noisy = image(1, 6, 7).requires_grad_()
    expected = torch.autograd.grad(layer(noisy).square().sum(), [noisy, layer.log_cholesky])
    found = torch.autograd.grad(layer.exported(noisy).square().sum(), [noisy, layer.log_cholesky])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_a_constant_stays_exactly_constant() -> None:
    constant = torch.full((1, 9, 8), 7.3)
    assert torch.equal(exported_blur(constant, torch.tensor(0.4), "spherical", [3, 3], [1.0, 1.0], False), constant)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_short_axes_are_reflected_repeatedly(length: int) -> None:
    values = torch.arange(float(length)).view(1, 1, 1, length)
    expected = [min(k % (2 * (length - 1) or 1), -k % (2 * (length - 1) or 1)) for k in range(-4, length + 4)]
    assert padded_axis(values, 3, 4, zeros=False).flatten().tolist() == expected
    assert padded_axis(values, 3, 4, zeros=True).flatten()[:4].tolist() == [0.0] * 4
