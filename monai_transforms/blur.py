"""Smoothing with a Gaussian of its own for every voxel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from torch import Tensor

from monai_transforms import images
from nlmeans.core import checks
from nlmeans.blur import PADDINGS, local_gaussian_blur

NARROW = 0.01
"""Voxels; a Gaussian with this standard deviation leaves the voxel as it is."""


class LocalGaussianSmooth(Transform):
    """Smooth an image by `nlmeans.blur.local_gaussian_blur`, with maps of how far: much here, not at all there.

    The maps are channel first like the image, so that MONAI can crop and resample them along with it. They are in mm
    with `spacing`, else in voxels, and hold for all channels of the image.

    Args:
        std_devs: standard deviations of the widest Gaussian that the kernel covers on either side, along each axis.
        kernel_size: odd number of voxels, for all axes or one per axis, instead of `std_devs`.
        spacing: voxel size in mm, one number per spatial axis; ``"affine"`` for that of each image.
        padding: ``"reflect"``, so that a constant image stays as it is, or ``"zeros"``.
        device: where to compute, such as ``"cuda"``; None for where the image lies. The result lies there in any case.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names a remedy.

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
        """Smooth an image with one of two maps.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            sigma: standard deviations of the Gaussians, 0 for none: ``(1, *spatial shape)``, or one for each of n axes,
                ``(n, *spatial shape)``.
            covariance: ``(1, *spatial shape)`` or ``(n, *spatial shape)`` variances, or matrices row by row,
                ``(n·n, *spatial shape)``.

        Returns:
            A `MetaTensor`, or a tensor if metadata are not tracked, of the image's shape, dtype, device and metadata.
        """
        image, values = images.opened(img)
        device = torch.device(self.device or values.device)
        images.check_device(device)
        result = local_gaussian_blur(
            values.to(device),
            covariance_of(sigma, covariance, image).to(device),
            spatial_dims=values.ndim - 1,
            std_devs=self.std_devs,
            kernel_size=self.kernel_size,
            spacing=images.spacing_of(img) if isinstance(self.spacing, str) else self.spacing,
            padding=self.padding,
        )
        return images.closed(result, image)


def covariance_of(sigma: NdarrayOrTensor | None, covariance: NdarrayOrTensor | None, image: Tensor) -> Tensor:
    """The map, of whichever kind, as the engine's: numbers of a voxel last, one for all channels."""
    if (sigma is None) == (covariance is None):
        raise ValueError("give sigma or covariance, one of the two: they say how far to smooth each voxel")
    axes = image.ndim - 1
    name, array, counts = (
        ("sigma", sigma, (1, axes)) if covariance is None else ("covariance", covariance, (1, axes, axes * axes))
    )
    values = images.plain(torch.as_tensor(array))
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
    """`LocalGaussianSmooth` of the images at `keys`.

    Args:
        keys: of the images.
        sigma_key: of the map of standard deviations, one for all images or one for each.
        covariance_key: of the map of covariances, likewise, instead of `sigma_key`.
        std_devs: as for `LocalGaussianSmooth`.
        kernel_size: likewise.
        spacing: likewise.
        padding: likewise.
        device: likewise.
        allow_missing_keys: whether to go on where an image is missing.

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
                f"sigma_key={sigma_key!r} and covariance_key={covariance_key!r}: give one of the two, it says how far "
                "to smooth each voxel"
            )
        self.sigma_keys = images.keys_beside("sigma_key", sigma_key, self.keys)
        self.covariance_keys = images.keys_beside("covariance_key", covariance_key, self.keys)
        self.converter = LocalGaussianSmooth(
            std_devs=std_devs, kernel_size=kernel_size, spacing=spacing, padding=padding, device=device
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, sigma_key, covariance_key in self.key_iterator(d, self.sigma_keys, self.covariance_keys):
            sigma = images.at(data, "sigma_key", sigma_key)
            d[key] = self.converter(d[key], sigma, images.at(data, "covariance_key", covariance_key))
        return d


LocalGaussianSmoothD = LocalGaussianSmoothDict = LocalGaussianSmoothd
