"""Covariances: three types, unconstrained parameters for each, checks, kernel sizes and inverses."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nlmeans.core import arrays, checks
from nlmeans.core.arrays import ArrayT, finite_floats
from nlmeans.core.modes import outside_autocast

COVARIANCE_TYPES = ("spherical", "diagonal", "full")
"""One variance, one variance per axis, or a matrix. In this order they have 0, 1 and 2 axes."""

CovarianceLike = float | Sequence[float] | Sequence[Sequence[float]] | arrays.Array
"""A covariance as a number, as nested sequences of numbers, or as an array."""

MATRIX_AXES = {1: 1, 3: 2, 6: 3}
"""Axes of a matrix for each number of entries in its lower triangle."""

MATRICES_AT_ONCE = 2**14
"""Matrices that are inverted together in float64. So few stay in the cache, and PyTorch starts no threads for them,
which would slow down the threads that blur."""


@outside_autocast
def log_cholesky_to_covariance(parameters: ArrayT, covariance_type: str = "full") -> ArrayT:
    """Compute covariances from unconstrained parameters, which can be optimised instead of a covariance.

    For ``"full"``, Σ = L·Lᵀ with a lower triangular L. The parameters are the entries of L, with logarithms on the
    diagonal, so Σ is always positive definite. For ``"spherical"`` and ``"diagonal"`` the parameters are logarithms of
    standard deviations.

    Args:
        parameters: real numpy array or torch tensor. Any shape for ``"spherical"``; (..., D) for ``"diagonal"``;
            (..., D·(D + 1)/2) for ``"full"``, the lower triangle of L row by row: (log L₀₀, L₁₀, log L₁₁) in 2D.
        covariance_type: ``"spherical"``, ``"diagonal"`` or ``"full"``.

    Returns:
        Variances of the shape of the parameters, or matrices (..., D, D). The same kind of array as the parameters, in
        at least float32; differentiable.

    Raises:
        ValueError, TypeError: the parameters are not finite, or are not the triangle of a matrix of 1 to 3 axes.

    References:
        J. C. Pinheiro, D. M. Bates, "Unconstrained parametrizations for variance-covariance matrices", Statistics and
        Computing 6, 1996, doi:10.1007/BF00140873.

    Example:
        >>> log_cholesky_to_covariance(torch.tensor([0.0, 3.0, 0.0]))
        tensor([[ 1.,  3.],
                [ 3., 10.]])
    """
    checks.choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    values = floats(parameters, "parameters")
    if covariance_type != "full":
        return same_kind((2 * values).exp(), parameters)
    dimensions = MATRIX_AXES.get(values.shape[-1]) if values.ndim else None
    if dimensions is None:
        raise ValueError(
            f"parameters have shape {tuple(values.shape)}; the last axis must have 1, 3 or 6 numbers, the lower "
            "triangle of a matrix in 1, 2 or 3 dimensions"
        )
    row, column = torch.tril_indices(dimensions, dimensions)
    entries = torch.where((row == column).to(values.device), values.exp(), values)
    lower = values.new_zeros(*values.shape[:-1], dimensions, dimensions)
    lower[..., row, column] = entries
    return same_kind(lower @ lower.mT, parameters)


@outside_autocast
def covariance_to_log_cholesky(covariance: ArrayT, covariance_type: str = "full") -> ArrayT:
    """Compute the parameters of covariances: the inverse of `log_cholesky_to_covariance`.

    Args:
        covariance: real numpy array or torch tensor. Variances of any shape for ``"spherical"`` and ``"diagonal"``;
            matrices (..., D, D) for ``"full"``.
        covariance_type: ``"spherical"``, ``"diagonal"`` or ``"full"``.

    Returns:
        Parameters for `log_cholesky_to_covariance`. The same kind of array as the covariance, in at least float32;
        differentiable.

    Raises:
        ValueError, TypeError: a variance is not positive, or a matrix is not positive definite.

    Example:
        >>> covariance_to_log_cholesky(torch.tensor([[1.0, 3.0], [3.0, 10.0]]))
        tensor([0., 3., 0.])
    """
    checks.choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    values = floats(covariance, "covariance")
    if covariance_type != "full":
        checks.positive("covariance", float(values.detach().min()))
        return same_kind(values.log() / 2, covariance)
    if values.ndim < 2 or values.shape[-1] != values.shape[-2] or values.shape[-1] > 3:
        raise ValueError(f"covariance has shape {tuple(values.shape)}; give (..., D, D) with D = 1, 2 or 3")
    lower, failed = torch.linalg.cholesky_ex((values + values.mT) / 2)
    if failed.any():
        raise not_positive_definite()
    row, column = torch.tril_indices(*lower.shape[-2:])
    entries = lower[..., row, column]
    diagonal = (row == column).to(values.device)
    return same_kind(torch.where(diagonal, entries.where(diagonal, 1).log(), entries), covariance)


def not_positive_definite() -> ValueError:
    return ValueError(
        "covariance is not positive definite everywhere; compute it with log_cholesky_to_covariance, or add a small "
        "multiple of the identity"
    )


def floats(value: object, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Convert finite numbers to a floating-point tensor of at least float32; a tensor keeps its graph.

    Numbers that are not in an array get `dtype`, or the default type of torch.
    """
    if not isinstance(value, Tensor | np.ndarray):
        try:
            value = torch.as_tensor(value, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"{name}={value!r} must be a number, several numbers, a numpy array or a torch tensor"
            ) from None
        value = value.to(dtype or torch.get_default_dtype())
    return finite_floats(arrays.check_array(value, name), name)


