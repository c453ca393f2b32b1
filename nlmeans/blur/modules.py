"""Layers that blur with covariances that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from nlmeans.blur.covariance import (
    COVARIANCE_TYPES,
    CovarianceLike,
    check_form,
    covariance_to_log_cholesky,
    floats,
    kernel_radius,
    log_cholesky_to_covariance,
    voxel_sizes,
)
from nlmeans.blur.exported import exported_blur
from nlmeans.blur.filters import PADDINGS, gaussian_blur, local_gaussian_blur
from nlmeans.core import checks
from nlmeans.core.modes import is_exporting


class _Blur(nn.Module):
    """Base of both layers: the parameters of one or many covariances, and the options of the blur.

    In a graph (TorchScript, ``torch.export``, ONNX), the kernel has the size that it had when the layer was made, when
    it was run last, or when parameters were loaded.
    """

    __jit_unused_properties__ = ("covariance",)

    def __init__(
        self,
        covariance: CovarianceLike,
        covariance_type: str,
        count: tuple[int, ...],
        spatial_dims: int,
        std_devs: float,
        kernel_size: int | Sequence[int] | None,
        spacing: Sequence[float] | None,
        padding: str,
    ) -> None:
        super().__init__()
        if spatial_dims not in (1, 2, 3):
            raise ValueError(f"spatial_dims={spatial_dims!r} must be 1, 2 or 3")
        self.covariance_type = checks.choice("covariance_type", covariance_type, COVARIANCE_TYPES)
        self.spatial_dims = spatial_dims
        self.std_devs = checks.positive("std_devs", std_devs)
        self.kernel_size = kernel_size
        self.spacing = spacing
        self.padding = checks.choice("padding", padding, PADDINGS)
        start = start_of(floats(covariance, "covariance").detach(), self.covariance_type, count, spatial_dims)
        self.log_cholesky = nn.Parameter(covariance_to_log_cholesky(start, self.covariance_type))
        self.sizes = list(voxel_sizes(spacing, spatial_dims))
        self.radius: list[int] = self.radius_now()
        self.register_load_state_dict_post_hook(set_radius)  # type: ignore[no-untyped-call]

    @property
    def covariance(self) -> Tensor:
        """The covariances that belong to the parameters; differentiable."""
        return log_cholesky_to_covariance(self.log_cholesky, self.covariance_type)

    def radius_now(self) -> list[int]:
        """Return the radius of the kernel along each axis, in voxels, that the parameters ask for."""
        given = self.covariance, self.covariance_type, tuple(self.sizes), self.std_devs, self.kernel_size
        return list(kernel_radius(*given))

    def forward(self, image: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.exported(image)
        if torch.jit.is_tracing() or is_exporting():
            return self.exported(image)
        self.radius = self.radius_now()
        return self.blurred(image)

    def blurred(self, image: Tensor) -> Tensor:
        """Blur with the kernels that store no weights; differentiable once."""
        raise NotImplementedError

    def exported(self, image: Tensor) -> Tensor:
        """Blur in a graph."""
        result: Tensor = exported_blur(
            image, self.log_cholesky, self.covariance_type, self.radius, self.sizes, self.padding == "zeros"
        )
        return result

    def options(self) -> dict[str, Any]:
        """Arguments of the blur other than image and covariance."""
        return {
            "spatial_dims": self.spatial_dims,
            "std_devs": self.std_devs,
            "kernel_size": self.kernel_size,
            "spacing": self.spacing,
            "padding": self.padding,
        }

    def extra_repr(self) -> str:
        return f"{self.covariance_type}, " + ", ".join(f"{name}={value!r}" for name, value in self.options().items())


class GaussianBlur(_Blur):
    """`gaussian_blur` with a covariance that is learned.

    The layer learns the parameter ``log_cholesky``, which is unconstrained (see `log_cholesky_to_covariance`). The
    property ``covariance`` returns the covariance. ``blur.requires_grad_(False)`` stops the learning.

    Args:
        spatial_dims: 1, 2 or 3.
        covariance: initial covariance: a variance, (D,) variances or a (D, D) matrix, as far as the type can express
            it; in mm² with `spacing`, otherwise in voxels².
        covariance_type: ``"spherical"``, ``"diagonal"`` or ``"full"``.
        std_devs, kernel_size, spacing, padding: as for `gaussian_blur`.

    Shape:
        Input and output: ``(..., *spatial shape)``, such as (N, C, H, W).

    Raises:
        ValueError, TypeError: the covariance is not positive definite, or the type cannot express it.

    Example:
        >>> blur = GaussianBlur(spatial_dims=2, covariance=2.0, covariance_type="diagonal")
        >>> blur(torch.rand(4, 3, 16, 16)).sum().backward()
        >>> blur.covariance.shape, blur.log_cholesky.grad.shape
        (torch.Size([2]), torch.Size([2]))
    """

    def __init__(
        self,
        spatial_dims: int,
        *,
        covariance: CovarianceLike = 1.0,
        covariance_type: str = "spherical",
        std_devs: float = 2.0,
        kernel_size: int | Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        padding: str = "reflect",
    ) -> None:
        super().__init__(covariance, covariance_type, (), spatial_dims, std_devs, kernel_size, spacing, padding)

    def blurred(self, image: Tensor) -> Tensor:
        return gaussian_blur(image, self.covariance, **self.options())


class LocalGaussianBlur(_Blur):
    """`local_gaussian_blur` with a covariance per voxel that is learned.

    All images and channels share the covariances. If a network predicts the covariances, do not use this layer: convert
    its output with `log_cholesky_to_covariance`, and pass the result to `local_gaussian_blur`.

    Args:
        spatial_shape: shape of the images, 1 to 3 axes.
        covariance: initial covariance of all voxels: a variance, (D,) variances or a (D, D) matrix; or one per voxel,
            with the spatial axes first. In mm² with `spacing`, otherwise in voxels².
        covariance_type: ``"spherical"``, ``"diagonal"`` or ``"full"``.
        std_devs, kernel_size, spacing, padding: as for `local_gaussian_blur`.

    Shape:
        Input and output: ``(..., *spatial shape)``, such as (N, C, H, W).

    Raises:
        ValueError, TypeError: a covariance is not positive definite, or the type cannot express it.

    Example:
        >>> blur = LocalGaussianBlur((16, 16), covariance=2.0, covariance_type="full")
        >>> blur(torch.rand(4, 3, 16, 16)).sum().backward()
        >>> blur.covariance.shape, blur.log_cholesky.grad.shape
        (torch.Size([16, 16, 2, 2]), torch.Size([16, 16, 3]))
    """

    def __init__(
        self,
        spatial_shape: Sequence[int],
        *,
        covariance: CovarianceLike = 1.0,
        covariance_type: str = "spherical",
        std_devs: float = 2.0,
        kernel_size: int | Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        padding: str = "reflect",
    ) -> None:
        shape = tuple(spatial_shape)
        super().__init__(covariance, covariance_type, shape, len(shape), std_devs, kernel_size, spacing, padding)

    def blurred(self, image: Tensor) -> Tensor:
        covariance = self.covariance
        lead = image.ndim - self.spatial_dims
        return local_gaussian_blur(image, covariance.reshape(*[1] * lead, *covariance.shape), **self.options())


def set_radius(layer: nn.Module, _: Any) -> None:
    """Set the radius of the kernel after parameters were loaded."""
    blur = cast(_Blur, layer)
    blur.radius = blur.radius_now()


def start_of(covariance: Tensor, covariance_type: str, count: tuple[int, ...], dimensions: int) -> Tensor:
    """Convert the initial covariance to a type that is at least as general, and repeat it for `count` voxels."""
    axes = COVARIANCE_TYPES.index(covariance_type)
    per_voxel = bool(count) and covariance.shape[: len(count)] == count and covariance.ndim >= len(count)
    given = covariance.ndim - len(count) * per_voxel
    if given > axes:
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}, which is not {covariance_type}; give covariance_type="
            + " or ".join(repr(name) for name in COVARIANCE_TYPES[min(given, 2) :])
        )
    if given == 0 and axes:
        covariance = covariance[..., None].expand((*covariance.shape, dimensions))
        given = 1
    if given == 1 and axes == 2:
        covariance = torch.diag_embed(covariance)
    check_form(covariance, covariance_type, dimensions)
    form = covariance.shape[covariance.ndim - axes :]
    return covariance.expand((*count, *form)).clone()
