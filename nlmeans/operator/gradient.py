"""The derivative of the operator, for every backend.

It compares the pairs of voxels again, offset by offset as `loop` does, instead of storing anything per offset,
and needs nothing of the forward pass but its result.

With g = ∂L/∂out / Σw, the derivative by a weight is e(i,j) = Σ_c g_c(i) · (V_c(j) − out_c(i)); by the
values, w(i,j) · g(i); and through the distance, −falloff · w · e, spread over the patches, to both voxels compared.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nlmeans.core.progress import silent
from nlmeans.operator.loop import compare_pairs, off_row, on_row, part_of, patch_sums, row_of
from nlmeans.operator.request import SMALLEST_EXPONENT, Backend, Request, own_weight, weight


def differentiable(request: Request, backend: Backend) -> Tensor:
    """Run `backend` so that gradients flow to image, guide, falloff and offset."""
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
        return *derivatives(request, result, gradients[0]), None, None


def survey(request: Request) -> tuple[Tensor, Tensor, Tensor]:
    """Of each voxel of the row: the sum of its weights to others, the largest of them, and the number of its offset.

    Neighbour n has the numbers 2n towards it and 2n + 1 away from it.
    """
    falloff, offset = on_row(request.falloff, request), on_row(request.offset, request)
    total = torch.zeros_like(request.guide[0]).flatten()
    largest = torch.zeros_like(total)
    which = torch.full_like(total, -1, dtype=torch.int32)
    for index, factor, here, there, distance in compare_pairs(request):
        for number, voxels in ((2 * index, here), (2 * index + 1, there)):
            weights = weight(distance, part_of(falloff, voxels), part_of(offset, voxels))
            total[voxels] += factor * weights
            which[voxels] = torch.where(weights > largest[voxels], number, which[voxels])
            largest[voxels] = torch.maximum(weights, largest[voxels])
    return total, largest, which


@torch.no_grad()
def derivatives(request: Request, result: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """∂L/∂ image, guide, falloff and offset, given ∂L/∂ result."""
    row = row_of(request)
    image, guide = request.image.flatten(1), request.guide.flatten(1)
    falloff, offset = on_row(request.falloff, request), on_row(request.offset, request)
    total, largest, nearest = survey(request)
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
            weights = weight(distance, slope, part_of(offset, receiver))
            by_image[:, giver] += factor * weights * scaled[:, receiver]
            by_weight = factor * ((scaled[:, receiver] * image[:, giver]).sum(0) - mean[receiver])
            if request.center == "max":
                by_weight += by_own_weight[receiver] * (nearest[receiver] == number)
            by_exponent = weights * by_weight * ((excess > 0) & (slope * excess < -SMALLEST_EXPONENT))
            by_falloff[receiver] -= by_exponent * excess
            by_offset[receiver] += by_exponent * slope
            by_distance -= by_exponent * slope

        by_square = patch_sums(spread, other, request.patch_radius, row.strides)
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
