"""The derivative of the operator, against finite differences and between backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans import nonlocal_means
from nlmeans.operator.gradient import weight_statistics
from nlmeans.operator.loop import off_row
from tests.nlmeans.operator.cases import DOUBLE, EXACT
from tests.nlmeans.operator.requests import in_float64, random_request


def gradients_agree(backend: str, inputs: dict[str, Tensor], **arguments: Any) -> bool:
    names = list(inputs)

    def operator(*tensors: Tensor) -> Tensor:
        return nonlocal_means(**dict(zip(names, tensors, strict=True)), **arguments, backend=backend)

    tensors = tuple(t.requires_grad_() for t in inputs.values())
    return bool(torch.autograd.gradcheck(operator, tensors, fast_mode=True))


def random(*shape: int, low: float = 0.0, seed: int = 0) -> Tensor:
    return low + torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


SHAPE = (2, 3, 4)


@pytest.mark.parametrize("backend", DOUBLE)
@pytest.mark.parametrize("parameters", [(), SHAPE], ids=["numbers", "maps"])
def test_derivatives_by_image_guide_h_and_sigma(backend: str, parameters: tuple[int, ...]) -> None:
    inputs = {
        "image": random(2, *SHAPE),
        "guide": random(2, *SHAPE, seed=1),
        "h": random(*parameters, low=0.4, seed=2),
        "sigma": random(*parameters, low=0.1, seed=3),
    }
    if backend == "windowed":
        del inputs["sigma"]
    assert gradients_agree(backend, inputs, channels=0, search_radius=1, guide_scale=(0.3, 1.2))


@pytest.mark.parametrize("center", ["max", "zero", 0.3])
@pytest.mark.parametrize("patch_radius", [0, 1])
@pytest.mark.parametrize("backend", ["full", "loop"])
def test_derivatives_by_a_self_guided_image(backend: str, patch_radius: int, center: str | float) -> None:
    inputs = {"image": random(*SHAPE), "h": random(low=0.2)}
    assert gradients_agree(
        backend, inputs, sigma=0.05, search_radius=(1, 1, 2), patch_radius=patch_radius, center=center
    )


def test_all_have_the_same_derivatives_in_float32(rng: np.random.Generator) -> None:
    numbers = torch.from_numpy(rng.random((5, 8, 9))).float()
    found = []
    for backend in EXACT:
        image = numbers.clone().requires_grad_()
        nonlocal_means(image, 0.4, sigma=0.1, center="max", search_radius=2, backend=backend).square().sum().backward()
        found.append(image.grad)
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0], rtol=1e-4, atol=1e-5)


def saved_for_backward(search_radius: int) -> list[int]:
    """Voxels in each tensor that `loop` keeps for its backward pass."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    image = random(6, 6, 6).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nonlocal_means(image, 0.3, patch_radius=1, search_radius=search_radius, backend="loop")
    return kept


def test_loop_keeps_nothing_per_neighbour_for_its_backward_pass() -> None:
    small, large = saved_for_backward(1), saved_for_backward(3)
    assert len(large) == len(small)
    assert max(large) <= (6 + 2 * (3 + 1)) ** 3  # the padded image, at most


def test_second_derivatives_of_loop_are_refused() -> None:
    image = random(3, 4).requires_grad_()
    loss = nonlocal_means(image, 0.3, backend="loop").square().sum()
    (gradient,) = torch.autograd.grad(loss, image, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (gradient.sum() + image.sum()).backward()


def test_an_image_with_a_graph_is_not_tracked_without_grad() -> None:
    image = random(4, 5).requires_grad_()
    with torch.no_grad():
        assert not nonlocal_means(image, 0.3, backend="loop").requires_grad


def test_the_sum_and_the_largest_of_the_weights_are_found_for_every_voxel() -> None:
    of = in_float64(random_request((2, 3, 4), (0, 0, 0), (1, 0, 2), offset=0.05, maps=True))
    total, largest, which = (off_row(values, of).numpy() for values in weight_statistics(of))
    guide = of.guide[0].numpy()
    offsets = [sign * np.array(offset) for offset, _ in of.neighbours for sign in (1, -1)]
    for voxel in np.ndindex(*of.shape):
        at = np.add(voxel, of.margin)
        squared = [(guide[tuple(at)] - guide[tuple(at + offset)]) ** 2 for offset in offsets]
        excess = np.maximum(np.array(squared) - float(of.offset[voxel]), 0)
        weights = np.exp(np.maximum(-float(of.falloff[voxel]) * excess, -64))
        assert total[voxel] == pytest.approx(weights.sum())
        assert largest[voxel] == pytest.approx(weights.max())
        assert weights[which[voxel]] == pytest.approx(weights.max())


@pytest.mark.parametrize("backend", ["cpu", "loop", "windowed", "full"])
def test_h_and_sigma_that_are_learned_as_numbers_give_no_warning(backend: str) -> None:
    h, sigma = torch.tensor(0.5, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    given = sigma if backend != "windowed" else 0.0
    nonlocal_means(torch.rand(8, 9), h, sigma=given, backend=backend, search_radius=2, patch_radius=0).sum().backward()
    assert h.grad is not None
    assert backend == "windowed" or sigma.grad is not None
