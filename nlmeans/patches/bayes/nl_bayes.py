"""Non-local Bayes: filter groups of similar patches by the mean and covariance of a first estimate.

References:
    M. Lebrun, A. Buades, J.-M. Morel, "A nonlocal Bayesian image denoising algorithm", SIAM Journal on Imaging
    Sciences 6(3), 2013, doi:10.1137/120874989.
    C. M. Stein, "Estimation of the mean of a multivariate normal distribution", Annals of Statistics 9(6), 1981,
    doi:10.1214/aos/1176345632.
    S. Herbreteau, C. Kervrann, "Linear combinations of patches are unreasonably effective for single-image denoising",
    IEEE Transactions on Image Processing, 2024, doi:10.1109/TIP.2024.3436651.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, dct_basis, whitening
from nlmeans.core.progress import Report, silent
from nlmeans.kernels.dispatch import kernel_for
from nlmeans.patches.bayes import cpu, gpu
from nlmeans.patches.groups import (
    LEAST_VARIANCE,
    ChannelsFilter,
    Filtered,
    FilterVolume,
    Grid,
    GroupFilter,
    channels_alone,
    filter_volume,
)
from nlmeans.patches.kernel_constants import ACROSS_FREEDOM, LEAST_DETERMINANT, TINY


def nl_bayes(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor = 1.0,
    *,
    patch: int | Axes = 4,
    step: int | Axes = 3,
    count: int = 48,
    search_radius: Axes = (4, 4, 4),
    strength: float = 1.0,
    across: bool = False,
    tolerance: float = 0.05,
    joint: bool = False,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
    out: Tensor | None = None,
) -> Tensor:
    """Filter groups of similar patches by the mean and covariance of the guide's patches; see `filter_group`.

    Args:
        noisy: (C, D, H, W), floating point; the patches of a group lie at the same places in all channels. A depth of 1
            is an image.
        guide: a first estimate, of the same shape; its noise should be well below that of `noisy`.
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        patch: edge of a patch in voxels, one number or one per axis; axes shorter than that have patches of their own
            length.
        step: distance between reference patches in voxels, likewise; no more than `patch`.
        count: K, the number of patches in a group.
        search_radius: radius in voxels of the search window around a reference patch.
        strength: factor on the noise variance; more than 1 smooths more.
        across: also smooth across the patches of a group, as far as Stein's estimate speaks for it.
        tolerance: patches count as equally similar if their mean squared difference on the guide is less than this
            times sigma². A group takes any of them, from all over the window. The most similar ones would have noise
            like that of the reference patch, which would not average out: a loss of 3 dB over air.
        joint: whether channels are filtered together, by what they have in common (`filter_channels`), or one by one.
        autocovariance: of the noise, in units of sigma², with lag 0 in the middle; None for white noise.
        progress: called with the fraction done.
        out: where to write the result; it may be the guide, which saves its memory. None for a new tensor.

    Returns:
        Same shape, dtype and device.
    """
    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    grid = Grid.of(shape, patch, step, count, search_radius)
    noise = None if autocovariance is None else whitening(autocovariance, grid.size)
    basis = dct_basis(grid.size)
    alone: GroupFilter = partial(filter_group, basis=basis, strength=strength, correlated=noise, across=across)
    together: ChannelsFilter = partial(filter_channels, basis=basis, strength=strength, correlated=noise, across=across)
    steepest = STEEPEST * strength if joint else STEEPEST
    plain: FilterVolume = partial(filter_volume, filter_channels=together if joint else channels_alone(alone))
    fused: FilterVolume = partial(gpu.filter_volume, strength=strength, across=across, steepest=steepest, noise=noise)
    compiled: FilterVolume = partial(
        cpu.filter_volume, strength=strength, across=across, steepest=steepest, noise=noise, joint=joint
    )
    run: FilterVolume = kernel_for(
        [noisy, guide],
        plain=plain,
        cpu=None if joint and across else compiled,
        gpu=fused if gpu.serves(grid) and not joint else None,
        trial=gpu.trial(grid, noise, across, isinstance(sigma, Tensor)),
    )
    return run(noisy, guide, sigma, grid, tolerance, progress=progress, out=out)


def filter_group(
    noisy: Tensor,
    guide: Tensor,
    variance: Tensor,
    basis: Tensor,
    strength: float = 1.0,
    correlated: Whitening | None = None,
    across: bool = False,
) -> Filtered:
    """Filter groups as Lebrun, Buades and Morel (2013) do, adjusted to each group by Stein's risk estimate (1981).

    Y has the noisy patches in K rows, G those of the guide; ȳ and ḡ are their means, Q = Y − ȳ and P = G − ḡ::

        X = m + a·F + b·Q        F = Q Pᵀ A⁻¹ P        A = P Pᵀ + strength·(K−1)·σ²·I

    m is the mean patch, filtered in the DCT domain with ḡ as the oracle. F is the Wiener filter with covariance
    PᵀP / (K−1), in its K × K form. The share b of the noisy patches brings back detail that the guide lacks.
    a and b minimise Stein's estimate of the squared error, with f = tr(P Pᵀ A⁻¹) degrees of freedom and n voxels,

        ‖Q − a·F − b·Q‖² + 2 (K−1) σ² (a·f + b·n) + (K−1) σ² f (a − 1)²

    The last term keeps a near 1, because the guide contains some of the noise. 0 ≤ a ≤ 1.5 and 0 ≤ b ≤ 1.
    The weight of a group is 1 / (degrees of freedom per patch · σ²), in inverse proportion to its noise.

    F filters each patch by itself. With `across`, F is also smoothed across the patches of the group: the share t of it
    is replaced by P Pᵀ A⁻¹ F, in which each patch is a combination of all (Herbreteau and Kervrann 2024). t minimises
    Stein's estimate for F, in which the degrees of freedom that are saved count ν = 0.7 times; 0 ≤ t ≤ 1::

        F ← F + t·D        D = P Pᵀ A⁻¹ F − F        ‖Q − F − t·D‖² − 2 ν σ² t·f·(K − 1 − f)

    Correlated noise is whitened first. With its covariance σ²·C over a patch, Q·C^(−½) and P·C^(−½) replace Q and P,
    and a·F + b·Q is multiplied by C^½. The mean patch is filtered by the variance of the noise in each coefficient.

    Args:
        noisy: (groups, K, patch voxels).
        guide: patches of the guide, of the same shape.
        variance: variance of the noise, (groups,).
        basis: the DCT of a patch as a matrix, DC first, on any device and in any precision.
        strength: factor on the noise variance; more than 1 smooths more.
        correlated: the correlation of the noise over a patch; None for white noise.
        across: also smooth across the patches of a group.
    """
    return filter_channels([noisy], [guide], variance, basis, strength, correlated, across)[0]


def filter_channels(
    noisy: Iterable[Tensor],
    guide: Iterable[Tensor],
    variance: Tensor,
    basis: Tensor,
    strength: float = 1.0,
    correlated: Whitening | None = None,
    across: bool = False,
) -> list[Filtered]:
    """Filter groups of several channels by what these have in common.

    What several channels show, as the components of a series show an activation, stands out more in all of them than in
    each. As in `filter_group`, but with one A and one sum of products for all channels d::

        F_c = W P_c        W = (Σ Q_d P_dᵀ) A⁻¹        A = Σ P_d P_dᵀ + strength·(K−1)·σ²·I

    Each channel has a mean patch, f = tr(P_c P_cᵀ A⁻¹), a, b and a weight of its own.

    Args:
        noisy: for each channel, (groups, K, patch voxels).
        guide: patches of the guide, likewise.
        variance: as for `filter_group`.
        basis: as for `filter_group`.
        strength: as for `filter_group`.
        correlated: as for `filter_group`.
        across: as for `filter_group`.
    """
    channels = list(zip(noisy, guide, strict=True))
    matrix = basis.to(channels[0][0])
    parts = [CentredGroups.of(*patches, variance, matrix, correlated) for patches in channels]
    count, voxels = parts[0].detail.shape[1:]
    noise = (count - 1) * variance
    grams, crosses = [p.oracle @ p.oracle.mT for p in parts], [p.detail @ p.oracle.mT for p in parts]
    inverse, ridge = regular_inverse(summed(grams), strength * noise)
    shared = summed(crosses) @ inverse
    change = per_group(-ridge) * (inverse @ shared) if across else None
    found = []
    for part, gram, cross in zip(parts, grams, crosses, strict=True):
        gain, freedom = shared, inner_products(inverse, gram)
        if change is not None:
            gain, freedom = smooth_across(gram, cross, gain, change, freedom, variance)
        amplitude, kept = least_risk(
            inner_products(gain @ gram, gain),
            inner_products(gain, cross),
            inner_products(part.detail, part.detail),
            noise * freedom,
            noise * voxels,
        )
        share = gain * per_group(amplitude)
        if correlated is None:
            patches = torch.baddbmm(part.mean.expand_as(part.oracle), share, part.oracle)
            patches.addcmul_(part.detail, per_group(kept))
        else:
            colour = correlated.colour.to(matrix)
            patches = part.mean + (share @ part.oracle).addcmul_(part.detail, per_group(kept)) @ colour
        freedom = (amplitude * freedom + kept * voxels) * (count - 1) / count + part.mean_freedom / count
        found.append(Filtered(patches, 1 / (freedom * variance.clamp_min(LEAST_VARIANCE))))
    contrast = summed([inner_products(p.oracle, p.oracle) for p in parts]) / noise.clamp_min(TINY)
    steep = (contrast > STEEPEST).nonzero()[:, 0]
    if matrix.dtype == torch.float32 and len(steep):
        again = [[patches[steep].double() for patches in channel] for channel in zip(*channels, strict=True)]
        level = variance[steep].double()
        exact = filter_channels(again[0], again[1], level, basis, strength, correlated, across)
        for values, precise in zip(found, exact, strict=True):
            values.patches[steep], values.weight[steep] = precise.patches.float(), precise.weight.float()
    return found


class CentredGroups(NamedTuple):
    """One channel of groups: what is filtered alone, and what is filtered together."""

    mean: Tensor
    """The filtered mean patch, (groups, 1, patch voxels)."""
    mean_freedom: Tensor
    """Its degrees of freedom, (groups,)."""
    detail: Tensor
    """Q, whitened if the noise is correlated, (groups, K, patch voxels)."""
    oracle: Tensor
    """P, likewise."""

    @classmethod
    def of(
        cls, noisy: Tensor, guide: Tensor, variance: Tensor, basis: Tensor, correlated: Whitening | None
    ) -> CentredGroups:
        """Take the mean patches off, and filter them."""
        means = noisy.mean(1, keepdim=True), guide.mean(1, keepdim=True)
        spectrum = None if correlated is None else correlated.spectrum(basis)
        filtered = filter_mean_patches(*means, variance / noisy.shape[1], basis, spectrum)
        rests = noisy - means[0], guide - means[1]
        if correlated is not None:
            whiten = correlated.whiten.to(basis)
            rests = rests[0] @ whiten, rests[1] @ whiten
        return cls(*filtered, *rests)


def summed(tensors: list[Tensor]) -> Tensor:
    """Add tensors of one shape, the first ones first."""
    return functools.reduce(torch.add, tensors)


def least_risk(ff: Tensor, fq: Tensor, qq: Tensor, f_noise: Tensor, q_noise: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a and b of `filter_group` from ⟨F, F⟩, ⟨F, Q⟩, ⟨Q, Q⟩, (K−1)σ²f and (K−1)σ²n.

    b is limited to its range first; a is the best for that b.
    """
    held = ff + f_noise + TINY
    f_gain, q_gain = fq, qq - q_noise
    determinant = torch.maximum(held * qq - fq.square(), LEAST_DETERMINANT * held * qq + TINY)
    kept = ((held * q_gain - fq * f_gain) / determinant).clamp(0, 1)
    return ((f_gain - kept * fq) / held).clamp(0, 1.5), kept


