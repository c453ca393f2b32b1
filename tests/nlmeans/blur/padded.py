"""Cases of the local blur, and the error of its kernels relative to float64."""

from __future__ import annotations

import torch
from torch import Tensor

from nlmeans.blur import loop
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
    """Inverse covariances: spherical, diagonal or full."""
    if entries < 6:
        return torch.rand(entries, *shape) * 2 + 0.02
    values = torch.randn(*shape, 3, 3)
    row, column = torch.triu_indices(3, 3)
    return (values @ values.mT + 0.05 * torch.eye(3))[..., row, column].movedim(-1, 0)


def everything(kernels: object, padded: Tensor, inverse: Tensor, radius: Axes, gradient: Tensor) -> list[Tensor]:
    """The result, the sums of weights and both derivatives."""
    result, totals = kernels.blur(padded, inverse, radius, SIZES)  # type: ignore[attr-defined]
    by_image, by_precision = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (padded, inverse))
    kernels.derivatives(padded, inverse, result, totals, gradient, radius, SIZES, by_image, by_precision)  # type: ignore[attr-defined]
    return [result, totals, by_image, by_precision]


def largest_error(kernels: object, case: str, entries: int) -> float:
    """Largest relative error, as a norm, of everything that `kernels` computes, compared with `loop` in float64."""
    torch.manual_seed(0)
    shape, radius, channels = CASES[case]
    padded = torch.rand(channels, *(n + 2 * r for n, r in zip(shape, radius, strict=True)))
    inverse, gradient = random_precision(entries, shape), torch.randn(channels, *shape)
    found = everything(kernels, padded, inverse, radius, gradient)
    exact = everything(loop, padded.double(), inverse.double(), radius, gradient.double())
    return max(
        float((one.double() - other).norm() / other.norm().clamp_min(1e-30))
        for one, other in zip(found, exact, strict=True)
    )
