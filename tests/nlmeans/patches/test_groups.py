"""Groups of similar patches, found by brute force and averaged patch by patch in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nlmeans.patches.groups import (
    Average,
    Filtered,
    Grid,
    distance_floors,
    find_groups,
    index_patches,
    patch_means,
    read_patches,
)
from tests.nlmeans.patches.tensors import Array, normal


def nearest(guide: Array, grid: Grid, reference: tuple[int, ...], floor: float) -> set[int]:
    """Find the flat corners of the K most similar patches by brute force, on guides without ties."""
    distances = {}
    size = grid.size
    patch = guide[:, *(slice(c, c + p) for c, p in zip(reference, size, strict=True))]
    for shift in itertools.product(*(range(-r, r + 1) for r in grid.radius)):
        corner = tuple(c + s for c, s in zip(reference, shift, strict=True))
        if all(0 <= c <= n - p for c, n, p in zip(corner, grid.shape, size, strict=True)):
            other = guide[:, *(slice(c, c + p) for c, p in zip(corner, size, strict=True))]
            distances[int(np.ravel_multi_index(corner, grid.shape))] = max(((patch - other) ** 2).mean(), floor)
    return set(sorted(distances, key=lambda corner: distances[corner])[: grid.count])


@pytest.mark.parametrize(
    ("shape", "channels", "radius"),
    [((7, 9, 10), 1, (2, 2, 2)), ((6, 7, 8), 2, (1, 2, 2)), ((1, 12, 13), 1, (0, 3, 3)), ((3, 3, 11), 1, (2, 2, 2))],
)
def test_groups_hold_the_nearest_patches(
    shape: tuple[int, int, int], channels: int, radius: tuple[int, int, int]
) -> None:
    grid = Grid.of(shape, 3, 2, 12, radius)
    guide = grid.covered(normal(channels, *shape))
    corners = torch.cat([found for found, _ in find_groups(guide, grid, torch.tensor(0.0))])
    assert corners.shape == (math.prod(grid.references), grid.count)
    starts = itertools.product(*(range(0, n * s, s) for n, s in zip(grid.references, grid.step, strict=True)))
    for group, reference in zip(corners, starts, strict=True):
        assert set(group.tolist()) == nearest(guide.numpy(), grid, reference, 0.0)


def test_a_group_takes_equally_similar_patches_from_all_over_the_window() -> None:
    grid = Grid.of((20, 20, 20), 2, 2, 40, (4, 4, 4))
    (corners, _), *_ = find_groups(grid.covered(0.01 * normal(1, 20, 20, 20)), grid, torch.tensor(1.0))
    middle = corners[grid.references[1] * grid.references[2] * 5 + grid.references[2] * 5 + 5]
    where = np.stack(np.unravel_index(middle.numpy(), grid.shape)) - 10
    assert len(set(middle.tolist())) == 40
    assert np.abs(where.mean(1)).max() < 1
    assert where.std(1).min() > 2


def test_the_reference_patch_belongs_to_its_group() -> None:
    grid = Grid.of((9, 9, 9), 3, 2, 5, (2, 2, 2))
    corners = torch.cat([found for found, _ in find_groups(grid.covered(normal(1, 9, 9, 9)), grid, torch.tensor(0.5))])
    starts = itertools.product(*(range(0, n * s, s) for n, s in zip(grid.references, grid.step, strict=True)))
    for group, reference in zip(corners.tolist(), starts, strict=True):
        assert int(np.ravel_multi_index(reference, grid.shape)) in group


@pytest.mark.parametrize(("shape", "patch", "step"), [((7, 9, 10), 3, 2), ((1, 12, 13), 6, 4), ((2, 3, 30), 4, 3)])
def test_reference_patches_cover_the_extended_volume_exactly(
    shape: tuple[int, int, int], patch: int, step: int
) -> None:
    grid = Grid.of(shape, patch, step, 8, (2, 2, 2))
    volume = normal(2, *shape)
    extended = grid.covered(volume)
    assert extended.shape[1:] == grid.shape
    torch.testing.assert_close(extended[:, : shape[0], : shape[1], : shape[2]], volume)
    for length, size, stride, count in zip(grid.shape, grid.size, grid.step, grid.references, strict=True):
        assert (count - 1) * stride + size == length


def test_a_group_is_no_larger_than_the_window_in_a_corner() -> None:
    assert Grid.of((9, 9, 9), 3, 2, 100, (2, 2, 1)).count == 3 * 3 * 2
    assert Grid.of((3, 3, 3), 3, 2, 100, (2, 2, 2)).count == 1


def test_floors_are_taken_at_the_corners_of_the_reference_patches() -> None:
    grid = Grid.of((5, 5, 5), 3, 2, 4, (1, 1, 1))
    guide, floor = normal(2, 5, 5, 5), normal(5, 5, 5, seed=1).abs()
    voxels = 2 * 27  # two channels
    torch.testing.assert_close(distance_floors(guide, grid, floor).view(2, 2, 2), floor[:3:2, :3:2, :3:2] * voxels)
    torch.testing.assert_close(distance_floors(guide, grid, floor[0, 0, 0]), (floor[0, 0, 0] * voxels).expand(8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_patches_are_read_voxel_by_voxel(dtype: torch.dtype) -> None:
    volume = normal(4, 5, 6).to(dtype)
    corners = torch.tensor([[0, 7], [31, 1]])
    for read in (read_patches, index_patches):
        patches = read(volume, corners, (2, 3, 2))
        assert patches.shape == (2, 2, 12)
        for place in itertools.product(range(2), repeat=2):
            z, y, x = np.unravel_index(int(corners[place]), (4, 5, 6))
            assert torch.equal(patches[place].view(2, 3, 2), volume[z : z + 2, y : y + 3, x : x + 2])


def test_means_over_patches_lie_at_their_corners() -> None:
    grid = Grid.of((4, 5, 6), 3, 1, 2, (1, 1, 1))
    volume = normal(4, 5, 6)
    means = patch_means(volume, grid)
    assert means[1, 2, 3] == pytest.approx(float(volume[1:4, 2:5, 3:6].mean()))
    assert means[2:].abs().max() == means[:, 3:].abs().max() == means[..., 4:].abs().max() == 0


@pytest.mark.parametrize("exact", [False, True])
def test_the_average_is_that_of_the_patches_over_a_voxel(exact: bool) -> None:
    grid = Grid.of((4, 5, 6), 3, 1, 2, (1, 1, 1))
    average = Average.of(normal(*grid.shape), grid, exact)
    total, weights = torch.zeros(grid.shape, dtype=torch.float64), torch.zeros(grid.shape, dtype=torch.float64)
    taper = average.taper.view(grid.size)
    corners = torch.tensor(list(itertools.product(range(2), range(3), range(4)))) @ torch.tensor([30, 6, 1])
    corners = corners.view(-1, 2)
    filtered = Filtered(normal(len(corners), 2, 27, seed=1), normal(len(corners), seed=2).exp())
    average.add(corners, filtered)
    for k, j in itertools.product(range(len(corners)), range(2)):
        box = tuple(slice(c, c + 3) for c in np.unravel_index(int(corners[k, j]), grid.shape))
        total[box] += filtered.weight[k] * taper * filtered.patches[k, j].view(3, 3, 3)
        weights[box] += filtered.weight[k] * taper
    torch.testing.assert_close(average.result(), total / weights)


def test_integer_sums_of_large_values_are_nearly_as_exact_as_float32() -> None:
    grid = Grid.of((3, 3, 5), 3, 1, 1, (1, 1, 1))
    corners = torch.tensor([[0], [1], [2]])
    filtered = Filtered((3e4 + normal(3, 1, 27)).float(), torch.tensor([0.011, 0.013, 0.017]))
    integer, real = (Average.of(torch.full(grid.shape, 3e4), grid, exact) for exact in (True, False))
    for average in (integer, real):
        average.add(corners, filtered)
    torch.testing.assert_close(integer.result(), real.result(), rtol=1e-6, atol=0)


def test_integer_sums_do_not_depend_on_the_order() -> None:
    grid = Grid.of((4, 5, 6), 3, 1, 2, (1, 1, 1))
    corners = torch.tensor([[0, 1], [6, 7], [30, 36], [0, 36]])
    filtered = Filtered(normal(4, 2, 27).float(), normal(4, seed=1).exp().float())
    forth, back = (Average.of(normal(*grid.shape).float(), grid, exact=True) for _ in range(2))
    order = [2, 0, 3, 1]
    forth.add(corners, filtered)
    back.add(corners[order], Filtered(filtered.patches[order], filtered.weight[order]))
    assert torch.equal(forth.total, back.total)
    assert torch.equal(forth.weights, back.weights)