STEEPEST = 2e4
"""Largest ‖P‖² relative to (K−1)σ² for which float32 is exact to 0.01 sigma: edges of about 50 sigma through all
patches of a group. Steeper groups are filtered in float64."""


def inner_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of two matrices, per group."""
    return (a.flatten(1)[:, None] @ b.flatten(1)[..., None])[:, 0, 0]


def per_group(values: Tensor) -> Tensor:
    """Shape one number per group so that it broadcasts against (groups, K, patch voxels)."""
    return values[:, None, None]


def filter_mean_patches(
    noisy: Tensor, guide: Tensor, variance: Tensor, basis: Tensor, spectrum: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Filter mean patches, (groups, 1, patch voxels), in the DCT domain; return Σ gain² too.

    The gain of a coefficient is O²/(O² + variance), where O is the guide's; that of DC is 1. `spectrum` has the
    variance of the noise in each coefficient, relative to its mean; None for white noise.
    """
    energy = (guide @ basis.T).square()
    level = per_group(variance) if spectrum is None else per_group(variance) * spectrum
    gain = energy / (energy + level)
    gain[..., 0] = 1
    return (noisy @ basis.T).mul_(gain) @ basis, gain.square().sum((1, 2))


def regular_inverse(gram: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return (gram + ridge·I)⁻¹ and the ridge, which is the noise and what rounding needs.

    `gram` is (groups, K, K), `noise` is (groups,).
    """
    rounding = 2 * torch.finfo(gram.dtype).eps * gram.diagonal(dim1=1, dim2=2).sum(1)
    regular = gram.clone()
    ridge = noise + rounding + 1e-12
    regular.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    identity = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    half = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(regular)[0], identity, upper=False)
    return half.mT @ half, ridge  # cholesky_inverse would process one matrix after the other on a GPU


def smooth_across(
    gram: Tensor, cross: Tensor, gain: Tensor, change: Tensor, freedom: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gain and the degrees of freedom of F + t·D; see `filter_group`.

    Args:
        gram: P Pᵀ, (groups, K, K).
        cross: Q Pᵀ.
        gain: F = gain · P.
        change: D = change · P.
        freedom: f of F, (groups,).
        variance: variance of the noise, (groups,).
    """
    others = gram.shape[1] - 1
    changed = change @ gram
    saved = freedom * (others - freedom)
    worth = inner_products(change, cross) - inner_products(changed, gain) + ACROSS_FREEDOM * variance * saved
    share = (worth / (inner_products(changed, change) + TINY)).clamp(0, 1)
    return gain + per_group(share) * change, freedom - share * saved / max(others, 1)
