"""Measures of how close an image is to the truth, and of what denoising removed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ImageArray = npt.NDArray[np.generic]

GAUSSIAN_SIGMA = 1.5
"""Standard deviation of the window of SSIM, in voxels."""

TRUNCATE = 3.5
"""Radius of the window of SSIM, in standard deviations."""


def psnr(truth: ImageArray, image: ImageArray, *, peak: float | None = None, mask: ImageArray | None = None) -> float:
    """Peak signal-to-noise ratio (PSNR) in dB; higher is better.

    Args:
        truth: the image without noise, an array of any shape and any real dtype.
        image: the image to compare with it, of the same shape.
        peak: value that the error is compared with, in image units; None for the maximum of `truth`.
        mask: array of the same shape; voxels that are not zero are compared. None for all voxels.

    Returns:
        10 · log₁₀(peak² / mean squared error); infinity for equal images.

    Example:
        >>> truth = np.array([[0.0, 100.0]])
        >>> round(psnr(truth, truth + 1), 1)
        40.0
    """
    error = (image.astype(np.float64) - truth.astype(np.float64)) ** 2
    mean = float((error if mask is None else error[mask.astype(bool)]).mean())
    peak = float(truth.max()) if peak is None else peak
    return math.inf if mean == 0 else 10 * math.log10(peak**2 / mean)


def ssim(truth: ImageArray, image: ImageArray, *, peak: float | None = None, mask: ImageArray | None = None) -> float:
    """Mean structural similarity (SSIM) with a Gaussian window; higher is better.

    The window has a standard deviation of 1.5 voxels.

    Args:
        truth: the image without noise, a 2D or 3D array of any real dtype.
        image: the image to compare with it, of the same shape.
        peak: range of the values, in image units; None for the maximum of `truth`.
        mask: array of the same shape; the mean is over its voxels that are not zero. None for all voxels.

    Returns:
        A number up to 1, which equal images reach.

    References:
        Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to
        structural similarity", IEEE Trans. Image Process. 2004, doi:10.1109/TIP.2003.819861.

    Example:
        >>> truth = np.random.default_rng(0).random((16, 16))
        >>> round(ssim(truth, truth), 6)
        1.0
    """
    peak = float(truth.max()) if peak is None else peak
    x, y = (torch.from_numpy(a.astype(np.float64)) for a in (truth, image))
    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return float(similarity.mean() if mask is None else similarity[torch.from_numpy(mask.astype(bool))].mean())


def smooth(values: Tensor) -> Tensor:
    """Average with a Gaussian window along every axis. The border voxel is repeated outwards."""
    radius = int(TRUNCATE * GAUSSIAN_SIGMA + 0.5)
    window = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=values.dtype) / GAUSSIAN_SIGMA) ** 2)
    for axis, count in enumerate(values.shape):
        padded = values.index_select(axis, torch.arange(-radius, count + radius).clamp(0, count - 1))
        values = torch.zeros_like(values)
        for start, weight in enumerate((window / window.sum()).tolist()):
            values.add_(padded.narrow(axis, start, count), alpha=weight)
    return values


@dataclass
class Removed:
    """What denoising removed, in units of sigma: how strong it is, and how much neighbours have in common.

    Example:
        >>> noise = torch.randn(1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
        >>> removed = Removed()
        >>> removed.add(noise, torch.ones(20, 20, 20, dtype=torch.bool))
        >>> round(removed.deviation, 1), [abs(r) < 0.05 for r in removed.in_common]
        (1.0, [True, True, True])
    """

    voxels: int = 0
    squares: float = 0.0
    pairs: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Neighbours along depth, height and width."""
    products: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def add(self, removed: Tensor, inside: Tensor) -> None:
        """Add what was removed from a part of a volume.

        Args:
            removed: (C, D, H, W), in units of sigma; values beyond ±`MOST_REMOVED` count as that.
            inside: which voxels count, (D, H, W).
        """
        values = torch.where(inside, removed, 0).clamp(-MOST_REMOVED, MOST_REMOVED)
        self.voxels += len(values) * int(inside.sum())
        self.squares += float(values.square().sum(dtype=torch.float64))
        for axis in range(3):
            length = inside.shape[axis] - 1
            here, following = (values.narrow(axis + 1, start, length) for start in (0, 1))
            both = inside.narrow(axis, 0, length) & inside.narrow(axis, 1, length)
            self.pairs[axis] += len(values) * int(both.sum())
            self.products[axis] += float((here * following).sum(dtype=torch.float64))

    @property
    def deviation(self) -> float:
        """Root mean square; 0 if nothing was added."""
        return math.sqrt(self.squares / max(self.voxels, 1))

    @property
    def in_common(self) -> list[float]:
        """Correlation of neighbours along depth, height and width; 0 where there are none."""
        square = self.deviation**2
        return [
            product / pairs / square if pairs and square else 0.0
            for product, pairs in zip(self.products, self.pairs, strict=True)
        ]


MOST_REMOVED = 4.0
