"""Metrics of noise for MONAI's evaluation: sigma, and signal and contrast relative to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction
from torch import Tensor

from monai_transforms import images
from monai_transforms.noise import EstimateNoise
from nlmeans.core import checks


class SigmaMetric(CumulativeIterationMetric):
    """Measure sigma, the standard deviation of the noise, by `nlmeans.estimate_sigma`, in image units.

    A call takes images `y_pred`, (B, C, H, W) or (B, C, D, H, W) or a list of images without B, and nothing or labels
    `y`, as `SNRMetric` takes them. It returns (B, C). ``aggregate()`` reduces the values of all calls since
    ``reset()``.

    Args:
        noise: ``"gaussian"``; ``"rician"`` or ``"chi"`` for MR magnitude images; or ``"auto"`` for whichever of these
            the image speaks for.
        noise_label: label of a region of `y` without structure, whose standard deviation is taken for sigma. None
            estimates sigma from the whole image, without `y`.
        reduction: as for all metrics of MONAI: ``"mean"`` over batch and channels, ``"mean_batch"``, ``"none"``, …
            Values that are NaN are left out.
        get_not_nans: True for ``aggregate()`` to return also how many values are not NaN.

    Raises:
        ValueError: an argument is out of range, or the images or labels have the wrong shape or are missing.

    Example:
        >>> metric = SigmaMetric()
        >>> noisy = 100 + 5 * torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> tuple(metric(noisy).shape), round(metric.aggregate().item(), 1)
        ((2, 1), 5.0)
    """

    def __init__(
        self,
        noise: str = "gaussian",
        noise_label: int | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__()
        self.estimator = EstimateNoise(noise)
        self.noise_label = None if noise_label is None else checks.whole("noise_label", noise_label)
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Reduce the values of all images since ``reset()``.

        Args:
            reduction: replaces that of the constructor.

        Raises:
            ValueError: no image was measured.
        """
        values = self.get_buffer()  # type: ignore[no-untyped-call]
        if not torch.is_tensor(values):
            raise ValueError("no image was measured; call the metric with images before aggregate()")
        reduced, not_nans = do_metric_reduction(values, reduction or self.reduction)
        return (reduced, not_nans) if self.get_not_nans else reduced

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        batch, labels = images.without_metadata(y_pred), checked_labels(y_pred, y)
        sigma = self.sigma_of(batch, labels)
        return self.measure(batch, labels, sigma)

    def sigma_of(self, batch: Tensor, labels: Tensor | None) -> Tensor:
        """Return sigma of each image and channel, (B, C)."""
        if self.noise_label is not None:
            return std_in(batch, where(labels, self.noise_label))
        with images.quietly():
            each = [self.estimator.estimate(image) for image in batch]
        return torch.tensor(each, dtype=torch.float32, device=batch.device).reshape(batch.shape[:2])

    def measure(self, batch: Tensor, labels: Tensor | None, sigma: Tensor) -> Tensor:
        """Return the value of each image and channel, (B, C)."""
        return sigma


class SNRMetric(SigmaMetric):
    """Measure the signal-to-noise ratio (SNR): the mean of a region, divided by sigma.

    A call takes images `y_pred`, (B, C, H, W) or (B, C, D, H, W), and labels `y`, (B, 1, H, W) or (B, 1, D, H, W), or
    lists of either without B. It returns (B, C): NaN for an image without the region, infinity for one without noise.

    A blur raises it too, so a higher SNR alone does not make a better image.

    Args:
        label: label of the region.
        noise, noise_label, reduction, get_not_nans: as for `SigmaMetric`.

    Raises:
        ValueError: an argument is out of range, or the images or labels have the wrong shape or are missing.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> snr = SNRMetric(label=1)
        >>> _ = snr(noisy, torch.ones(1, 1, 32, 32, 32))
        >>> round(snr.aggregate().item())
        20
    """

    def __init__(
        self,
        label: int = 1,
        noise: str = "gaussian",
        noise_label: int | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(noise, noise_label, reduction, get_not_nans)
        self.label = checks.whole("label", label)

    def measure(self, batch: Tensor, labels: Tensor | None, sigma: Tensor) -> Tensor:
        return mean_in(batch, where(labels, self.label)) / sigma


class CNRMetric(SigmaMetric):
    """Measure the contrast-to-noise ratio (CNR): the difference between the means of two regions, divided by sigma.

    A call takes and returns the same as one of `SNRMetric`. The difference has no sign.

    Args:
        labels: labels of the two regions.
        noise, noise_label, reduction, get_not_nans: as for `SigmaMetric`.

    Raises:
        ValueError: an argument is out of range, or the images or labels have the wrong shape or are missing.

    Example:
        >>> labels = torch.ones(1, 1, 32, 32, 32)
        >>> labels[..., :16] = 2
        >>> noisy = 100 * labels + 5 * torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
        >>> cnr = CNRMetric(labels=(1, 2), noise_label=1)
        >>> _ = cnr(noisy, labels)
        >>> round(cnr.aggregate().item())
        20
    """

    def __init__(
        self,
        labels: Sequence[int] = (1, 2),
        noise: str = "gaussian",
        noise_label: int | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(noise, noise_label, reduction, get_not_nans)
        if len(labels) != 2 or labels[0] == labels[1]:
            raise ValueError(f"labels={labels!r} must be two different labels, such as (1, 2)")
        self.labels = tuple(checks.whole("labels", label) for label in labels)

    def measure(self, batch: Tensor, labels: Tensor | None, sigma: Tensor) -> Tensor:
        first, second = (mean_in(batch, where(labels, label)) for label in self.labels)
        return (first - second).abs() / sigma


def checked_labels(batch: Tensor, labels: Tensor | None) -> Tensor | None:
    """Check images and labels, and return the labels without metadata."""
    if batch.ndim not in (4, 5):
        raise ValueError(f"y_pred has shape {tuple(batch.shape)}; give images, (B, C, H, W) or (B, C, D, H, W)")
    if labels is None:
        return None
    wanted = (len(batch), 1, *batch.shape[2:])
    if tuple(labels.shape) != wanted:
        raise ValueError(
            f"y has shape {tuple(labels.shape)}, but the images need labels of shape {wanted}; one-hot labels become "
            "such with y.argmax(1, keepdim=True)"
        )
    return images.without_metadata(labels).to(batch.device)


def where(labels: Tensor | None, label: int) -> Tensor:
    """Return a mask of the voxels with a label, (B, 1, *spatial)."""
    if labels is None:
        raise ValueError(f"y is missing; give the labels of the voxels as y, to find the region with label {label}")
    return labels == label


def mean_in(batch: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over a region of each image and channel, (B, C), in float64; NaN where there is none.

    >>> mean_in(torch.tensor([[[1, 2, 4]]]), torch.tensor([[[True, False, True]]])).item()
    2.5
    """
    values = batch.double().where(mask, 0.0)
    return values.flatten(2).sum(-1) / mask.flatten(2).sum(-1)


def std_in(batch: Tensor, mask: Tensor) -> Tensor:
    """Return the standard deviation in a region of each image and channel, (B, C), in float64."""
    middle = mean_in(batch, mask)
    centred = batch.double() - middle.reshape(*middle.shape, *(1,) * (batch.ndim - 2))
    return mean_in(centred.square(), mask).sqrt()
