"""The backend `loop`: pairs of voxels on one row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nlmeans import nonlocal_means
from nlmeans.core.axes import Axes
from nlmeans.operator.loop import compare_pairs, off_row, on_row, row_of, sum_patches_on_row
from tests.nlmeans.operator.requests import in_float64, random_request


def test_small_problems_with_large_blocks_and_large_ones_with_small_blocks_agree(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    image = rng.random((5, 6, 7))
    whole = nonlocal_means(image, 0.3, sigma=0.1, center="max", backend="loop")
    monkeypatch.setattr("nlmeans.operator.loop.PAIRS_AT_ONCE", 500)
    np.testing.assert_allclose(nonlocal_means(image, 0.3, sigma=0.1, center="max", backend="loop"), whole, rtol=1e-13)


RADII = [((1, 0, 2), (1, 2, 1)), ((0, 0, 0), (0, 1, 3)), ((1, 1, 1), (1, 1, 1))]


@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize(("patch_radius", "search_radius"), RADII)
def test_every_voxel_meets_every_neighbour_once(patch_radius: Axes, search_radius: Axes, block: int | None) -> None:
    of = random_request((2, 3, 4), patch_radius, search_radius)
    row = row_of(of)
    met = torch.zeros(2 * len(of.neighbours), row.length)
    for index, _, here, there, _ in compare_pairs(of, block):
        met[2 * index, here] += 1
        met[2 * index + 1, there] += 1
    assert (off_row(met, of) == 1).all()


@pytest.mark.parametrize(("patch_radius", "search_radius"), RADII)
def test_distances_are_mean_squared_differences_of_patches(patch_radius: Axes, search_radius: Axes) -> None:
    of = in_float64(random_request((2, 3, 4), patch_radius, search_radius, features=2))
    row, guide = row_of(of), of.guide.numpy()

    def patch(voxel: int) -> npt.NDArray[np.float64]:
        place = np.unravel_index(voxel, guide.shape[1:])
        return guide[:, *(slice(p - r, p + r + 1) for p, r in zip(place, patch_radius, strict=True))]

    result = off_row(torch.arange(row.length), of).flatten().tolist()
    for index, _, here, _, distance in compare_pairs(of):
        step = row.step(of.neighbours[index].offset)
        for voxel in set(result) & set(range(here.start, here.stop)):
            expected = np.square(patch(voxel) - patch(voxel + step)).mean((1, 2, 3)).sum()
            assert float(distance[voxel - here.start]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("radius", [(0, 0, 0), (1, 0, 2), (0, 2, 1), (2, 1, 1)])
def test_sums_on_the_row_are_sums_over_boxes(radius: Axes, rng: np.random.Generator) -> None:
    volume = rng.random((6, 7, 8))
    strides = (56, 8, 1)
    values = torch.from_numpy(volume.flatten())
    sums = sum_patches_on_row(values.clone(), torch.empty_like(values), radius, strides)
    reach = sum(r * s for r, s in zip(radius, strides, strict=True))
    assert len(sums) == len(values) - 2 * reach
    for voxel in np.ndindex(*(n - 2 * r for n, r in zip(volume.shape, radius, strict=True))):
        box = volume[*(slice(v, v + 2 * r + 1) for v, r in zip(voxel, radius, strict=True))]
        at = sum((v + r) * s for v, r, s in zip(voxel, radius, strides, strict=True))
        assert float(sums[at - reach]) == pytest.approx(box.sum())


def test_maps_come_back_from_the_row_and_have_zeros_around_them(rng: np.random.Generator) -> None:
    of = random_request((2, 3, 4), (1, 0, 1), (1, 1, 2))
    values = torch.from_numpy(rng.random((2, 3, 4))) + 1
    on = on_row(values, of)
    assert torch.equal(off_row(on, of), values)
    assert float(on.sum()) == pytest.approx(float(values.sum()))
    number = torch.tensor(3.0)
    assert on_row(number, of) is number


def test_progress_rises_to_one_whatever_the_block() -> None:
    for block in (None, 5):
        seen: list[float] = []
        of = random_request((2, 3, 4), (0, 0, 0), (1, 1, 1), progress=seen.append)
        list(compare_pairs(of, block))
        assert seen == sorted(seen)
        assert seen[-1] == 1
