"""The fused CPU kernels beside the loop over offsets in float64, for all shapes of blocks and rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nlmeans.blur import cpu, loop
from nlmeans.blur.cpu_kernel import exponential
from nlmeans.core.axes import Axes

SIZES = (1.3, 0.8, 1.1)
CASES: dict[str, tuple[Axes, Axes, int]] = {
    "line": ((1, 1, 17), (0, 0, 3), 1),
    "image": ((1, 13, 18), (0, 2, 4), 2),
    "volume": ((9, 13, 18), (3, 2, 1), 1),
    "smaller than the kernel": ((3, 4, 5), (4, 2, 3), 2),
    "radius 0": ((3, 4, 5), (0, 0, 0), 1),
    "many blocks": ((40, 9, 3), (1, 1, 1), 1),
}


def random_precision(entries: int, shape: Axes) -> Tensor:
    if entries < 6:
        return torch.rand(entries, *shape) * 2 + 0.02
    values = torch.randn(*shape, 3, 3)
    row, column = torch.triu_indices(3, 3)
    return (values @ values.mT + 0.05 * torch.eye(3))[..., row, column].movedim(-1, 0)


def everything(kernels: object, padded: Tensor, inverse: Tensor, radius: Axes, gradient: Tensor) -> list[Tensor]:
    """Result, sum of weights, and the two derivatives."""
    result, totals = kernels.blur(padded, inverse, radius, SIZES)  # type: ignore[attr-defined]
    by_image, by_precision = torch.zeros_like(padded), torch.zeros_like(inverse)
    kernels.derivatives(padded, inverse, result, totals, gradient, radius, SIZES, by_image, by_precision)  # type: ignore[attr-defined]
    return [result, totals, by_image, by_precision]


@pytest.mark.parametrize("entries", [1, 3, 6])
@pytest.mark.parametrize("case", CASES)
def test_both_ways_give_the_same(case: str, entries: int) -> None:
    torch.manual_seed(0)
    shape, radius, channels = CASES[case]
    padded = torch.rand(channels, *(n + 2 * r for n, r in zip(shape, radius, strict=True)))
    inverse, gradient = random_precision(entries, shape), torch.randn(channels, *shape)
    fused = everything(cpu, padded, inverse, radius, gradient)
    exact = everything(loop, padded.double(), inverse.double(), radius, gradient.double())
    for one, other in zip(fused, exact, strict=True):
        assert float((one.double() - other).norm()) <= 1e-5 * float(other.norm())


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
    for turn in cpu.block_turns(torch.Size(shape), radius):
        reached = torch.zeros(shape[0] + 2 * radius[0], shape[1] + 2 * radius[1], dtype=torch.int64)
        for z0, z1, y0, y1 in turn:
            covered[z0:z1, y0:y1] += 1
            reached[z0 : z1 + 2 * radius[0], y0 : y1 + 2 * radius[1]] += 1
        assert reached.max() == 1
    assert bool((covered == 1).all())


def test_parts_of_a_volume_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shape, radius = (5, 6, 7), (1, 2, 1)
    padded = torch.rand(2, 7, 10, 9, dtype=torch.float64)
    inverse, gradient = random_precision(3, shape).double(), torch.randn(2, *shape, dtype=torch.float64)
    whole = everything(loop, padded, inverse, radius, gradient)
    monkeypatch.setitem(loop.VOXELS_AT_ONCE, "cpu", 50)
    parts = everything(loop, padded, inverse, radius, gradient)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def test_the_exponential_is_accurate_and_ends_where_float32_sees_no_more() -> None:
    values = torch.linspace(-19.9, 0, 1001)
    result = torch.tensor([exponential(value) for value in values.numpy()])
    assert float((result / values.double().exp() - 1).abs().max()) < 1e-6
    assert exponential(values.numpy()[-1]) == 1
    assert exponential(values.numpy()[0] - 1) == 0
