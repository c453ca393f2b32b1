"""Gaussian kernels, and the two blur filters for arrays of any kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlmeans.blur.covariance import (
    COVARIANCE_TYPES,
    CovarianceLike,
    check_form,
    floats,
    kernel_radius,
    precision,
    same_kind,
    voxel_sizes,
)
from nlmeans.blur.loop import slopes
from nlmeans.blur.operators import blur_locally, convolve
from nlmeans.core import arrays, checks
from nlmeans.core.arrays import ArrayT, convert_like, finite_floats
from nlmeans.core.axes import Axes
from nlmeans.core.modes import outside_autocast
from nlmeans.core.padding import reflect

PADDINGS = ("reflect", "zeros")


@outside_autocast
def gaussian_kernel(
    covariance: CovarianceLike,
    spatial_dims: int | None = None,
    *,
    covariance_type: str | None = None,
    std_devs: float = 2.0,
    kernel_size: int | Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
) -> Any:
    """Compute Gaussian kernels, sampled at the centres of the voxels and normalised to a sum of 1.

    Args:
        covariance: a number, several numbers, a real numpy array or a torch tensor. For one kernel a variance, (D,)
            variances along the axes, or a (D, D) matrix. For many kernels the same with further axes in front, and
            `covariance_type`. In mm² with `spacing`, otherwise in voxels².
        spatial_dims: D, from 1 to 3; None if the covariance or the spacing determines it.
        covariance_type: ``"spherical"``, ``"diagonal"`` or ``"full"``; None for a single covariance.
        std_devs: standard deviations that the kernel covers on either side of its centre along each axis, and at least
            one voxel. For many kernels, those of the largest.
        kernel_size: odd number of voxels, one for all axes or one per axis; it replaces `std_devs`.
        spacing: voxel size in mm, one number per axis.

    Returns:
        One kernel (K₁, ..., K_D), or many with the further axes in front; all have the same size. A numpy array if the
        covariance is one, otherwise a tensor. Differentiable, but the kernel size counts as constant.

    Raises:
        ValueError, TypeError: a covariance is not positive definite, or the arguments do not fit each other.

    Example:
        >>> kernel = gaussian_kernel(1.0, spatial_dims=2)
        >>> kernel.shape, round(float(kernel.sum()), 6)
        (torch.Size([5, 5]), 1.0)
        >>> gaussian_kernel(torch.tensor([1.0, 4.0, 9.0]), 1, covariance_type="spherical", spacing=[2.0]).shape
        torch.Size([3, 7])
    """
    values = floats(covariance, "covariance")
    if covariance_type is None:
        covariance_type = single_type(values)
    checks.choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    dimensions = kernel_dimensions(values, covariance_type, spatial_dims, spacing)
    check_form(values, covariance_type, dimensions)
    sizes = voxel_sizes(spacing, dimensions)
    radius = kernel_radius(values, covariance_type, sizes, std_devs, kernel_size)

    inverse = precision(values, covariance_type)
    z, y, x = (range(-r, r + 1) for r in engine_axes(radius, 0))
    factors = [slopes(offset, engine_axes(sizes, 1.0), len(inverse)) for offset in itertools.product(z, y, x)]
    logarithms = torch.einsum("k...,ok->...o", inverse, values.new_tensor(factors))
    lengths = [2 * r + 1 for r in radius]
    kernels = logarithms.softmax(-1).reshape(*logarithms.shape[:-1], *lengths)
    return same_kind(kernels, covariance) if isinstance(covariance, np.ndarray) else kernels


@outside_autocast
def gaussian_blur(
    image: ArrayT,
    covariance: CovarianceLike,
    *,
    spatial_dims: int | None = None,
    std_devs: float = 2.0,
    kernel_size: int | Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    padding: str = "reflect",
) -> ArrayT:
    """Blur with the same Gaussian everywhere. Works axis by axis, unless the covariance is a full matrix.

    Args:
        image: real numpy array or torch tensor of shape (W,), (H, W) or (D, H, W), with further axes in front if
            `spatial_dims` is given. Computed in float32, or in float64 if its type has more digits.
        covariance: a variance, (D,) variances along the axes, or a (D, D) matrix; in mm² with `spacing`, otherwise in
            voxels².
        spatial_dims: number of spatial axes, which come last; None if all axes are spatial. The images along the other
            axes, such as batch and channels, are blurred one by one.
        std_devs: standard deviations that the kernel covers on either side of its centre along each axis.
        kernel_size: odd number of voxels, one for all axes or one per axis; it replaces `std_devs`.
        spacing: voxel size in mm, one number per spatial axis.
        padding: ``"reflect"``, which leaves a constant image unchanged, or ``"zeros"``.

    Returns:
        An array of the type, dtype, device and shape of the image. Differentiable once, with respect to image and
        covariance; the kernel size counts as constant.

    Raises:
        ValueError, TypeError: the covariance is not positive definite, or the arguments do not fit the image.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((7, 7))
        >>> image[3, 3] = 1
        >>> gaussian_blur(image, 1.0).round(2)[3]
        array([0.  , 0.02, 0.1 , 0.16, 0.1 , 0.02, 0.  ])
    """
    values, dimensions = image_values(image, spatial_dims)
    matrix = floats(covariance, "covariance", values.dtype).to(values)
    covariance_type = single_type(matrix)
    check_form(matrix, covariance_type, dimensions)
    sizes = voxel_sizes(spacing, dimensions)
    radius = kernel_radius(matrix, covariance_type, sizes, std_devs, kernel_size)
    volumes = to_volumes(values, dimensions)
    if covariance_type == "full":
        inverse = precision(matrix, "full")
        everywhere = inverse.view(-1, 1, 1, 1).expand(-1, *volumes.shape[1:])
        result = filtered(volumes, everywhere, radius, sizes, padding)
    else:
        result = pad(volumes, engine_axes(radius, 0), padding)
        per_axis = zip(matrix.expand(dimensions), sizes, radius, strict=True)
        for axis, (variance, size, reach) in enumerate(per_axis, start=4 - dimensions):
            kernel = gaussian_kernel(variance, 1, kernel_size=2 * reach + 1, spacing=[size])
            result = convolve(result, kernel, axis)
    return convert_like(result.view(values.shape), image)


@outside_autocast
def local_gaussian_blur(
    image: ArrayT,
    covariance: arrays.Array,
    *,
    spatial_dims: int | None = None,
    std_devs: float = 2.0,
    kernel_size: int | Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    padding: str = "reflect",
) -> ArrayT:
    """Blur with a different Gaussian for every voxel.

    ::

        w(i,o) = exp(−½ oᵀ Σ(i)⁻¹ o)
        out(i) = Σ_o w(i,o)·V(i+o) / Σ_o w(i,o)      o over the kernel

    The kernel of every voxel is normalised. All kernels have the size of the widest. Memory does not grow with this
    size, because weights are never stored: the backward pass computes them again. The time grows with the number of
    voxels times the size of the kernel.

    Args:
        image: real numpy array or torch tensor of shape (W,), (H, W) or (D, H, W), with further axes in front if
            `spatial_dims` is given. Computed in float32, or in float64 if its type has more digits.
        covariance: one covariance per voxel: ``(*spatial shape)`` variances, ``(*spatial shape, D)`` variances along
            the axes, or ``(*spatial shape, D, D)`` matrices; in mm² with `spacing`, otherwise in voxels². If the image
            has axes in front of the spatial ones, the covariance has them as well, with the same length or length 1.
            For example, (N, 1, H, W) is one variance per pixel of each of N images, shared by its channels.
        spatial_dims: number of spatial axes of the image, which come last; None if all axes are spatial.
        std_devs: standard deviations of the widest Gaussian that the kernel covers on either side along each axis.
        kernel_size: odd number of voxels, one for all axes or one per axis; it replaces `std_devs`. Give it when
            covariances are learned, so that the time of a step and the truncation stay the same.
        spacing: voxel size in mm, one number per spatial axis.
        padding: ``"reflect"``, which leaves a constant image unchanged, or ``"zeros"``.

    Returns:
        An array of the type, dtype, device and shape of the image. Differentiable once, with respect to image and
        covariance; the kernel size counts as constant.

    Raises:
        ValueError, TypeError: a covariance is not positive definite, or the arguments do not fit the image.

    References:
        E. Shelhamer, D. Wang, T. Darrell, "Blurring the Line Between Structure and Learning to Optimize and Adapt
        Receptive Fields", 2019, arXiv:1904.11487.

    Example:
        >>> edge = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
        >>> variance = torch.tensor([0.01, 0.01, 0.01, 1.0, 1.0, 1.0])
        >>> [round(value, 3) for value in local_gaussian_blur(edge, variance).tolist()]
        [0.0, 0.0, 0.0, 0.701, 0.946, 1.0]
    """
    values, dimensions = image_values(image, spatial_dims)
    maps = floats(covariance, "covariance").to(values)
    covariance_type = local_type(maps, values, dimensions)
    check_form(maps, covariance_type, dimensions)
    sizes = voxel_sizes(spacing, dimensions)
    radius = kernel_radius(maps, covariance_type, sizes, std_devs, kernel_size)
    lead, shape = values.ndim - dimensions, values.shape[values.ndim - dimensions :]
    inverse = precision(maps, covariance_type)
    # axes up to the last one along which covariances differ; images along the other axes share covariances
    split = max((axis + 1 for axis in range(lead) if maps.shape[axis] > 1), default=0)
    inverse = inverse.expand(-1, *values.shape[:split], *inverse.shape[1 + split :]).reshape(len(inverse), -1, *shape)
    images = values.reshape(inverse.shape[1], -1, *shape)
    blurred = [
        filtered(to_volumes(some, dimensions), inverse[:, number], radius, sizes, padding)
        for number, some in enumerate(images)
    ]
    result = torch.stack(blurred) if len(blurred) > 1 else blurred[0]
    return convert_like(result.view(values.shape), image)


def filtered(
    volumes: Tensor, inverse: Tensor, radius: tuple[int, ...], sizes: tuple[float, ...], padding: str
) -> Tensor:
    """Blur (C, D, H, W) with the inverse covariances (K, *spatial shape)."""
    inverse = inverse.reshape(len(inverse), *volumes.shape[1:])
    reach = engine_axes(radius, 0)
    return blur_locally(pad(volumes, reach, padding), inverse, reach, engine_axes(sizes, 1.0))


def engine_axes(per_axis: tuple[Any, ...], missing: Any) -> Any:
    """Complete values per axis to (depth, height, width), with `missing` in front."""
    return (missing,) * (3 - len(per_axis)) + per_axis


def pad(volumes: Tensor, radius: Axes, padding: str) -> Tensor:
    """Pad (C, D, H, W) by `radius` on both sides, by reflection or with zeros."""
    if checks.choice("padding", padding, PADDINGS) == "reflect":
        return reflect(volumes, radius)
    depth, height, width = radius
    return F.pad(volumes, (width, width, height, height, depth, depth))


def to_volumes(values: Tensor, dimensions: int) -> Tensor:
    """Convert to (C, D, H, W); an image has depth 1, and a line has depth and height 1."""
    return values.reshape(-1, *engine_axes(tuple(values.shape[values.ndim - dimensions :]), 1))


def image_values(image: arrays.Array, spatial_dims: int | None) -> tuple[Tensor, int]:
    """Check an image; return its values and the number of its spatial axes, which come last."""
    values = finite_floats(arrays.check_array(image, "image"), "image")
    if spatial_dims is None:
        if values.ndim not in (1, 2, 3):
            raise ValueError(
                f"image has {values.ndim} axes (shape {tuple(values.shape)}); give (W,), (H, W) or (D, H, W), or the "
                "number of spatial axes, which come last, as spatial_dims="
            )
        return values, values.ndim
    if spatial_dims not in (1, 2, 3) or spatial_dims > values.ndim:
        raise ValueError(
            f"spatial_dims={spatial_dims!r} must be 1, 2 or 3, and at most {values.ndim}, as many as the image has"
        )
    return values, spatial_dims


def single_type(covariance: Tensor) -> str:
    """The type of a single covariance, from its number of axes."""
    if covariance.ndim > 2:
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}; give a single one: a number, (D,) or (D, D). For "
            "many, pass covariance_type= to gaussian_kernel, or give local_gaussian_blur one per voxel"
        )
    return COVARIANCE_TYPES[covariance.ndim]


def local_type(covariance: Tensor, values: Tensor, dimensions: int) -> str:
    """The type of a map of covariances, from the number of axes that it has in addition to those of the image."""
    lead, shape = values.ndim - dimensions, tuple(values.shape)
    more = covariance.ndim - values.ndim
    fits = 0 <= more <= 2 and covariance.shape[lead : values.ndim] == values.shape[lead:]
    fits = fits and all(n in (1, m) for n, m in zip(covariance.shape[:lead], shape[:lead], strict=False))
    if not fits:
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}; for an image of shape {shape} give {shape}, "
            f"{(*shape, dimensions)} or {(*shape, dimensions, dimensions)}"
            + (", in which the axes in front of the spatial ones may also have length 1" if lead else "")
        )
    return COVARIANCE_TYPES[more]


def kernel_dimensions(
    covariance: Tensor, covariance_type: str, spatial_dims: int | None, spacing: Sequence[float] | None
) -> int:
    """The number of axes of a kernel, from the argument, the covariance or the spacing."""
    if spatial_dims is not None:
        if spatial_dims not in (1, 2, 3):
            raise ValueError(f"spatial_dims={spatial_dims!r} must be 1, 2 or 3")
        return spatial_dims
    if covariance_type != "spherical" and covariance.ndim:
        return covariance.shape[-1]
    if spacing is not None:
        return len(spacing)
    raise ValueError("a spherical covariance does not determine the number of axes; give spatial_dims= or spacing=")
