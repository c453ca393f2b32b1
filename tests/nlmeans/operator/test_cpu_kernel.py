"""The functions that the kernel of the backend `cpu` is made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numba import njit

from nlmeans.kernels.vector import LANES, load, store
from nlmeans.operator import cpu_kernel
from nlmeans.operator.cpu import make_scratch, plan_tiles
from nlmeans.operator.cpu_kernel import Scratch, TileLayout
from nlmeans.operator.request import SMALLEST_EXPONENT, Request
from tests.nlmeans.operator.requests import random_request


def test_exponential_is_exact_to_three_millionths_and_bounded_below() -> None:
    @njit
    def apply(t: Any, result: Any, terms_array: Any) -> None:
        terms = cpu_kernel.broadcast_terms(terms_array)
        for i in range(0, len(t), LANES):
            store(result, i, cpu_kernel.exp2(load(t, i), terms))

    lowest = SMALLEST_EXPONENT / math.log(2)
    t = np.linspace(lowest, 0, 1 << 18).astype(np.float32)
    result = np.empty_like(t)
    apply(t, result, cpu_kernel.EXP2_TERMS)
    assert np.abs(result / np.exp2(t.astype(np.float64)) - 1).max() < 3.1e-6
    assert result[-1] == 1
    t[:] = np.linspace(-1e30, lowest - 1, len(t))
    apply(t, result, cpu_kernel.EXP2_TERMS)
    assert result == pytest.approx(math.exp(SMALLEST_EXPONENT), rel=1e-4)


def planned(of: Request) -> tuple[TileLayout, Scratch]:
    layout = plan_tiles(of, of.shape)
    return layout, make_scratch(of, layout, longest_run=1)


@pytest.mark.parametrize("origin", [(0, 0, 0), (1, 2, 3)])
def test_a_tile_is_copied_with_its_margins_as_far_as_the_volume_reaches(origin: tuple[int, int, int]) -> None:
    of = random_request((4, 6, 9), (1, 1, 1), (1, 2, 2), channels=2)
    layout, scratch = planned(of)
    scratch.image[:] = np.nan
    cpu_kernel.copy_tile(of.image.numpy(), layout, origin, scratch.image)
    z0, y0, x0 = origin
    depth, height, width = layout.copied
    expected = of.image.numpy()[:, z0 : z0 + depth, y0 : y0 + height, x0 : x0 + width]
    for c, z, y in np.ndindex(*expected.shape[:3]):
        start = c * layout.channel + z * layout.plane + y * layout.pitch + layout.lead
        np.testing.assert_array_equal(scratch.image[start : start + expected.shape[3]], expected[c, z, y])
    assert np.isfinite(scratch.image).sum() == expected.size


def test_slopes_and_starts_turn_sums_of_squares_into_logarithms_of_weights() -> None:
    of = random_request((2, 5, 7), (1, 1, 1), (1, 1, 1), maps=True, offset=0.2)
    layout, scratch = planned(of)
    falloff, offset = of.falloff.numpy(), of.offset.numpy()
    cpu_kernel.set_curve(falloff.ravel(), offset.ravel(), 27, layout, of.shape, (0, 0, 0), of.shape, scratch)
    for z, y, x in np.ndindex(*of.shape):
        o = z * layout.out_plane + y * layout.out_pitch + x
        for mean in (0.0, 0.1, 2.0):
            weight = np.exp2(float(scratch.starts[o]) + float(scratch.slopes[o]) * 27 * mean)
            assert weight == pytest.approx(math.exp(-falloff[z, y, x] * (mean - offset[z, y, x])), rel=1e-5)


@pytest.mark.parametrize("own_weight", [0.0, 0.5, 1.0])
def test_a_tile_is_written_as_means_and_a_voxel_without_weights_keeps_its_value(own_weight: float) -> None:
    of = random_request((2, 3, 5), (0, 0, 0), (1, 1, 1), channels=2)
    layout, scratch = planned(of)
    cpu_kernel.copy_tile(of.image.numpy(), layout, (0, 0, 0), scratch.image)
    random = np.random.default_rng(0)
    weights, sums = random.random((2, 3, 5), np.float32), random.random((2, 2, 3, 5), np.float32)
    weights[0, 0, 0] = sums[:, 0, 0, 0] = 0
    scratch.largest_weights[:] = 0
    for z, y, x in np.ndindex(*of.shape):
        o = z * layout.out_plane + y * layout.out_pitch + x
        scratch.weight_totals[o] = weights[z, y, x]
        for c in range(2):
            scratch.value_totals[c * layout.out_channel + o] = sums[c, z, y, x]
    out = np.full((2, 2, 3, 5), np.nan, np.float32)
    cpu_kernel.write_tile(layout, (0, 0, 0), of.shape, np.float32(own_weight), scratch, out)
    values = of.inside(of.image).numpy()
    with np.errstate(invalid="ignore"):
        expected = (sums + own_weight * values) / (weights + own_weight)
    expected[:, 0, 0, 0] = values[:, 0, 0, 0]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
