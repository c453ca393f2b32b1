"""Smoothing in which each voxel has its own Gaussian."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from torch import Tensor

from monai_transforms import images
from nlmeans.blur import PADDINGS, local_gaussian_blur
from nlmeans.core import checks

NARROW = 0.01
"""Standard deviation, in voxels or mm, that replaces zero: a Gaussian so narrow leaves the voxel unchanged."""


class LocalGaussianSmooth(Transform):
    """Smooth an image by `nlmeans.blur.local_gaussian_blur`: a map gives the width of the Gaussian at each voxel.

    The map is channel first like the image, so that MONAI can crop and resample both together. Its units are mm (mm²
    for covariances) if `spacing` is given, otherwise voxels. It applies to all channels of the image.

    Args:
        std_devs: size of the kernel: the number of standard deviations of the widest Gaussian that it covers on either
            side, along each axis.
        kernel_size: size of the kernel in voxels, odd, one number for all axes or one per axis; replaces `std_devs`.
        spacing: voxel size in mm, one number per spatial axis; ``"affine"`` reads it from each image.
        padding: ``"reflect"``, which leaves a constant image unchanged, or ``"zeros"``.
        device: where to compute, such as ``"cuda"``; None for the device of the image. The result returns to the
            device of the image.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

    Example:
        >>> noisy = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> sigma = torch.cat([torch.zeros(1, 32, 16), torch.full((1, 32, 16), 2.0)], dim=-1)
        >>> smooth = LocalGaussianSmooth()(noisy, sigma=sigma)
        >>> torch.equal(smooth[..., :16], noisy[..., :16]), bool(smooth[..., 16:].std() < 0.3)
        (True, True)
    """

    backend = images.BACKEND

    def __init__(
        self,
        std_devs: float = 2.0,
        kernel_size: int | Sequence[int] | None = None,
        spacing: Sequence[float] | str | None = None,
        padding: str = "reflect",
        device: str | torch.device | None = None,
    ) -> None:
        if isinstance(spacing, str):
            checks.choice("spacing", spacing, ("affine",))
        self.std_devs = checks.positive("std_devs", std_devs)
        self.kernel_size = kernel_size if kernel_size is None or isinstance(kernel_size, int) else tuple(kernel_size)
        self.spacing = spacing if spacing is None or isinstance(spacing, str) else tuple(spacing)
        self.padding = checks.choice("padding", padding, PADDINGS)
        self.device = None if device is None else str(device)

    def __call__(
        self, img: NdarrayOrTensor, sigma: NdarrayOrTensor | None = None, covariance: NdarrayOrTensor | None = None
    ) -> Tensor:
        """Smooth an image. Give either `sigma` or `covariance`.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            sigma: standard deviations of the Gaussians, ``(1, *spatial shape)``, or ``(n, *spatial shape)`` for one per
                spatial axis. Where it is 0, voxels stay unchanged.
            covariance: covariances of the Gaussians, greater than 0: ``(1, *spatial shape)`` variances,
                ``(n, *spatial shape)`` variances along the axes, or ``(n·n, *spatial shape)`` matrices row by row.

        Returns:
            A `MetaTensor`, or a tensor if MONAI does not track metadata, with the shape, dtype, device and metadata of
            the image.

        Raises:
            ValueError, TypeError: the image or the map has the wrong shape, is not finite, or the map is out of range.
            RuntimeError: the device is a GPU, and this process is a forked worker.
        """
        image, values = images.image_and_values(img)
        device = torch.device(self.device or values.device)
        images.check_device(device)
        result = local_gaussian_blur(
            values.to(device),
            engine_covariance(sigma, covariance, image).to(device),
            spatial_dims=values.ndim - 1,
            std_devs=self.std_devs,
            kernel_size=self.kernel_size,
            spacing=images.voxel_size(img) if isinstance(self.spacing, str) else self.spacing,
            padding=self.padding,
        )
        return images.with_metadata_of(image, result)


def engine_covariance(sigma: NdarrayOrTensor | None, covariance: NdarrayOrTensor | None, image: Tensor) -> Tensor:
    """Convert either map to the covariances that the engine takes: the numbers of a voxel are last.

    Args:
        sigma: standard deviations, as for `LocalGaussianSmooth`.
        covariance: covariances, as for `LocalGaussianSmooth`.
        image: (C, H, W) or (C, D, H, W).

    Returns:
        float32, or float64 if the map is: ``(1, *spatial shape)``, ``(1, *spatial shape, n)`` or
        ``(1, *spatial shape, n, n)``, where the first axis stands for all channels.

    Raises:
        ValueError: both maps or none are given, or the map has the wrong shape, or a standard deviation is negative.
    """
    if (sigma is None) == (covariance is None):
        given = "neither of them" if sigma is None else "both"
        raise ValueError(f"got {given}; give sigma or covariance, one of the two, to say how far to smooth each voxel")
    axes = image.ndim - 1
    name, array, counts = (
        ("sigma", sigma, (1, axes)) if covariance is None else ("covariance", covariance, (1, axes, axes * axes))
    )
    values = images.without_metadata(torch.as_tensor(array))
    if values.ndim != image.ndim or values.shape[1:] != image.shape[1:] or len(values) not in counts:
        first, last = ", ".join(map(str, counts[:-1])), counts[-1]
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, but for an image of shape {tuple(image.shape)} it must have "
            f"({first} or {last}, {', '.join(map(str, image.shape[1:]))})"
        )
    values = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    if covariance is None:
        checks.not_negative("sigma", float(values.min()))
        values = values.clamp_min(NARROW).square()
    if len(values) == 1:
        return values
    values = values.movedim(0, -1)[None]
    return values if values.shape[-1] == axes else values.reshape(*values.shape[:-1], axes, axes)


class LocalGaussianSmoothd(MapTransform):
    """Apply `LocalGaussianSmooth` to the images at `keys`.

    Args:
        keys: keys of the images, channel first: (C, H, W) or (C, D, H, W).
        sigma_key: key of the map of standard deviations, one for all images or one for each.
        covariance_key: key of the map of covariances, one for all images or one for each. Give either `sigma_key` or
            `covariance_key`.
        std_devs: as for `LocalGaussianSmooth`.
        kernel_size: as for `LocalGaussianSmooth`.
        spacing: as for `LocalGaussianSmooth`.
        padding: as for `LocalGaussianSmooth`.
        device: as for `LocalGaussianSmooth`.
        allow_missing_keys: True to skip images that are missing; otherwise they are a ``KeyError``.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

    Example:
        >>> data = {"image": torch.rand(1, 16, 16), "width": torch.full((1, 16, 16), 2.0)}
        >>> smooth = LocalGaussianSmoothd("image", sigma_key="width")(data)
        >>> bool(smooth["image"].std() < data["image"].std())
        True
    """

    backend = LocalGaussianSmooth.backend

    def __init__(
        self,
        keys: KeysCollection,
        sigma_key: KeysCollection | None = None,
        covariance_key: KeysCollection | None = None,
        std_devs: float = 2.0,
        kernel_size: int | Sequence[int] | None = None,
        spacing: Sequence[float] | str | None = None,
        padding: str = "reflect",
        device: str | torch.device | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if (sigma_key is None) == (covariance_key is None):
            raise ValueError(
                f"sigma_key={sigma_key!r} and covariance_key={covariance_key!r}: give one of the two, to say how far "
                "to smooth each voxel"
            )
        self.sigma_keys = images.key_for_each("sigma_key", sigma_key, self.keys)
        self.covariance_keys = images.key_for_each("covariance_key", covariance_key, self.keys)
        self.converter = LocalGaussianSmooth(
            std_devs=std_devs, kernel_size=kernel_size, spacing=spacing, padding=padding, device=device
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary in which the images are smoothed. `data` and its arrays stay unchanged.

        Raises:
            KeyError: an image or a map is missing.
            ValueError, TypeError, RuntimeError: as for `LocalGaussianSmooth`.
        """
        d = dict(data)
        for key, sigma_key, covariance_key in self.key_iterator(d, self.sigma_keys, self.covariance_keys):
            sigma = images.value_at(data, "sigma_key", sigma_key)
            d[key] = self.converter(d[key], sigma, images.value_at(data, "covariance_key", covariance_key))
        return d


LocalGaussianSmoothD = LocalGaussianSmoothDict = LocalGaussianSmoothd
