"""The kernel that finds similar patches on a GPU, beside plain torch, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from nlmeans.core.axes import Axes
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
    levels = groups.floors(guide, grid, torch.tensor(floor, device=DEVICE))
    depth, rows, columns = grid.references
    lines = range((depth - 1) * rows, depth * rows)
    arguments = (guide, lines, grid.references, grid.size, grid.step, grid.radius, levels[-rows * columns :])
    assert groups_gpu.fits(guide)
    found, expected = (match(*arguments, grid.count) for match in (groups_gpu.match, groups.match))
    assert torch.equal(found.sort(1).values, expected.sort(1).values)
