"""The compiled joint filter of non-local Bayes on single groups, against `nl_bayes.filter_channels` in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans.core.lags import Whitening, dct_basis
from nlmeans.kernels.vector import LANES
from nlmeans.patches.bayes.cpu_kernel import FilterConstants, scratch_array
from nlmeans.patches.bayes.joint_cpu_kernel import JointLayout, filter_groups_jointly
from nlmeans.patches.bayes.nl_bayes import filter_channels
from nlmeans.patches.groups import LEAST_VARIANCE, index_patches
from tests.nlmeans.patches.bayes.test_cpu_kernel import CORNERS, CORRELATED, COUNT, SHAPE, SIZE, VOXELS
from tests.nlmeans.patches.tensors import normal

CHANNELS = 3
STRENGTHS = torch.tensor([4.0, 0.5, 0.0], dtype=torch.float64).view(-1, 1, 1, 1)


def volumes(contrast: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy channels that share a structure, and a guide."""
    clean = contrast * STRENGTHS * normal(*SHAPE, seed=3)
    noisy, guide = ((clean + k * normal(CHANNELS, *SHAPE, seed=s)).float() for k, s in ((1.0, 0), (0.3, 1)))
    return noisy, guide


@pytest.mark.parametrize("strength", [1.0, 6.0])
@pytest.mark.parametrize("noise", [None, CORRELATED], ids=["white", "correlated"])
@pytest.mark.parametrize(("dtype", "contrast", "error"), [(np.float32, 2, 1e-3), (np.float64, 300, 1e-6)])
def test_channels_of_groups_are_filtered_by_the_formula_and_added(
    dtype: type[np.floating[Any]], contrast: float, error: float, noise: Whitening | None, strength: float
) -> None:
    noisy, guide = volumes(contrast)
    sums, weights, steep = filtered(noisy, guide, strength, noise, dtype, math.inf)
    places, variance = torch.from_numpy(CORNERS), torch.full((2,), 1.25).double()
    patches = ([index_patches(channel.double(), places, SIZE) for channel in all_] for all_ in (noisy, guide))
    exact = filter_channels(*patches, variance, dct_basis(SIZE), strength, noise)
    for channel, result in enumerate(exact):
        expected, at_corners = np.zeros(SHAPE), np.zeros(math.prod(SHAPE))
        for group, k in itertools.product(range(2), range(COUNT)):
            z, y, x = np.unravel_index(CORNERS[group, k], SHAPE)
            weight = float(result.weight[group])
            expected[z : z + 2, y : y + 3, x : x + 3] += weight * result.patches[group, k].view(SIZE).numpy()
            at_corners[CORNERS[group, k]] += weight
        np.testing.assert_allclose(
            sums[channel].reshape(SHAPE), expected, rtol=error, atol=1e-3 * max(1, contrast / 1e3)
        )
        np.testing.assert_allclose(weights[channel], at_corners, rtol=error)
    assert not steep.any()


def test_a_group_is_too_steep_if_all_channels_together_are() -> None:
    noisy, guide = volumes(0)
    guide[:, :, 3:] = 1e4  # the patches of the first group end above this edge
    limit = 2e8  # ‖P‖² is 1.1e8 times the noise in each channel
    alone = filtered(noisy[:1], guide[:1], 1.0, None, np.float32, limit)[2]
    _, weights, together = filtered(noisy, guide, 1.0, None, np.float32, limit)
    assert alone.tolist() == [False, False]
    assert together.tolist() == [False, True]
    assert (weights[:, CORNERS[0]] > 0).all()


def filtered(
    noisy: torch.Tensor,
    guide: torch.Tensor,
    strength: float,
    noise: Whitening | None,
    dtype: type[np.floating[Any]],
    steepest: float,
) -> Any:
    """Sums, weights and marks of steep groups that the kernel makes of groups at `CORNERS`, for a variance of 1.25."""
    _, height, width = SHAPE
    patch_rows = np.array([(u * height + v) * width for u, v in itertools.product(range(SIZE[0]), range(SIZE[1]))])
    options = FilterConstants(
        strength,
        steepest,
        LEAST_VARIANCE,
        patch_rows,
        SIZE[2],
        float(np.finfo(dtype).eps),
        noise is not None,
        across=False,
    )
    layout = JointLayout.of(len(noisy), COUNT, VOXELS)
    scratch = scratch_array(layout, np.ones(VOXELS, np.float32), dct_basis(SIZE).numpy(), noise, dtype)
    values, first = (volume.flatten(1).numpy() for volume in (noisy, guide))
    sums, weights = np.zeros_like(values), np.zeros_like(values)
    steep = np.zeros(len(CORNERS), np.bool_)
    variance = np.full(1, 1.25, np.float32)
    filter_groups_jointly(values, first, CORNERS, variance, layout, options, scratch, sums, weights, steep)
    return sums, weights, steep


def test_the_matrices_of_a_group_lie_side_by_side() -> None:
    layout = JointLayout.of(CHANNELS, COUNT, VOXELS)
    places = {k: v for k, v in layout._asdict().items() if k not in NUMBERS}
    ends = [*sorted(places.values())[1:], layout.size]
    room = {
        name: end - start for (name, start), end in zip(sorted(places.items(), key=lambda p: p[1]), ends, strict=True)
    }
    assert layout.height % LANES == layout.width % LANES == 0
    assert room["system"] == layout.height * layout.pitch
    assert room["grams"] == CHANNELS * layout.height**2
    assert room["product"] == room["inverse"] == layout.height**2
    assert room["guide"] == room["guide_columns"] == room["noisy"] == room["spare"] == layout.height * layout.width
    assert room["basis"] == room["whiten"] == room["colour"] == layout.width**2
    assert room["taper"] == room["spectrum"] == layout.width


NUMBERS = ("channels", "patches", "voxels", "height", "width", "pitch", "half", "size")
