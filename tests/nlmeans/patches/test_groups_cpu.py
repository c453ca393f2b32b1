"""Groups found, read and added on CPU threads, against plain torch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from nlmeans.patches import groups_cpu
from nlmeans.patches.groups import Grid, distance_floors, index_patches, plain_matcher
from tests.nlmeans.patches.tensors import normal


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("floor", [0.0, 0.8, 1e9])
def test_torch_and_the_kernel_find_the_same_groups(floor: float, channels: int) -> None:
    grid = Grid.of((9, 9, 11), 3, 2, 20, (2, 2, 2))
    guide = grid.covered(normal(channels, 9, 9, 11)).float()
    levels = torch.full((math.prod(grid.references),), floor * 27 * channels)
    lines = range(grid.references[0] * grid.references[1])
    fast = groups_cpu.matcher(guide, *grid.where, levels, grid.count)(lines)
    plain = plain_matcher(guide, *grid.where, levels, grid.count)(lines)
    torch.testing.assert_close(fast.sort(1).values, plain.sort(1).values)


def test_lines_are_matched_one_by_one_as_all_together() -> None:
    grid = Grid.of((5, 9, 11), 3, 2, 12, (1, 2, 2))
    guide = grid.covered(normal(1, 5, 9, 11)).float()
    match = groups_cpu.matcher(guide, *grid.where, distance_floors(guide, grid, torch.tensor(0.3)), grid.count)
    lines = grid.references[0] * grid.references[1]
    one_by_one = torch.cat([match(range(line, line + 1)) for line in range(lines)])
    assert torch.equal(match(range(lines)), one_by_one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_patches_are_read_as_torch_indexes_them(
    threads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    volume = normal(4, 5, 6).to(dtype)
    corners = torch.tensor([[0, 7, 31], [31, 1, 13]])
    assert torch.equal(groups_cpu.gather_patches(volume, corners, (2, 3, 2)), index_patches(volume, corners, (2, 3, 2)))


@pytest.mark.parametrize("threads", [1, 3])
def test_patches_are_added_with_their_weight_and_window(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    size, shape = (2, 3, 2), (4, 5, 6)
    corners = torch.tensor([[0, 7, 31], [31, 1, 13]])
    patches, weight, window = normal(2, 3, 12), normal(2, 3, seed=1).exp(), normal(12, seed=2).exp()
    total, weights = torch.zeros(shape).double(), torch.zeros(shape).double()
    groups_cpu.scatter_patches(total, weights, corners, patches, weight, window, size)
    expected, at_corners = torch.zeros(shape).double(), torch.zeros(shape).double()
    for k, j in itertools.product(range(2), range(3)):
        z, y, x = (int(i) for i in torch.unravel_index(corners[k, j], shape))
        expected[z : z + 2, y : y + 3, x : x + 2] += (weight[k, j] * window * patches[k, j]).view(size)
        at_corners[z, y, x] += weight[k, j]
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(weights, at_corners)