def same_kind(values: Tensor, array: ArrayT) -> ArrayT:
    """Convert `values` to a numpy array if `array` is one; otherwise return the tensor."""
    return cast(ArrayT, values.detach().cpu().numpy() if isinstance(array, np.ndarray) else values)


def voxel_sizes(spacing: Sequence[float] | None, dimensions: int) -> tuple[float, ...]:
    """Size of a voxel along each axis; 1 without spacing, so that covariances are in voxels²."""
    if spacing is None:
        return (1.0,) * dimensions
    sizes = tuple(checks.positive("spacing", float(size)) for size in np.atleast_1d(cast(Any, spacing)))
    if len(sizes) != dimensions:
        raise ValueError(f"spacing={spacing} must have one number per spatial axis: {dimensions}")
    return sizes


def check_form(covariance: Tensor, covariance_type: str, dimensions: int) -> None:
    """Raise ``ValueError`` if a diagonal or matrix has the wrong size, or if a variance is not positive."""
    form = {"spherical": (), "diagonal": (dimensions,), "full": (dimensions, dimensions)}[covariance_type]
    if tuple(covariance.shape[covariance.ndim - len(form) :]) != form:
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}; the shape of a {covariance_type} one in {dimensions} "
            f"dimensions must end with {form}"
        )
    smallest = float(variances(covariance, covariance_type).min())
    if smallest < SMALLEST_VARIANCE:
        raise ValueError(
            f"covariance has a variance of {smallest:g}; it must be greater than 0, at least {SMALLEST_VARIANCE:g}"
        )


SMALLEST_VARIANCE = 1e-24
"""The inverse of this variance is still far within the range of float32."""


def variances(covariance: Tensor, covariance_type: str) -> Tensor:
    """The variances along each axis, (..., D), or the one for all axes, (..., 1)."""
    covariance = covariance.detach()
    if covariance_type == "full":
        return covariance.diagonal(dim1=-2, dim2=-1)
    return covariance if covariance_type == "diagonal" else covariance[..., None]


