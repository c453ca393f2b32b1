"""The method for series: all volumes together."""

from __future__ import annotations

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report
from nlmeans.methods.method import Method, Options, whole_tile
from nlmeans.patches.low_rank.series import PATCH, PATCH_STEP, REST_STEP, SeriesResult, series_low_rank


def denoise_series(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Low rank of local patches × volumes, with singular values shrunk optimally (Gavish and Donoho 2017)."""
    found = series_low_rank(noisy, sigma, autocovariance=options.autocovariance, basis=options.basis, progress=progress)
    if options.rank is not None:
        options.rank.copy_(found.rank)
    return found.series


def measure_series(noisy: Tensor, autocovariance: Tensor | None, everywhere: bool = False) -> SeriesResult:
    """Measure the noise of a series, (V, D, H, W), by what its volumes do not have in common.

    Patches lie side by side; with `everywhere` they overlap, which is exact where the noise varies in space.
    """
    step = PATCH_STEP if everywhere else PATCH
    peak = noisy.abs().max().clamp_min(torch.finfo(noisy.dtype).tiny)
    found = series_low_rank(noisy / peak, None, step=step, autocovariance=autocovariance)
    return SeriesResult(found.series * peak, found.sigma * peak, found.rank)


def series_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach: from a voxel to the far end of the patches that hold it."""
    return PATCH - 1, PATCH - 1, PATCH - 1


def series_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Return the bytes per voxel: the series, what a basis has left of it, copies, sums, results and some maps."""
    return 4.0 * (7 * channels + 10)


SERIES = Method(
    "low rank of local patches × volumes, for a series whose volumes show the same",
    whole_tile(denoise_series),
    halo=series_halo,
    bytes_per_voxel=series_memory,
    shrinks=True,
    whitens=True,
    joint=True,
    grain=REST_STEP,  # a multiple of PATCH_STEP
)
