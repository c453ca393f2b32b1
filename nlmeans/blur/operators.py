"""The two filters with their derivatives. The backward pass computes weights again and does not store them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nlmeans.blur import cpu, gpu, loop
from nlmeans.blur.loop import Sizes
from nlmeans.core.axes import Axes
from nlmeans.core.modes import outside_autocast
from nlmeans.kernels.dispatch import kernel_for


def blur_locally(padded: Tensor, precision: Tensor, radius: Axes, sizes: Sizes) -> Tensor:
    """Compute `loop.blur`, differentiable with respect to the padded image and the precision."""
    result: Tensor = _LocalBlur.apply(padded, precision, radius, sizes)  # type: ignore[no-untyped-call]
    return result


class _LocalBlur(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, padded: Tensor, precision: Tensor, radius: Axes, sizes: Sizes) -> Tensor:
        trial = gpu.blur_trial(precision, padded)
        blur = kernel_for([padded], plain=loop.blur, cpu=cpu.blur, gpu=gpu.blur, trial=trial)
        result: Tensor
        result, totals = blur(padded.contiguous(), precision, radius, sizes)
        context.save_for_backward(padded, precision, result, totals)
        context.radius, context.sizes = radius, sizes
        return result

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padded, precision, result, totals = context.saved_tensors
        wanted = zip((padded, precision), context.needs_input_grad, strict=False)
        by_image, by_precision = (
            torch.zeros_like(tensor, memory_format=torch.contiguous_format) if needed else None
            for tensor, needed in wanted
        )
        trial = gpu.derivatives_trial(precision, padded)
        add_derivatives = kernel_for(
            [padded], plain=loop.derivatives, cpu=cpu.derivatives, gpu=gpu.derivatives, trial=trial
        )
        add_derivatives(
            padded.contiguous(),
            precision,
            result,
            totals,
            gradients[0],
            context.radius,
            context.sizes,
            by_image,
            by_precision,
        )
        return by_image, by_precision, None, None


def convolve(padded: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Correlate with a symmetric kernel of 2r + 1 numbers along one axis, which becomes 2r voxels shorter."""
    result: Tensor = _Convolve.apply(padded, kernel, axis)  # type: ignore[no-untyped-call]
    return result


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, padded: Tensor, kernel: Tensor, axis: int) -> Tensor:
        context.save_for_backward(padded, kernel)
        context.axis = axis
        radius, length = len(kernel) // 2, padded.shape[axis] - len(kernel) + 1
        taps = kernel.tolist()
        result: Tensor = padded.narrow(axis, radius, length) * taps[radius]
        for step, tap in enumerate(taps):
            if step != radius:
                result.add_(padded.narrow(axis, step, length), alpha=tap)
        return result

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padded, kernel = context.saved_tensors
        axis, gradient = context.axis, gradients[0]
        length = gradient.shape[axis]
        by_image = torch.zeros_like(padded) if context.needs_input_grad[0] else None
        by_kernel = torch.zeros_like(kernel) if context.needs_input_grad[1] else None
        for step, tap in enumerate(kernel.tolist()):
            if by_image is not None:
                by_image.narrow(axis, step, length).add_(gradient, alpha=tap)
            if by_kernel is not None:
                by_kernel[step] = (padded.narrow(axis, step, length) * gradient).sum()
        return by_image, by_kernel, None
