"""The local blur on the CPU: threads and blocks of rows."""

from __future__ import annotations

import pytest
import torch

from nlmeans.blur import cpu
from nlmeans.core.axes import Axes
from nlmeans.kernels.turns import chequerboard
from tests.nlmeans.blur.padded import everything, random_precision


@pytest.mark.parametrize("entries", [1, 3, 6])
def test_the_number_of_threads_changes_no_bit(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shape, radius = (9, 13, 18), (1, 2, 3)
    padded = torch.rand(1, *(n + 2 * r for n, r in zip(shape, radius, strict=True)))
    inverse, gradient = random_precision(entries, shape), torch.randn(1, *shape)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(everything(cpu, padded, inverse, radius, gradient))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("radius", [(0, 0, 3), (2, 3, 0), (1, 6, 2)])
@pytest.mark.parametrize("shape", [(1, 1, 5), (5, 40, 3), (128, 7, 3)])
def test_blocks_of_one_turn_are_a_kernel_apart_and_turns_cover_all(shape: Axes, radius: Axes) -> None:
    covered = torch.zeros(shape[:2], dtype=torch.int64)
    planes, rows = (cpu.bounds(length, reach) for length, reach in zip(shape[:2], radius[:2], strict=True))
    for turn in chequerboard(planes, rows):
        reached = torch.zeros(shape[0] + 2 * radius[0], shape[1] + 2 * radius[1], dtype=torch.int64)
        for (z0, z1), (y0, y1) in turn:
            covered[z0:z1, y0:y1] += 1
            reached[z0 : z1 + 2 * radius[0], y0 : y1 + 2 * radius[1]] += 1
        assert reached.max() == 1
    assert bool((covered == 1).all())
