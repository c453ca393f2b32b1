"""The methods. Each composes stages in a few lines; noise has a standard deviation of 1 there, or of a map around 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nlmeans.backends import working_memory
from nlmeans.backends.request import Axes, window_voxels
from nlmeans.backends.windowed import windows_step
from nlmeans.dct import hard_threshold
from nlmeans.dct import wiener as wiener_filter
from nlmeans.group_filters import low_rank, nl_bayes, series_low_rank
from nlmeans.nonlocal_means import nonlocal_means
from nlmeans.progress import Report, part
from nlmeans.tiles import Piece, tile_shape, tiles
from nlmeans.variants import linear as fit_planes
from nlmeans.variants import patchwise as average_patches


@dataclass(frozen=True)
class Options:
    """What a method may be told, in voxels and in units of sigma."""

    h: float
    patch_radius: Axes
    search_radius: Axes
    backend: str
    memory: int
    seed: int = 0
    """Of the method that draws at random."""


Stage = Callable[[Tensor, float | Tensor, Options, Report], Tensor]
"""Of the noisy tile, sigma, the options and where to report progress: the denoised tile."""

Run = Callable[[Tensor, float | Tensor, Piece, Options, Report], Tensor]
"""Likewise, with which part of the tile is wanted and returned."""

GRAIN = 12
"""The grids of patches step by 2, 3 and 4 voxels."""


@dataclass(frozen=True)
class Method:
    """A way to denoise (C, D, H, W) in units of sigma.

    ``run`` takes the noisy tile, sigma (a number or a (D, H, W) map), which part of the tile is wanted, the options
    and where to report progress. It returns the wanted part, which depends on the tile no farther away than ``halo``.
    """

    summary: str
    run: Run
    halo: Callable[[Axes, Axes], Axes]
    """Of (patch radius, search radius)."""
    bytes_per_voxel: Callable[[str, int, Axes, Axes], float]
    """Working memory, of (backend, channels, patch radius, search radius)."""
    h: float = 1.0
    """In units of `h_of_contrast`."""
    patch_radius: int = 1
    search_radius: int = 3
    shrinks: bool = False
    """Whether sigma decides how much is taken off, and not only what is alike."""
    grain: int = 1
    """Tiles must start at multiples of this many voxels, so that grids of patches are those of the whole volume."""

    def usual_h(self, contrast: float, search_radius: Axes) -> float:
        """The filter strength in units of sigma, where none is given."""
        return self.h * h_of_contrast(contrast, search_radius)


def h_of_contrast(contrast: float, search_radius: Axes) -> float:
    """The filter strength in units of sigma that suits a volume whose values span `contrast` times sigma.

    Little noise can be averaged further than much noise, which hides what differs. Fitted on seven volumes at 1 to 9 %
    (benchmarks/results/calibration.md). A window in one plane has fewer voxels to choose from.
    """
    return min(max(0.53 + 0.012 * contrast, 0.6), 1.0) if all(search_radius) else 1.0


def classic(
    noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report, wanted: Piece | None = None
) -> Tensor:
    """Patch non-local means (Buades, Coll and Morel 2005) with the distance due to noise taken off.

    A voxel counts as much as its best neighbour, but at least a tenth, so that what is unlike all else is kept.
    Attention within windows knows neither of the two: there all weights are plain, and its own is 1.
    """
    return average(noisy, noisy, sigma, options, progress, region=wanted)


def average(
    values: Tensor,
    noisy: Tensor,
    sigma: float | Tensor,
    options: Options,
    progress: Report,
    center: str | float = 0.1,
    **arguments: Any,
) -> Tensor:
    """Average `values` over voxels that look alike in `noisy`, as the options say."""
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


def patchwise(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Non-local means of whole patches."""
    mean = partial(average, noisy=noisy, sigma=sigma, options=options, progress=progress, center="max")
    return average_patches(noisy, options.patch_radius, mean)


