"""The blurs of both layers for graphs: TorchScript, ``torch.export`` and ONNX run neither compiled kernels nor checks.

The functions are written so that TorchScript compiles them, and that no shape is fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def exported_blur(
    image: Tensor, log_cholesky: Tensor, kind: str, radius: list[int], sizes: list[float], zeros: bool
) -> Tensor:
    """Compute `local_gaussian_blur`, or `gaussian_blur` for a single covariance, up to rounding.

    Args:
        image: (..., *spatial shape), floating point.
        log_cholesky: the parameters of the covariances, as `log_cholesky_to_covariance` takes them: of one, or of all
            voxels, with the spatial axes first.
        kind: ``"spherical"``, ``"diagonal"`` or ``"full"``.
        radius: radius of the kernel along each spatial axis, in voxels.
        sizes: size of a voxel along each spatial axis.
        zeros: whether the image is padded with zeros, instead of by reflection.
    """
    dimensions = len(radius)
    # everything is (C, D, H, W), and the kernel's axes in front are of one voxel
    shape = [-1] + [1] * (3 - dimensions)
    for axis in range(dimensions):
        shape.append(image.shape[image.ndim - dimensions + axis])
    reach = [0] * (3 - dimensions) + radius
    size = [1.0] * (3 - dimensions) + sizes
    values = image.to(torch.promote_types(image.dtype, torch.float32)).reshape(shape)
    padded = values
    for axis in range(3):
        padded = padded_axis(padded, axis + 1, reach[axis], zeros)
    whitener = inverse_cholesky(log_cholesky.to(values.dtype), kind, dimensions)
    total = torch.zeros_like(values[:1])
    change = torch.zeros_like(values)
    d, h, w = values.shape[1], values.shape[2], values.shape[3]
    for z in range(2 * reach[0] + 1):
        for y in range(2 * reach[1] + 1):
            for x in range(2 * reach[2] + 1):
                offset = [(z - reach[0]) * size[0], (y - reach[1]) * size[1], (x - reach[2]) * size[2]]
                weight = torch.exp(-0.5 * squared_length(whitener, offset))
                shifted = padded.narrow(1, z, d).narrow(2, y, h).narrow(3, x, w)
                change = change + weight * (shifted - values)  # differences leave a constant image unchanged
                total = total + weight
    return (values + change / total).reshape(image.shape).to(image.dtype)


def padded_axis(values: Tensor, axis: int, reach: int, zeros: bool) -> Tensor:
    """Pad one axis on both sides, by reflection or with zeros."""
    if reach == 0:
        return values
    length = values.shape[axis]
    place = torch.arange(-reach, length + reach, device=values.device)
    if zeros:
        inside = (place >= 0) & (place < length)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        return values.index_select(axis, place.clamp(0, length - 1)) * inside.to(values.dtype).reshape(shape)
    place = place.abs()
    for _ in range(reach):  # an axis shorter than the margin is reflected repeatedly
        place = (length - 1 - (length - 1 - place).abs()).abs()
    return values.index_select(axis, place.clamp(0, length - 1))


def inverse_cholesky(log_cholesky: Tensor, kind: str, dimensions: int) -> list[Tensor]:
    """Return the lower triangle of L⁻¹ for Σ = L·Lᵀ, row by row: 6 entries for 3 axes, of which missing ones are 0.

    Each has the shape (*spatial shape) of the parameters, with axes of length 1 in front to make three.
    """
    if kind == "spherical":
        rows = [torch.exp(-log_cholesky)] * dimensions
    elif kind == "diagonal":
        rows = [torch.exp(-log_cholesky[..., axis]) for axis in range(dimensions)]
    else:
        diagonal = [0, 2, 5]
        rows = [torch.exp(-log_cholesky[..., diagonal[axis]]) for axis in range(dimensions)]
    lead = [1] * (3 - dimensions)
    if rows[0].ndim == 0:
        lead = [1, 1, 1]
    rows = [row.reshape(lead + list(row.shape)) for row in rows]
    none = torch.zeros_like(rows[0])
    first = 3 - dimensions
    result = [none] * 6
    places = [0, 2, 5]
    for axis in range(dimensions):
        result[places[first + axis]] = rows[axis]
    if kind == "full" and dimensions > 1:
        entries = [log_cholesky[..., k].reshape(list(none.shape)) for k in range(log_cholesky.shape[-1])]
        if dimensions == 2:
            result[4] = -entries[1] * result[2] * result[5]
        else:
            result[1] = -entries[1] * result[0] * result[2]
            result[4] = -entries[4] * result[2] * result[5]
            result[3] = -(entries[3] * result[0] + entries[4] * result[1]) * result[5]
    return result


def squared_length(whitener: list[Tensor], offset: list[float]) -> Tensor:
    """Compute oᵀ Σ⁻¹ o, the square of L⁻¹·o."""
    z, y, x = offset[0], offset[1], offset[2]
    first = whitener[0] * z
    second = whitener[1] * z + whitener[2] * y
    third = whitener[3] * z + whitener[4] * y + whitener[5] * x
    return first * first + second * second + third * third
