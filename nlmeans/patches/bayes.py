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

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, whitening
from nlmeans.core.progress import Report, silent
from nlmeans.kernels.dispatch import kernel_for
from nlmeans.patches import bayes_cpu
from nlmeans.patches.dct import dct_basis
from nlmeans.patches.groups import LEAST_VARIANCE, Filtered, Grid, filter_volume
from nlmeans.patches.kernel_constants import ACROSS_FREEDOM, LEAST_DETERMINANT, TINY

FilterVolume = Callable[..., Tensor]


def nl_bayes(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor = 1.0,
    *,
    patch: int = 4,
    step: int = 3,
    count: int = 48,
    search_radius: Axes = (4, 4, 4),
    strength: float = 1.0,
    across: bool = False,
    tolerance: float = 0.05,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
    out: Tensor | None = None,
) -> Tensor:
    """Filter groups of similar patches by the mean and covariance of the guide's patches; see `filter_group`.

    Args:
        noisy: (C, D, H, W), floating point; channels are grouped together and filtered one by one. A depth of 1 is an
            image.
        guide: a first estimate, of the same shape; its noise should be well below that of `noisy`.
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        patch: edge of a patch in voxels; axes shorter than that have patches of their own length.
        step: distance between reference patches in voxels, no more than `patch`.
        count: K, the number of patches in a group.
        search_radius: radius in voxels of the search window around a reference patch.
        strength: factor on the noise variance; more than 1 smooths more.
        across: also smooth across the patches of a group, as far as Stein's estimate speaks for it.
        tolerance: patches count as equally similar if their mean squared difference on the guide is less than this
            times sigma². A group takes any of them, from all over the window. The most similar ones would have noise
            like that of the reference patch, which would not average out: a loss of 3 dB over air.
        autocovariance: of the noise, in units of sigma², with lag 0 in the middle; None for white noise.
        progress: called with the fraction done.
        out: where to write the result; it may be the guide, which saves its memory. None for a new tensor.

    Returns:
        Same shape, dtype and device.
    """

    def filter_groups(noisy: Tensor, guide: Tensor, variance: Tensor) -> Filtered:
        return filter_group(noisy, guide, variance, dct_basis(grid.size).to(noisy), strength, noise, across)

    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    grid = Grid.of(shape, patch, step, count, search_radius)
    noise = None if autocovariance is None else whitening(autocovariance, grid.size)
    compiled: FilterVolume = partial(
        bayes_cpu.filter_volume, strength=strength, across=across, steepest=STEEPEST, noise=noise
    )
    plain: FilterVolume = partial(filter_volume, filter_groups=filter_groups)
    run: FilterVolume = kernel_for([noisy, guide], plain=plain, cpu=compiled)
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
        basis: the DCT of a patch as a matrix, DC first.
        strength: factor on the noise variance; more than 1 smooths more.
        correlated: the correlation of the noise over a patch; None for white noise.
        across: also smooth across the patches of a group.
    """
    count, voxels = noisy.shape[1:]
    noisy_mean, guide_mean = noisy.mean(1, keepdim=True), guide.mean(1, keepdim=True)
    detail, oracle = noisy - noisy_mean, guide - guide_mean
    spectrum = None if correlated is None else correlated.spectrum(basis)
    mean, mean_freedom = filter_mean_patches(noisy_mean, guide_mean, variance / count, basis, spectrum)
    if correlated is not None:
        whiten, colour = correlated.whiten.to(basis), correlated.colour.to(basis)
        detail, oracle = detail @ whiten, oracle @ whiten

    noise = (count - 1) * variance
    contrast = inner_products(oracle, oracle) / noise.clamp_min(TINY)
    steep = (contrast > STEEPEST).nonzero()[:, 0] if noisy.dtype == torch.float32 else contrast.new_zeros(0).long()
    gram, cross = oracle @ oracle.mT, detail @ oracle.mT
    inverse, ridge = regular_inverse(gram, strength * noise)
    gain, freedom = cross @ inverse, count - ridge * inverse.diagonal(dim1=1, dim2=2).sum(1)
    if across:
        change = per_group(-ridge) * (inverse @ gain)
        gain, freedom = smooth_across(gram, cross, gain, change, freedom, variance)
    amplitude, kept = least_risk(
        inner_products(gain @ gram, gain),
        inner_products(gain, cross),
        inner_products(detail, detail),
        noise * freedom,
        noise * voxels,
    )

    gain.mul_(per_group(amplitude))
    if correlated is None:
        patches = torch.baddbmm(mean.expand_as(oracle), gain, oracle).addcmul_(detail, per_group(kept))
    else:
        patches = mean + (gain @ oracle).addcmul_(detail, per_group(kept)) @ colour
    freedom = (amplitude * freedom + kept * voxels) * (count - 1) / count + mean_freedom / count
    weight = 1 / (freedom * variance.clamp_min(LEAST_VARIANCE))
    if len(steep):
        left, its_guide, level = (values[steep].double() for values in (noisy, guide, variance))
        exact = filter_group(left, its_guide, level, basis.double(), strength, correlated, across)
        patches[steep], weight[steep] = exact.patches.float(), exact.weight.float()
    return Filtered(patches, weight)


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
    ridge = noise + rounding + 1e-12
    regular = gram.clone()
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
