"""The finest detail, and the detail around each voxel, against their formulas voxel by voxel."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nlmeans.noise.search import finest
from nlmeans.noise.search.finest import box_sums, finest_detail, finest_detail_by_slabs, ring_means, robust_deviation


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(0))


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 8, 9), (2, 8, 9)])
def test_the_measures_follow_their_formulas(shape: tuple[int, int, int]) -> None:
    volume = noise(*shape)
    found = finest_detail(volume, volume > 0)
    axes = [axis for axis, n in enumerate(shape) if n >= 3]
    second, mean = np.array([1, -2, 1]) / math.sqrt(6), np.ones(3) / 3
    for place in itertools.product(*(range(n - 2 if n >= 3 else n) for n in shape)):
        box = tuple(slice(p, p + 3) if axis in axes else slice(p, p + 1) for axis, p in enumerate(place))
        values = volume[box].numpy()
        weights, means = np.ones(()), np.ones(())
        for axis in range(3):
            weights = np.multiply.outer(weights, second if axis in axes else np.ones(1))
            means = np.multiply.outer(means, mean if axis in axes else np.ones(1))
        assert float(found.finest[place]) == pytest.approx((weights * values).sum())
        assert float(found.brightness[place]) == pytest.approx((means * values).sum())
        assert found.inside is not None
        assert bool(found.inside[place]) == (values[tuple(n // 2 for n in values.shape)] > 0)


def test_pure_noise_has_detail_of_sigma_squared_at_both_scales() -> None:
    found = finest_detail(7 * noise(40, 40, 40), None)
    assert float(found.finest.std()) == pytest.approx(7, rel=0.02)
    assert float(found.detail.mean()) == pytest.approx(49, rel=0.02)


def test_a_plane_has_no_detail() -> None:
    z, y, x = torch.meshgrid(*[torch.arange(9, dtype=torch.float64)] * 3, indexing="ij")
    found = finest_detail(2 * z - y + 3 * x + 5, None)
    assert found.finest.abs().max() < 1e-12
    assert found.detail.abs().max() < 1e-12


def test_voxels_next_to_an_exact_zero_are_not_usable() -> None:
    volume = 1 + noise(7, 7, 7).abs()
    volume[3, 3, 3] = 0
    usable = finest_detail(volume, None).usable
    expected = torch.ones(5, 5, 5, dtype=torch.bool)
    expected[1:4, 1:4, 1:4] = False
    assert torch.equal(usable, expected)


def test_slabs_give_what_the_whole_volume_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = noise(9, 30, 11)
    whole = finest_detail(volume / 3, volume > 0)
    monkeypatch.setattr(finest, "DETAIL_SLAB_VOXELS", volume.numel() // 7)
    for values, expected in zip(finest_detail_by_slabs(volume, 3.0, volume > 0), whole, strict=True):
        torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_boxes_are_summed_with_reflected_borders(radius: int) -> None:
    values = noise(1, 6, 7)
    padded = np.pad(values.numpy(), [(0, 0), (radius, radius), (radius, radius)], mode="reflect")
    sums = box_sums(values, radius)
    for y, x in itertools.product(range(6), range(7)):
        assert float(sums[0, y, x]) == pytest.approx(padded[0, y : y + 2 * radius + 1, x : x + 2 * radius + 1].sum())


def test_a_ring_leaves_out_the_middle() -> None:
    values = torch.zeros(11, 11, 11, dtype=torch.float64)
    values[5, 5, 5] = 1.0
    means = ring_means(values, 3)
    assert means[5, 5, 5].abs() < 1e-12
    assert means[5, 5, 7].abs() < 1e-12
    assert float(means[5, 5, 8]) == pytest.approx(1 / (7**3 - 5**3))


def test_outliers_hardly_change_the_robust_deviation() -> None:
    values = 4 * noise(100_000)
    assert robust_deviation(values) == pytest.approx(4, rel=0.01)
    values[:3000] = 1000
    assert robust_deviation(values) == pytest.approx(4, rel=0.05)
    assert robust_deviation(torch.zeros(5)) == 0
