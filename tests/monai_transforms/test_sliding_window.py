"""MONAI's sliding windows over the filter give the result of the whole volume, if they overlap enough."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from torch import Tensor

from nlmeans.nn import NonLocalMeansFilter

ROI = 16
PATCH_RADIUS, SEARCH_RADIUS = 1, 2
HALO = PATCH_RADIUS + SEARCH_RADIUS
FILTER = NonLocalMeansFilter(spatial_dims=3, h=10.0, sigma=5.0, patch_radius=PATCH_RADIUS, search_radius=SEARCH_RADIUS)


@pytest.fixture(scope="module")
def volume() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    signal = 100 + 50 * (torch.arange(37) > 17).float()[:, None, None]
    return (signal + 5 * torch.randn(37, 30, 23, generator=generator))[None, None]


@pytest.fixture(scope="module")
def whole(volume: Tensor) -> Tensor:
    result: Tensor = FILTER(volume)
    return result


def inside(halo: int) -> Tensor:
    """Weights of the voxels of a window: almost 0 within the halo of its faces, else 1."""
    line = torch.full((ROI,), 1e-6)
    line[halo:-halo] = 1
    return line[:, None, None] * line[:, None] * line


def in_windows(volume: Tensor, overlap: float, halo: int) -> Tensor:
    padded = F.pad(volume, (halo,) * 6, mode="reflect")
    result = sliding_window_inference(padded, (ROI,) * 3, 4, FILTER, overlap=overlap, roi_weight_map=inside(halo))
    assert isinstance(result, Tensor)
    return result[..., halo:-halo, halo:-halo, halo:-halo]


def test_windows_that_overlap_by_twice_the_halo_and_count_inside_give_the_whole_result(
    volume: Tensor, whole: Tensor
) -> None:
    with torch.no_grad():
        result = in_windows(volume, 2 * HALO / ROI, HALO)
    torch.testing.assert_close(result, whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("overlap", "halo"), [(HALO / ROI, HALO), (2 * HALO / ROI, HALO - 1)])
def test_less_overlap_or_a_smaller_halo_leaves_seams(volume: Tensor, whole: Tensor, overlap: float, halo: int) -> None:
    with torch.no_grad():
        result = in_windows(volume, overlap, halo)
    assert float((result - whole).abs().max()) > 0.01


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
def test_the_blending_of_monai_leaves_seams_even_with_enough_overlap(volume: Tensor, whole: Tensor, mode: str) -> None:
    infer = SlidingWindowInferer((ROI,) * 3, 4, overlap=2 * HALO / ROI, mode=mode)
    with torch.no_grad():
        assert float((infer(volume, FILTER) - whole).abs().max()) > 0.01


def test_gradients_pass_through_the_windows(volume: Tensor) -> None:
    noisy = volume.clone().requires_grad_()
    in_windows(noisy, 2 * HALO / ROI, HALO).sum().backward()
    assert noisy.grad is not None
    assert bool((noisy.grad != 0).any())
