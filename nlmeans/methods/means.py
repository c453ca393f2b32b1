"""Methods that are weighted means: classic, patchwise, linear and stochastic non-local means."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nlmeans.core.axes import Axes, window_voxels
from nlmeans.core.progress import Report, part
from nlmeans.core.tiles import Piece, tiles
from nlmeans.methods.method import Method, Options, whole_tile
from nlmeans.methods.variants import average_patches, fit_planes
from nlmeans.operator.backends import working_memory
from nlmeans.operator.nonlocal_means import nonlocal_means
from nlmeans.operator.windowed import windows_step


def average(
    values: Tensor,
    noisy: Tensor,
    sigma: float | Tensor,
    options: Options,
    progress: Report,
    center: str | float = 0.1,
    **arguments: Any,
) -> Tensor:
    """Average `values` over voxels whose patches in `noisy` are similar.

    Args:
        values: (C, D, H, W), to average.
        noisy: (C', D, H, W), which decides the weights.
        sigma: 1.0, or a (D, H, W) map around 1.
        options: strength, radii, backend and memory.
        progress: called with the fraction done.
        center: weight of the voxel itself; see `nonlocal_means`.
        arguments: more arguments of `nonlocal_means`.
    """
    attention = options.backend == "windowed"
    return nonlocal_means(
        values,
        options.h * sigma,
        sigma=0.0 if attention else sigma,
        patch_radius=options.patch_radius,
        search_radius=options.search_radius,
        guide=None if values is noisy else noisy,
        center="one" if attention else center,
        channels=0,
        backend=options.backend,
        memory=options.memory,
        progress=progress,
        **arguments,
    )


def both_radii(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach of non-local means: patch radius + search radius."""
    d, h, w = (p + s for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


def operator_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Return the bytes per voxel that the operator works in."""
    return working_memory(backend, channels, channels, patch_radius, search_radius)


def classic(
    noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report, wanted: Piece | None = None
) -> Tensor:
    """Patch-based non-local means (Buades, Coll and Morel 2005), with the distance due to noise subtracted.

    A voxel's own weight is the largest of its neighbours' weights, but at least 0.1, so that a voxel unlike all others
    is kept. The backend ``"windowed"`` supports neither: it subtracts nothing, and a voxel's own weight is 1.
    """
    return average(noisy, noisy, sigma, options, progress, region=wanted)


def pilot_radius(search_radius: Axes) -> Axes:
    """Return the search radius of a first estimate: at most 2, in an image 3.

    More voxels would make it slower and no better: what the pilot blurs is lost to later stages.
    """
    largest = 2 if all(search_radius) else 3
    d, h, w = (min(radius, largest) for radius in search_radius)
    return d, h, w


def classic_pilot(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Make a first estimate by `classic`, in a small window."""
    near = dataclasses.replace(options, search_radius=pilot_radius(options.search_radius))
    return classic(noisy, sigma, near, progress)


CLASSIC = Method(
    "patch-based non-local means (Buades, Coll and Morel 2005)",
    lambda noisy, sigma, wanted, options, progress: classic(noisy, sigma, options, progress, wanted),
    halo=both_radii,
    bytes_per_voxel=operator_memory,
)


def patchwise(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Non-local means that averages whole patches; see `average_patches`."""
    mean = partial(average, noisy=noisy, sigma=sigma, options=options, progress=progress, center="max")
    return average_patches(noisy, options.patch_radius, mean)


def patchwise_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach: to the patches that hold a voxel, to similar patches, and across the patches compared."""
    d, h, w = (2 * p + s for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


def patchwise_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Return the bytes per voxel: the image is averaged once for each voxel of a patch."""
    copies = channels * window_voxels(patch_radius)
    return working_memory(backend, copies, channels, patch_radius, search_radius) + 8.0 * (copies + channels)


PATCHWISE = Method(
    "non-local means that averages whole patches instead of single voxels",
    whole_tile(patchwise),
    halo=patchwise_halo,
    bytes_per_voxel=patchwise_memory,
    h=0.85,
)


def linear(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Non-local means that fits planes instead of constants; see `fit_planes`."""
    result = torch.empty_like(noisy)
    axes = [axis for axis, radius in enumerate(options.search_radius) if radius]
    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    halo, grain = both_radii(options.patch_radius, options.search_radius), 1
    if options.backend == "windowed":
        halo, grain = both_radii(halo, options.search_radius), windows_step(options.search_radius)
    blocks = list(tiles(shape, (LINEAR_BLOCK,) * 3, halo, grain=grain))
    for number, block in enumerate(blocks):
        values, level = noisy[:, *block.outer], sigma if isinstance(sigma, float) else sigma[block.outer]
        report = part(progress, number / len(blocks), (number + 1) / len(blocks))
        mean = partial(average, noisy=values, sigma=level, options=options, progress=report)
        result[:, *block.inner] = fit_planes(values, axes, mean)[:, *block.within]
    return result


LINEAR_BLOCK = 32
"""Edge of the blocks that are fitted together. Squares of coordinates are averaged and subtracted again; in blocks of
this size, float32 keeps the result exact to 0.0005 sigma."""


def linear_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Return the bytes per voxel: the averaged channels, and a 3 × 3 system.

    Averaged are the image, 3 coordinates, their 6 products with each other, and their 3 products with each channel.
    """
    averaged = 4 * channels + 9
    return working_memory(backend, averaged, channels, patch_radius, search_radius) + 4.0 * (2 * averaged + 45)


LINEAR = Method(
    "non-local means that fits planes instead of constants, for smooth ramps",
    whole_tile(linear),
    halo=both_radii,
    bytes_per_voxel=linear_memory,
)


def stochastic(
    noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report, wanted: Piece | None = None
) -> Tensor:
    """Monte Carlo non-local means (Chan, Zickler and Lu 2014): averages over a random fifth of a large window."""
    samples = max(2, window_voxels(options.search_radius) // 5)
    return average(noisy, noisy, sigma, options, progress, region=wanted, samples=samples, seed=options.seed)


STOCHASTIC = Method(
    "non-local means over a random fifth of a 17³ search window",
    lambda noisy, sigma, wanted, options, progress: stochastic(noisy, sigma, options, progress, wanted),
    halo=both_radii,
    bytes_per_voxel=operator_memory,
    h=0.9,
    search_radius=8,
)
