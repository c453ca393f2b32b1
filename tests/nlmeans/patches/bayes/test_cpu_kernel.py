"""The compiled filter of non-local Bayes on single groups, against `nl_bayes.filter_group` in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans.core.lags import Whitening, dct_basis, whitening
from nlmeans.kernels.vector import LANES
from nlmeans.patches.bayes.cpu_kernel import FilterConstants, GroupLayout, filter_groups, scratch_array
from nlmeans.patches.bayes.nl_bayes import STEEPEST, filter_group
from nlmeans.patches.groups import LEAST_VARIANCE, index_patches
from tests.nlmeans.patches.tensors import LAGS, normal

SHAPE, SIZE, COUNT = (4, 6, 9), (2, 3, 3), 7
VOXELS = 18

CORRELATED = whitening(LAGS, SIZE)


def filtered(
    noisy: torch.Tensor,
    guide: torch.Tensor,
    corners: Any,
    variances: Any,
    strength: float = 1.0,
    noise: Whitening | None = None,
    across: bool = False,
    dtype: type[np.floating[Any]] = np.float32,
) -> Any:
    """Sums, weights and marks of steep groups that the kernel makes of groups in a volume of `SHAPE`."""
    _, height, width = SHAPE
    patch_rows = [(u * height + v) * width for u, v in itertools.product(range(SIZE[0]), range(SIZE[1]))]
    steepest = STEEPEST if dtype == np.float32 else math.inf
    rounding = float(np.finfo(dtype).eps)
    options = FilterConstants(
        strength, steepest, LEAST_VARIANCE, np.array(patch_rows), SIZE[2], rounding, noise is not None, across
    )
    layout = GroupLayout.of(COUNT, VOXELS, across)
    scratch = scratch_array(layout, np.ones(VOXELS, np.float32), dct_basis(SIZE).numpy(), noise, dtype)
    sums, weights = np.zeros(noisy.numel(), np.float32), np.zeros(noisy.numel(), np.float32)
    steep = np.zeros(len(corners), np.bool_)
    values, first = (volume.float().contiguous().view(-1).numpy() for volume in (noisy, guide))
    filter_groups(values, first, corners, variances, layout, options, scratch, sums, weights, steep)
    return sums.reshape(SHAPE), weights, steep


CORNERS = np.array([[0, 1, 2, 6, 54, 55, 60], [9, 0, 63, 5, 114, 1, 58]])


@pytest.mark.parametrize("strength", [1.0, 1.5])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("noise", [None, CORRELATED], ids=["white", "correlated"])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("dtype", "contrast", "error"), [(np.float32, 5, 1e-3), (np.float64, 3e4, 1e-6)])
def test_groups_are_filtered_by_the_formula_and_added(
    dtype: type[np.floating[Any]],
    contrast: float,
    error: float,
    across: bool,
    noise: Whitening | None,
    varying: bool,
    strength: float,
) -> None:
    clean = contrast * normal(*SHAPE, seed=3)
    noisy, guide = ((clean + k * normal(*SHAPE, seed=s)).float().double() for k, s in ((1.0, 0), (0.3, 1)))
    level = normal(*SHAPE, seed=2).exp() if varying else torch.full((1,), 1.3).double()
    sums, weights, steep = filtered(
        noisy, guide, CORNERS, level.float().view(-1).numpy(), strength, noise, across, dtype
    )
    places = torch.from_numpy(CORNERS)
    variance = level.view(-1)[places].mean(1) if varying else level.expand(2)
    patches = (index_patches(volume, places, SIZE) for volume in (noisy, guide))
    exact = filter_group(*patches, variance, dct_basis(SIZE), strength, noise, across)
    expected, at_corners = np.zeros(SHAPE), np.zeros(sums.size)
    for group, k in itertools.product(range(2), range(COUNT)):
        z, y, x = np.unravel_index(CORNERS[group, k], SHAPE)
        weight = float(exact.weight[group])
        expected[z : z + 2, y : y + 3, x : x + 3] += weight * exact.patches[group, k].view(SIZE).numpy()
        at_corners[CORNERS[group, k]] += weight
    assert not steep.any()
    np.testing.assert_allclose(sums, expected, rtol=error, atol=1e-3)
    np.testing.assert_allclose(weights, at_corners, rtol=error)


def test_a_group_too_steep_for_float32_is_marked_and_left_out() -> None:
    guide = torch.zeros(SHAPE).double()
    guide[:, 3:] = 1e4  # the patches of the first group end above this edge
    _, weights, steep = filtered(guide, guide, CORNERS, np.ones(1, np.float32))
    assert steep.tolist() == [False, True]
    assert (weights[CORNERS[0]] > 0).all()
    assert not weights[[corner for corner in CORNERS[1] if corner not in CORNERS[0]]].any()


@pytest.mark.parametrize("across", [False, True])
def test_the_matrices_of_a_group_do_not_overlap(across: bool) -> None:
    layout = GroupLayout.of(COUNT, VOXELS, across)
    height, width = layout.height, layout.width
    assert height >= COUNT
    assert width >= VOXELS
    assert height % LANES == width % LANES == 0
    sizes = {
        "system": height * layout.pitch, "guide_columns": width * height, "noisy": height * width,
        "noisy_columns": width * height, "shares": height * height, "guide_mean": width, "noisy_mean": width,
        "guide_spectrum": width, "noisy_spectrum": width, "window": width, "finished": width, "taper": width,
        "basis": width * width, "basis_columns": width * width, "spectrum": width, "whiten": width * width,
        "colour": width * width, "spare": height * width,
    }  # fmt: skip
    taken = np.zeros(layout.size, int)
    for name, size in sizes.items():
        start = getattr(layout, name)
        taken[start : start + size] += 1
    assert (taken == 1).all()
    assert layout.guide + width == layout.half
    assert layout.half + across * height == layout.pitch


def test_the_scratch_array_holds_the_basis_twice_and_what_whitens() -> None:
    layout, basis = GroupLayout.of(COUNT, VOXELS), dct_basis(SIZE).numpy()
    scratch = scratch_array(layout, np.arange(VOXELS, dtype=np.float32), basis, CORRELATED)
    square = scratch[layout.basis : layout.basis + layout.width**2].reshape(layout.width, layout.width)
    columns = scratch[layout.basis_columns : layout.basis_columns + layout.width**2].reshape(square.shape)
    np.testing.assert_allclose(square[:VOXELS, :VOXELS], basis, atol=1e-7)
    np.testing.assert_array_equal(columns, square.T)
    np.testing.assert_array_equal(scratch[layout.taper : layout.taper + VOXELS], np.arange(VOXELS))
    whiten, colour = (
        scratch[start : start + square.size].reshape(square.shape)[:VOXELS, :VOXELS]
        for start in (layout.whiten, layout.colour)
    )
    np.testing.assert_allclose(whiten @ colour, np.eye(VOXELS), atol=1e-4)
    spectrum = scratch[layout.spectrum : layout.spectrum + VOXELS]
    np.testing.assert_allclose(spectrum, np.diag(basis @ CORRELATED.covariance.numpy() @ basis.T), rtol=1e-5)