def linear(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Non-local means that fit planes instead of constants."""
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
"""Voxels fitted together. Squares of coordinates are averaged and subtracted again, which leaves float32 digits for
0.0005 sigma; more voxels leave less."""


def stochastic(
    noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report, wanted: Piece | None = None
) -> Tensor:
    """Monte Carlo non-local means (Chan, Zickler and Lu 2014): a random fifth of a very large window."""
    samples = max(2, window_voxels(options.search_radius) // 5)
    return average(noisy, noisy, sigma, options, progress, region=wanted, samples=samples, seed=options.seed)


def dct(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Hard threshold of the sliding DCT (Manjón et al. 2012, ODCT)."""
    return hard_threshold(noisy, sigma, patch=4, stride=1, threshold=2.7)


def wiener(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Non-local means as the pilot of a Wiener filter in the DCT domain."""
    return wiener_filter(noisy, classic(noisy, sigma, options, progress), sigma, patch=4, stride=1)


def pri(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Prefiltered rotationally invariant non-local means (Manjón et al. 2012, PRI-NLM).

    Voxels are compared by their value and the mean of their neighbours in a DCT-filtered pilot: by their squared
    differences over 0.8 h² and 0.4 h².
    """
    pilot = dct(noisy, sigma, options, progress)
    results = [
        nonlocal_means(
            channel[None],
            options.h * sigma,
            guide=torch.stack([first, neighbour_mean(first)]),
            guide_scale=(1.25, 2.5),
            patch_radius=0,
            search_radius=options.search_radius,
            channels=0,
            backend=options.backend,
            memory=options.memory,
        )[0]
        for channel, first in zip(noisy, pilot, strict=True)
    ]
    return torch.stack(results)


def neighbour_mean(volume: Tensor) -> Tensor:
    """The mean of 3 × 3 × 3 voxels (3 × 3 of an image), borders reflected, of (D, H, W)."""
    for axis, length in enumerate(volume.shape):
        if length > 1:
            first, last = volume.narrow(axis, 1, 1), volume.narrow(axis, length - 2, 1)
            padded = torch.cat([first, volume, last], axis)
            volume = sum((padded.narrow(axis, k, length) for k in (1, 2)), padded.narrow(axis, 0, length)) / 3
    return volume


def bayes(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Two stages of NL-Bayes (Lebrun, Buades and Morel 2013) on the mean of two pilots: DCT and non-local means.

    The first may step by as much as a patch, since the second averages again.
    """
    reports = [part(progress, 0.1, 0.4), part(progress, 0.4, 1.0)]
    patch, radius = group_patch(noisy), group_radius(options.search_radius, 4)
    guide = pilot(noisy, sigma, options, part(progress, 0.0, 0.1))
    guide = nl_bayes(
        noisy, guide, sigma, patch=patch, step=4, search_radius=radius, strength=1.5, alike=0.2, progress=reports[0]
    )
    return nl_bayes(noisy, guide, sigma, patch=patch, search_radius=radius, progress=reports[1])


def best(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """`bayes` with larger groups and windows, and a third stage that steps by 2 voxels."""
    reports = [part(progress, 0.05, 0.2), part(progress, 0.2, 0.4), part(progress, 0.4, 1.0)]
    patch, radius = group_patch(noisy), group_radius(options.search_radius, 5)
    guide = pilot(noisy, sigma, options, part(progress, 0.0, 0.05))
    guide = nl_bayes(
        noisy, guide, sigma, patch=patch, step=4, count=64, search_radius=radius, strength=1.5, alike=0.2,
        progress=reports[0],
    )  # fmt: skip
    guide = nl_bayes(noisy, guide, sigma, patch=patch, search_radius=radius, progress=reports[1])
    return nl_bayes(noisy, guide, sigma, patch=patch, step=2, count=64, search_radius=radius, progress=reports[2])


def subspace(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Low-rank groups of similar patches (Gavish and Donoho 2017); of many channels, MP-PCA along them."""
    if len(noisy) >= MANY_CHANNELS:
        return series_low_rank(noisy, sigma, progress=progress)
    patch, radius = group_patch(noisy), group_radius(options.search_radius, 4)
    guide = pilot(noisy, sigma, options, part(progress, 0.0, 0.1))
    return low_rank(noisy, guide, sigma, patch=patch, search_radius=radius, progress=part(progress, 0.1, 1.0))


MANY_CHANNELS = 8
"""From here on what channels have in common says more than what patches have."""


def pilot(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """The mean of two estimates whose errors differ: the DCT rings, non-local means blurs what is rare."""
    thresholded = hard_threshold(noisy, sigma, patch=4, stride=1, threshold=3.0)
    return (thresholded + classic(noisy, sigma, options, progress)) / 2


def group_patch(noisy: Tensor) -> int:
    """The edge of the patches that are grouped: 4³ voxels of a volume, 6² of an image, whichever its axes are."""
    return LARGEST_GROUP_PATCH if 1 in noisy.shape[1:] else 4


LARGEST_GROUP_PATCH = 6


def group_radius(search_radius: Axes, radius: int) -> Axes:
    """Where groups come from: `radius` voxels along the axes that are searched; in one plane 2.5 times as far."""
    wide = radius if all(search_radius) else radius * 5 // 2
    d, h, w = (wide if r else 0 for r in search_radius)
    return d, h, w


def both_radii(patch_radius: Axes, search_radius: Axes) -> Axes:
    d, h, w = (p + s for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


def pilot_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """A patch of 4 reaches 3 voxels, and its values 3 more; classic reaches patch + search radius."""
    d, h, w = (max(6, p + s) for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


def stages_halo(stages: int, radius: int, patch_radius: Axes, search_radius: Axes) -> Axes:
    """A stage reaches from a voxel over a patch to its reference patch, from there to its group, and over a patch."""
    patch = 4 if all(search_radius) else LARGEST_GROUP_PATCH
    stage = [2 * r + 2 * (patch - 1) for r in group_radius(search_radius, radius)]
    d, h, w = (a + stages * b for a, b in zip(pilot_halo(patch_radius, search_radius), stage, strict=True))
    return d, h, w


def subspace_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    return stages_halo(1, 4, patch_radius, search_radius)


def bayes_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    return stages_halo(2, 4, patch_radius, search_radius)


def best_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    return stages_halo(3, 5, patch_radius, search_radius)


def dct_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    return 6, 6, 6


def wiener_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """A patch of 4 reaches 3 voxels, and its values 3 more, to each of which the pilot reaches."""
    d, h, w = (6 + p + s for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


def pri_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    d, h, w = (7 + s for s in search_radius)
    return d, h, w


def patchwise_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """A voxel takes part in patches around its neighbours, each of which comes from patches compared by patches."""
    d, h, w = (2 * p + s for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


def wanted_of(stage: Stage) -> Run:
    """A method that computes its whole tile and returns the wanted part."""

    def run(noisy: Tensor, sigma: float | Tensor, wanted: Piece, options: Options, progress: Report) -> Tensor:
        return stage(noisy, sigma, options, progress)[:, *wanted]

    return run


def operator_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    return working_memory(backend, channels, channels, patch_radius, search_radius)


def patchwise_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """The image once for each voxel of a patch."""
    copies = channels * window_voxels(patch_radius)
    return working_memory(backend, copies, channels, patch_radius, search_radius) + 8.0 * (copies + channels)


def linear_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Beside the image 3 coordinates, their 6 products with each other and 3 with each channel; then a 3 × 3 system."""
    averaged = 4 * channels + 9
    return working_memory(backend, averaged, channels, patch_radius, search_radius) + 4.0 * (2 * averaged + 45)


def group_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Beside the pilot's: noisy and guide with their extension, sums and weights, the estimate, and what DCT takes."""
    return operator_memory(backend, channels, patch_radius, search_radius) + 4.0 * (14 * channels + 6)


METHODS: dict[str, Method] = {
    "classic": Method(
        "patch non-local means",
        lambda noisy, sigma, wanted, options, progress: classic(noisy, sigma, options, progress, wanted),
        halo=both_radii,
        bytes_per_voxel=operator_memory,
    ),
    "patchwise": Method(
        "non-local means of whole patches",
        wanted_of(patchwise),
        halo=patchwise_halo,
        bytes_per_voxel=patchwise_memory,
        h=0.85,
    ),
    "linear": Method(
        "non-local means that fit planes, for smooth ramps",
        wanted_of(linear),
        halo=both_radii,
        bytes_per_voxel=linear_memory,
    ),
    "stochastic": Method(
        "non-local means over a random fifth of a very large window",
        lambda noisy, sigma, wanted, options, progress: stochastic(noisy, sigma, options, progress, wanted),
        halo=both_radii,
        bytes_per_voxel=operator_memory,
        h=0.9,
        search_radius=8,
    ),
    "dct": Method(
        "hard threshold of the sliding DCT",
        wanted_of(dct),
        halo=dct_halo,
        bytes_per_voxel=group_memory,
        shrinks=True,
    ),
    "wiener": Method(
        "DCT-Wiener filter with non-local means as its pilot",
        wanted_of(wiener),
        halo=wiener_halo,
        bytes_per_voxel=group_memory,
        h=1.15,
        shrinks=True,
    ),
    "pri": Method(
        "prefiltered rotationally invariant non-local means",
        wanted_of(pri),
        halo=pri_halo,
        bytes_per_voxel=group_memory,
        h=1.2,
        shrinks=True,
    ),
    "bayes": Method(
        "two stages of non-local Bayes",
        wanted_of(bayes),
        halo=bayes_halo,
        bytes_per_voxel=group_memory,
        shrinks=True,
        grain=GRAIN,
    ),
    "best": Method(
        "three stages of non-local Bayes",
        wanted_of(best),
        halo=best_halo,
        bytes_per_voxel=group_memory,
        shrinks=True,
        grain=GRAIN,
    ),
    "subspace": Method(
        "low-rank groups of similar patches",
        wanted_of(subspace),
        halo=subspace_halo,
        bytes_per_voxel=group_memory,
        shrinks=True,
        grain=GRAIN,
    ),
}


LARGE = 2**29
"""Voxels of which `bayes` takes more than ten minutes on two cores."""

MOST_OVERLAP = 4
"""Voxels computed for each one wanted, where tiles are small and their halo is wide."""


def pick(shape: Axes, channels: int, backend: str, memory: float) -> tuple[str, str]:
    """What ``"auto"`` stands for, and why.

    `bayes` is the best or within 0.1 dB of it at every level of noise, in 2D and 3D (benchmarks/results/quality.md),
    so that the time and the memory decide.
    """
    if backend == "windowed":
        return "classic", "of which attention within windows is a form"
    reason = "the best at every level of noise"
    for name in ("bayes", "wiener"):
        method = METHODS[name]
        patch_radius, search_radius = within(shape, method.patch_radius), within(shape, method.search_radius)
        halo = method.halo(patch_radius, search_radius)
        limit = memory / method.bytes_per_voxel(backend, channels, patch_radius, search_radius)
        if name == "bayes" and math.prod(shape) > LARGE:
            reason = f"the best in the time that {math.prod(shape):,} voxels leave"
        elif overlap(shape, halo, limit) > MOST_OVERLAP:
            reason = "the best whose tiles fit into the memory"
        else:
            return name, reason
    return "classic", reason


def within(shape: Axes, radius: int) -> Axes:
    d, h, w = (min(radius, n - 1) for n in shape)
    return d, h, w


def overlap(shape: Axes, halo: Axes, limit: float) -> float:
    """Voxels to compute for each one wanted, in tiles of at most `limit` voxels with their halo."""
    try:
        tile = tile_shape(shape, halo, limit)
    except ValueError:
        return math.inf
    outer = math.prod(min(n, t + 2 * m) for n, t, m in zip(shape, tile, halo, strict=True))
    return outer / math.prod(tile)
