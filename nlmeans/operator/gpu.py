"""The backend `gpu`: the whole search window in one kernel (Triton, NVIDIA).

`gpu_kernel` contains the kernel. This module decides which requests the kernel can serve and which columns of voxels it
uses, and divides long work into launches, between which it reports progress and can be cancelled.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes, window_voxels
from nlmeans.kernels.dispatch import interpreted, missing
from nlmeans.operator.request import SMALLEST_EXPONENT, Backend, Request

LARGEST_GPU_PATCH_RADIUS = 3
"""Larger patches do not fit into registers."""

WARPS_PER_BLOCK = 4

PAIRS_PER_LAUNCH = 2**35
"""Voxel pairs between two reports of progress: about 20 ms on an H200, half a second on a card thirty times slower."""

WORTH_TRYING = 2**36
"""Voxel pairs from which on it pays to try each column once. Its first use on a machine compiles it for seconds."""

VOXELS_HELD = 24
"""Largest number of voxels, in and around a column and in all features of the guide, that a lane keeps in registers
from one offset to the next. If there are more, it loads one feature at a time for every offset."""

CHANNELS_AT_ONCE = 4
"""Image channels whose sums a lane holds. For further channels the weights are computed again."""


class Column(NamedTuple):
    """The voxels of the result that one lane computes, (z, y), and how the kernel is compiled for them."""

    z: int
    y: int
    unroll: int
    """Offsets along y per pass of the unrolled loop. If there are as many as rows, registers rotate without moves."""
    registers: int


COLUMNS: dict[int, tuple[Column, ...]] = {
    0: (Column(2, 4, 4, 128), Column(2, 8, 4, 128), Column(4, 4, 4, 128)),
    1: (Column(2, 4, 3, 128), Column(2, 4, 6, 128), Column(2, 4, 3, 168)),
    2: (Column(2, 2, 2, 128), Column(2, 4, 2, 168)),
    3: (Column(1, 2, 2, 128), Column(2, 2, 2, 168)),
}
"""Columns to try for each patch radius (the largest of the three axes), with the one expected to be fastest first."""

_fastest_columns: dict[tuple[object, ...], Column] = {}
"""The fastest column for each kernel that was tried."""


def refusal(request: Request) -> str:
    if not (request.image.is_cuda or interpreted()):
        return f"the image is on the device {request.image.device}, not on a CUDA device"
    if request.image.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it computes in float32, not {str(request.image.dtype).removeprefix('torch.')}"
    if max(request.patch_radius) > LARGEST_GPU_PATCH_RADIUS:
        return f"patch_radius={request.patch_radius} goes beyond its limit of {LARGEST_GPU_PATCH_RADIUS}"
    if request.sample is not None:
        return "it computes the whole window, so samples must be None"
    return missing()


def bytes_per_voxel(channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    # padded image and guide, the result, and maps of falloff and offset
    return 4.0 * (2 * channels + features + 2)


def columns_to_try(request: Request) -> list[Column]:
    """The columns to choose from, cut to fit a result with few planes or rows."""
    depth, height, _ = request.shape
    fitting = (
        column._replace(z=column.z if column.z <= depth else 1, y=column.y if column.y <= height else 1)
        for column in COLUMNS[max(request.patch_radius)]
    )
    return list(dict.fromkeys(fitting))


class PreparedKernel:
    """The kernel with all its arguments except the column and the part of the result to compute."""

    def __init__(self, request: Request, result: Tensor) -> None:
        from nlmeans.operator.gpu_kernel import LANES_PER_WARP, nonlocal_means_kernel  # imports triton

        self.kernel = nonlocal_means_kernel
        self.shape = request.shape
        channels, self.features = len(request.image), len(request.guide)
        self.groups = math.ceil(channels / CHANNELS_AT_ONCE)
        offset = "map" if request.offset.ndim else "number" if float(request.offset.detach()) else "none"
        self.constants = {
            "CHANNELS": channels,
            "GROUP": math.ceil(channels / self.groups),
            "FEATURES": self.features,
            "SELF_GUIDED": request.image is request.guide and channels == 1,
            "FALLOFF_MAP": request.falloff.ndim > 0,
            "OFFSET": offset,
            "CENTER": request.center,
            "SMALLEST_EXPONENT": SMALLEST_EXPONENT / math.log(2),
            **dict(zip(("PZ", "PY", "PX"), request.patch_radius, strict=True)),
        }
        tensors = (request.image, request.guide, request.falloff, request.offset)
        self.tensors = (*(t.detach().contiguous() for t in tensors), result)
        self.least_own = request.least_own
        self.patch_radius, self.search_radius = request.patch_radius, request.search_radius
        self.columns_x = math.ceil(self.shape[2] / (LANES_PER_WARP.value - 2 * request.patch_radius[2]))

    def block_count(self, column: Column) -> int:
        """Number of blocks of warps that cover the result along y and z."""
        return math.ceil(self.shape[1] / (WARPS_PER_BLOCK * column.y)) * math.ceil(self.shape[0] / column.z)

    def launch(self, column: Column, first: int, count: int) -> None:
        """Start the kernel for `count` blocks from `first` on."""
        grid = (count, self.columns_x, self.groups)
        pz, py, _ = self.patch_radius
        voxels = (column.z + 2 * pz) * (column.y + 2 * py)
        held = self.features if self.features == 1 or self.features * voxels <= VOXELS_HELD else 0
        unrolled = held and self.constants["GROUP"] == 1  # with several channels it would compile for 30 s
        self.kernel[grid](
            *self.tensors,
            self.least_own,
            first,
            *self.shape,
            *self.search_radius,
            **self.constants,
            TZ=column.z,
            TY=column.y,
            HELD=held,
            UNROLL=column.unroll if unrolled else 1,
            WARPS=WARPS_PER_BLOCK,
            num_warps=WARPS_PER_BLOCK,
            maxnreg=column.registers,
            enable_fp_fusion=False,  # so that sums do not depend on the column
        )

    def key(self) -> tuple[object, ...]:
        """Everything on which the speed of a column depends, except the size of the result."""
        return (*self.constants.values(), *(t.dtype for t in self.tensors), self.tensors[0].device)


def seconds(run: Callable[[], None]) -> float:
    """Time of the second run, because the first one compiles."""
    run()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3


def fastest_column(kernel: PreparedKernel, candidates: list[Column], share: float) -> Column:
    """The candidate that computes the first `share` of the result in the least time."""
    key = (*kernel.key(), *candidates)
    if key not in _fastest_columns:

        def time_of(column: Column) -> float:
            return seconds(lambda: kernel.launch(column, 0, math.ceil(share * kernel.block_count(column))))

        _fastest_columns[key] = min(candidates, key=time_of)
    return _fastest_columns[key]


def run(request: Request) -> Tensor:
    result = request.image.new_empty(len(request.image), *request.shape)
    kernel, candidates = PreparedKernel(request, result), columns_to_try(request)
    pairs = math.prod(request.shape) * window_voxels(request.search_radius) * kernel.groups
    launches = math.ceil(pairs / PAIRS_PER_LAUNCH)

    if not result.is_cuda:  # in the interpreter of Triton
        column = candidates[0]
        for first in range(kernel.block_count(column)):
            kernel.launch(column, first, 1)
            request.progress((first + 1) / kernel.block_count(column))
        return result

    with torch.cuda.device(result.device):
        column = fastest_column(kernel, candidates, 1 / launches) if pairs >= WORTH_TRYING else candidates[0]
        bounds = [kernel.block_count(column) * n // launches for n in range(launches + 1)]
        under_way: deque[tuple[torch.cuda.Event, float]] = deque()
        for number, (first, stop) in enumerate(itertools.pairwise(bounds), start=1):
            kernel.launch(column, first, stop - first)
            finished = torch.cuda.Event(blocking=True)
            finished.record()
            under_way.append((finished, number / launches))
            if len(under_way) > 1:  # wait for this launch while the card works on the next one
                finished, fraction = under_way.popleft()
                finished.synchronize()
                request.progress(fraction)
    request.progress(1.0)
    return result


GPU = Backend("gpu", "one kernel for the whole window (Triton, NVIDIA)", refusal, run, bytes_per_voxel)
