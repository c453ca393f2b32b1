"""The local blur on a GPU in float32, by `gpu_kernel`; it computes the same as `loop`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nlmeans.blur.loop import Sizes
from nlmeans.core.axes import Axes
from nlmeans.kernels.dispatch import Trial

VOXELS_PER_PROGRAM = 256
"""Two for each thread of four warps."""

LARGEST_BATCH = 4
"""Most channels that share the weights which a program computes."""


def blur(padded: Tensor, precision: Tensor, radius: Axes, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Compute what `loop.blur` computes."""
    from nlmeans.blur.gpu_kernel import blur_voxels_kernel  # imports triton, which is optional

    shape, channels = precision.shape[1:], len(padded)
    result, totals = padded.new_empty(channels, *shape), padded.new_empty(shape)
    together = channels_at_once(channels)
    grid = (-(-totals.numel() // VOXELS_PER_PROGRAM), -(-channels // together))
    with torch.cuda.device_of(padded):
        blur_voxels_kernel[grid](
            padded,
            precision.contiguous(),
            result,
            totals,
            channels,
            totals.numel(),
            *shape[1:],
            *kernel_numbers(padded, radius, sizes),
            ENTRIES=len(precision),
            CHANNELS=together,
            BLOCK=VOXELS_PER_PROGRAM,
            enable_fp_fusion=True,
        )
    return result, totals


def derivatives(
    padded: Tensor,
    precision: Tensor,
    result: Tensor,
    totals: Tensor,
    gradient: Tensor,
    radius: Axes,
    sizes: Sizes,
    by_image: Tensor | None,
    by_precision: Tensor | None,
) -> None:
    """Compute what `loop.derivatives` computes; `by_image` and `by_precision` are contiguous."""
    from nlmeans.blur.gpu_kernel import by_image_kernel, by_precision_kernel  # imports triton, which is optional

    inverse, scaled, shape = precision.contiguous(), (gradient / totals).contiguous(), precision.shape[1:]
    channels, voxels, padded_voxels = len(padded), totals.numel(), padded[0].numel()
    together = channels_at_once(channels)
    numbers = kernel_numbers(padded, radius, sizes)
    options = {"ENTRIES": len(precision), "CHANNELS": together, "BLOCK": VOXELS_PER_PROGRAM, "enable_fp_fusion": True}
    with torch.cuda.device_of(padded):
        if by_precision is not None:
            by_precision_kernel[(-(-voxels // VOXELS_PER_PROGRAM),)](
                padded, inverse, result, scaled, by_precision, channels, voxels, *shape[1:], *numbers, **options
            )
        if by_image is not None:
            by_image_kernel[(-(-padded_voxels // VOXELS_PER_PROGRAM), -(-channels // together))](
                inverse, scaled, by_image, channels, voxels, *shape, *numbers, **options
            )


def channels_at_once(channels: int) -> int:
    """Return how many channels a program computes: a power of two."""
    return min(LARGEST_BATCH, 1 << (channels - 1).bit_length())


def kernel_numbers(padded: Tensor, radius: Axes, sizes: Sizes) -> tuple[float, ...]:
    """Return what all kernels take: the size of the padded volume, the radius, and the voxel size."""
    return (padded[0].numel(), *padded.shape[2:], *radius, *sizes)


def blur_trial(precision: Tensor, padded: Tensor) -> Trial:
    """Return a blur of a few hundred voxels, with as many entries of the precision and channels at once."""
    entries, channels = len(precision), channels_at_once(len(padded))

    def solve(run: Callable[..., tuple[Tensor, Tensor]], device: torch.device, dtype: torch.dtype) -> Tensor:
        volume, inverse, _ = small_problem(entries, channels, device, dtype)
        result, totals = run(volume, inverse, RADIUS, SIZES)
        return torch.cat([result.flatten(), totals.flatten()])

    return Trial(("blur", entries, channels), solve, 1e-3)


def derivatives_trial(precision: Tensor, padded: Tensor) -> Trial:
    """Return the same for the derivatives."""
    entries, channels = len(precision), channels_at_once(len(padded))

    def solve(run: Callable[..., None], device: torch.device, dtype: torch.dtype) -> Tensor:
        volume, inverse, gradient = small_problem(entries, channels, device, dtype)
        found = torch.zeros_like(volume), torch.zeros_like(inverse)
        totals = 1 + gradient[0].abs()
        run(volume, inverse, gradient.flip(1), totals, gradient, RADIUS, SIZES, *found)
        return torch.cat([by.flatten() for by in found])

    return Trial(("derivatives of the blur", entries, channels), solve, 1e-3)


def small_problem(
    entries: int, channels: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a padded volume, precisions with small correlations, and a gradient."""
    draw = torch.Generator().manual_seed(0)
    shape = (3, 7, 13)
    volume = torch.rand(channels, *(n + 2 * r for n, r in zip(shape, RADIUS, strict=True)), generator=draw)
    inverse = 0.5 + torch.rand(entries, *shape, generator=draw)
    if entries == 6:
        inverse[[1, 2, 4]] *= 0.2
    gradient = torch.randn(channels, *shape, generator=draw)
    return volume.to(device, dtype), inverse.to(device, dtype), gradient.to(device, dtype)


RADIUS, SIZES = (1, 1, 2), (1.3, 0.8, 1.1)
"""The kernel of trials."""