def kernel_radius(
    covariance: Tensor,
    covariance_type: str,
    sizes: tuple[float, ...],
    std_devs: float,
    kernel_size: int | Sequence[int] | None,
) -> tuple[int, ...]:
    """Radius of the kernel along each axis, from its size, or from `std_devs` and the largest standard deviation."""
    if kernel_size is not None:
        lengths = (
            (kernel_size,) * len(sizes) if isinstance(kernel_size, int | float | np.number) else tuple(kernel_size)
        )
        whole = all(isinstance(n, Integral) and not isinstance(n, bool) for n in lengths)
        if len(lengths) != len(sizes) or not whole or any(n < 1 or n % 2 == 0 for n in lengths):
            raise ValueError(
                f"kernel_size={kernel_size!r} must be an odd number of voxels, or one per spatial axis: {len(sizes)}"
            )
        return tuple(int(n) // 2 for n in lengths)
    checks.positive("std_devs", std_devs)
    along_axes = variances(covariance, covariance_type)
    largest = along_axes.reshape(-1, along_axes.shape[-1]).amax(0).sqrt().expand(len(sizes)).tolist()
    return tuple(
        max(1, math.ceil(std_devs * deviation / size - ROUNDING))
        for deviation, size in zip(largest, sizes, strict=True)
    )


ROUNDING = 1e-4
"""Voxels by which a kernel may fall short of `std_devs`, so that rounding of √(3²) in float32 does not enlarge it."""


def precision(covariance: Tensor, covariance_type: str) -> Tensor:
    """Inverses of covariances as entries of 3D matrices: (1, ...) if spherical, (3, ...) if diagonal, (6, ...) if full.

    The six entries are the upper triangle row by row. The entries of a 1D or 2D covariance come last. The others belong
    to axes of length 1; they are arbitrary, because they are only multiplied by 0.
    """
    if covariance_type == "spherical":
        return covariance.reciprocal()[None]
    diagonal = covariance_type == "diagonal"
    entries = covariance.movedim(-1, 0).contiguous().reciprocal() if diagonal else inverse(covariance)
    missing = (3 if diagonal else 6) - len(entries)
    return (
        torch.cat([torch.ones_like(entries[:1]).expand(missing, *entries.shape[1:]), entries]) if missing else entries
    )


def inverse(covariance: Tensor) -> Tensor:
    """The upper triangles of the inverses of symmetric matrices, (..., D, D) to (D·(D + 1)/2, ...); differentiable."""
    result: Tensor = _Inverse.apply(covariance)  # type: ignore[no-untyped-call]
    return result


class _Inverse(torch.autograd.Function):
    """`inverse` and its derivative, in closed form.

    Both are computed in float64, because the matrices of thin kernels are badly conditioned, and part by part, to save
    memory. Each operation works on the same entry of all matrices, which is faster than many products of small ones.
    """

    @staticmethod
    def forward(context: Any, covariance: Tensor) -> Tensor:
        dimensions = covariance.shape[-1]
        matrices = covariance.reshape(-1, dimensions, dimensions)
        result = covariance.new_empty(dimensions * (dimensions + 1) // 2, len(matrices))
        for first in range(0, len(matrices), MATRICES_AT_ONCE):
            part = matrices[first : first + MATRICES_AT_ONCE].double()
            entries = [(part[:, i, j] + part[:, j, i]) / 2 for i, j in upper_triangle(dimensions)]
            torch.stack(symmetric_inverse(entries), out=result[:, first : first + MATRICES_AT_ONCE])
        result = result.view(-1, *covariance.shape[:-2])
        context.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        packed: Tensor = context.saved_tensors[0]
        count, (by_packed,) = len(packed), gradients
        dimensions = MATRIX_AXES[count]
        result = packed.new_empty(packed[0].numel(), dimensions, dimensions)
        for first in range(0, len(result), MATRICES_AT_ONCE):
            part = slice(first, first + MATRICES_AT_ONCE)
            inverse, change = (tensor.reshape(count, -1)[:, part] for tensor in (packed, by_packed))
            for (i, j), value in zip(upper_triangle(dimensions), by_matrices(inverse, change), strict=True):
                result[part, i, j] = result[part, j, i] = value
        return result.view(*packed.shape[1:], dimensions, dimensions)


def upper_triangle(dimensions: int) -> list[tuple[int, int]]:
    """Row and column of each entry of the upper triangle, row by row."""
    return list(itertools.combinations_with_replacement(range(dimensions), 2))


def symmetric_inverse(entries: list[Tensor]) -> list[Tensor]:
    """The upper triangles of the inverses, from those of the matrices.

    Raises ``ValueError`` if a matrix is not positive definite.
    """
    if len(entries) == 1:
        return [1 / entries[0]]
    if len(entries) == 3:
        a, b, d = entries
        cofactors = [d, -b, a]
        determinant = a * d - b * b
        check_positive([determinant], [a * d])
    else:
        a, b, c, d, e, f = entries
        minor = a * d - b * b
        cofactors = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, minor]
        determinant = a * cofactors[0] + b * cofactors[1] + c * cofactors[2]
        check_positive([minor, determinant], [a * d, a * d * f])
    return [cofactor / determinant for cofactor in cofactors]


def check_positive(minors: list[Tensor], products: list[Tensor]) -> None:
    """Raise ``ValueError`` unless each minor is positive relative to the product of its variances (Sylvester)."""
    if not all(
        bool((minor > SINGULAR_CORRELATION * product).all()) for minor, product in zip(minors, products, strict=True)
    ):
        raise not_positive_definite()


def by_matrices(inverse: Tensor, change: Tensor) -> list[Tensor]:
    """Upper triangle of −P·G·P, for packed inverses P and the derivatives G with respect to their entries."""
    dimensions = MATRIX_AXES[len(inverse)]
    number = {pair: n for n, pair in enumerate(upper_triangle(dimensions))}
    axes = range(dimensions)

    def entry(packed: Tensor, i: int, j: int) -> Tensor:
        return packed[number[min(i, j), max(i, j)]]

    # an entry off the diagonal stands for two, which share its derivative
    halved = torch.stack([values if i == j else values / 2 for (i, j), values in zip(number, change, strict=True)])
    product = {(i, k): sum_of(entry(inverse, i, j) * entry(halved, j, k) for j in axes) for i in axes for k in axes}
    return [-sum_of(product[i, k] * entry(inverse, k, j) for k in axes) for i, j in number]


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of tensors, of which the first is overwritten."""
    return functools.reduce(torch.Tensor.add_, terms)


SINGULAR_CORRELATION = 1e-13
"""A matrix counts as singular if the determinant of its correlations is at most this."""
