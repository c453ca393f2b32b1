"""The GPU search for similar patches against plain torch; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

import pytest
import torch

from nlmeans.core.axes import Axes
from nlmeans.kernels.dispatch import kernel_for
from nlmeans.patches import groups
from nlmeans.patches.groups import Grid

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

from nlmeans.patches import groups_gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("shape", "channels", "radius", "floor"),
    [
        ((5, 5, 7), 1, (2, 2, 2), 0.0),
        ((3, 5, 5), 2, (0, 2, 1), 0.8),
        ((1, 7, 8), 1, (0, 3, 3), 0.8),
        ((3, 3, 8), 1, (2, 2, 2), 1e9),
    ],
)
def test_the_kernel_finds_what_torch_finds(shape: Axes, channels: int, radius: Axes, floor: float) -> None:
    grid = Grid.of(shape, 3, 2, 12, radius)
    guide = grid.covered(torch.randn(channels, *shape, generator=torch.manual_seed(0))).to(DEVICE)
    levels = groups.distance_floors(guide, grid, torch.tensor(floor, device=DEVICE))
    depth, rows, _ = grid.references
    last_plane = range((depth - 1) * rows, depth * rows)
    found, expected = (
        matcher(guide, *grid.where, levels, grid.count)(last_plane)
        for matcher in (groups_gpu.matcher, groups.plain_matcher)
    )
    assert torch.equal(found.sort(1).values, expected.sort(1).values)


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
def test_it_is_chosen_for_float32_on_a_gpu_and_gives_the_groups_of_the_cpu() -> None:
    grid = Grid.of((9, 10, 12), 3, 2, 12, (2, 2, 2))
    guide = grid.covered(torch.randn(1, 9, 10, 12, generator=torch.manual_seed(0)))
    assert kernel_for([guide.to(DEVICE)], plain=groups.plain_matcher, gpu=groups_gpu.matcher) is groups_gpu.matcher
    here, there = (
        torch.cat([corners.cpu() for corners, _ in groups.find_groups(volume, grid, torch.tensor(0.5))])
        for volume in (guide, guide.to(DEVICE))
    )
    assert torch.equal(here.sort(1).values, there.sort(1).values)
