"""The derivative of the operator, for every backend.

The backward pass compares the pairs of voxels again, offset by offset as `loop` does, and stores nothing per offset. It
needs only the result of the forward pass.

With g = ∂L/∂out / Σw, the derivatives are:

- with respect to a weight, e(i,j) = Σ_c g_c(i) · (V_c(j) − out_c(i));
- with respect to a value V(j), w(i,j) · g(i);
- with respect to a distance, −falloff · w · e, which is spread over the patches of both voxels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nlmeans.core.modes import outside_autocast
from nlmeans.core.progress import silent
from nlmeans.operator.loop import compare_pairs, off_row, on_row, part_of, row_of, sum_patches_on_row
from nlmeans.operator.request import SMALLEST_EXPONENT, Backend, Request, own_weight, weight_from_distance


def differentiable(request: Request, backend: Backend) -> Tensor:
    """Run `backend` such that the result is differentiable in image, guide, falloff and offset."""
    inputs = (request.image, request.guide, request.falloff, request.offset)
    result: Tensor = _Operator.apply(*inputs, request, backend)  # type: ignore[no-untyped-call]
    return result


class _Operator(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, image: Tensor, guide: Tensor, falloff: Tensor, offset: Tensor, request: Request, backend: Backend
    ) -> Tensor:
        result = backend.run(request)
        context.save_for_backward(image, guide, falloff, offset, result)
        context.request = dataclasses.replace(request, progress=silent)
        return result

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        image, guide, falloff, offset, result = context.saved_tensors
        request = dataclasses.replace(context.request, image=image, guide=guide, falloff=falloff, offset=offset)
        return *operator_derivatives(request, result, gradients[0]), None, None


def weight_statistics(request: Request) -> tuple[Tensor, Tensor, Tensor]:
    """For each voxel of the row, sum the weights of its neighbours, and find the largest weight and its neighbour.

    The neighbour is returned as a number: 2n at the nth offset, 2n + 1 at the opposite offset, -1 for none.
    """
    falloff, offset = on_row(request.falloff, request), on_row(request.offset, request)
    total = torch.zeros_like(request.guide[0]).flatten()
    largest = torch.zeros_like(total)
    which = torch.full_like(total, -1, dtype=torch.int32)
    for index, factor, here, there, distance in compare_pairs(request):
        for number, voxels in ((2 * index, here), (2 * index + 1, there)):
            weights = weight_from_distance(distance, part_of(falloff, voxels), part_of(offset, voxels))
            total[voxels] += factor * weights
            which[voxels] = torch.where(weights > largest[voxels], number, which[voxels])
            largest[voxels] = torch.maximum(weights, largest[voxels])
    return total, largest, which


@outside_autocast
@torch.no_grad()
def operator_derivatives(request: Request, result: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """∂L/∂ image, guide, falloff and offset, given ∂L/∂ result."""
    row = row_of(request)
    image, guide = request.image.flatten(1), request.guide.flatten(1)
    falloff, offset = on_row(request.falloff, request), on_row(request.offset, request)
    total, largest, nearest = weight_statistics(request)
    own = own_weight(largest, request)
    total = total + own

    scaled = on_row(gradient, request) / total
    mean = (scaled * on_row(result, request)).sum(0)
    by_own_weight = ((scaled * image).sum(0) - mean) * (own > request.least_own)
    by_image, by_guide = own * scaled, torch.zeros_like(guide)
    by_falloff, by_offset = torch.zeros_like(total), torch.zeros_like(total)

    reach = row.step(request.patch_radius)
    scratch = total.new_empty(2, row.length + 4 * reach)
    for index, factor, here, there, distance in compare_pairs(request):
        pairs = distance.numel()
        spread, other = scratch[:, : pairs + 4 * reach]
        by_distance = spread.zero_()[2 * reach : 2 * reach + pairs]
        for number, receiver, giver in ((2 * index, here, there), (2 * index + 1, there, here)):
            slope, excess = part_of(falloff, receiver), distance - part_of(offset, receiver)
            weights = weight_from_distance(distance, slope, part_of(offset, receiver))
            by_image[:, giver] += factor * weights * scaled[:, receiver]
            by_weight = factor * ((scaled[:, receiver] * image[:, giver]).sum(0) - mean[receiver])
            if request.center == "max":
                by_weight += by_own_weight[receiver] * (nearest[receiver] == number)
            by_exponent = weights * by_weight * ((excess > 0) & (slope * excess < -SMALLEST_EXPONENT))
            by_falloff[receiver] -= by_exponent * excess
            by_offset[receiver] += by_exponent * slope
            by_distance -= by_exponent * slope

        by_square = sum_patches_on_row(spread, other, request.patch_radius, row.strides)
        near = slice(here.start - reach, here.stop + reach)
        far = slice(there.start - reach, there.stop + reach)
        change = by_square * (guide[:, near] - guide[:, far]) * (2 / math.prod(request.patch))
        by_guide[:, near] += change
        by_guide[:, far] -= change

    def of_parameter(row_values: Tensor, parameter: Tensor) -> Tensor:
        values = off_row(row_values, request)
        return values.sum() if parameter.ndim == 0 else values

    return (
        by_image.view_as(request.image),
        by_guide.view_as(request.guide),
        of_parameter(by_falloff, request.falloff),
        of_parameter(by_offset, request.offset),
    )
