"""`gpu`: the whole search window in one kernel (Triton, NVIDIA).

`gpu_kernel` has the kernel and why it is fast. Here is what surrounds it: which requests it can serve, how large the
column of a lane is, and launches short enough to report progress and to be cancelled between them.
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

LARGEST_PATCH_RADIUS = 3
"""Registers hold no larger one."""

WARPS = 4
LANES = 32

PAIRS_PER_LAUNCH = 2**35
"""Voxel pairs between two reports: about 20 ms on an H200, half a second on a card thirty times slower."""

WORTH_TRYING = 2**36
"""Voxel pairs from which trying each tile once pays; compiling one takes seconds the first time on a machine."""

VOXELS_HELD = 24
"""Voxels around a column, of all features of a guide, that a lane holds in registers from one offset to the next. Of
more than that, those of one feature at a time are loaded for every offset."""

CHANNELS_AT_ONCE = 4
"""Channels whose sums a lane holds; for more of them the weights are computed again."""


class Tile(NamedTuple):
    """What one lane owns, and how it is compiled."""

    z: int
    y: int
    unroll: int
    """Offsets along y per pass of the loop; as many as rows in the column let registers rotate without moves."""
    registers: int


TILES: dict[int, tuple[Tile, ...]] = {
    0: (Tile(2, 4, 4, 128), Tile(2, 8, 4, 128), Tile(4, 4, 4, 128)),
    1: (Tile(2, 4, 3, 128), Tile(2, 4, 6, 128), Tile(2, 4, 3, 168)),
    2: (Tile(2, 2, 2, 128), Tile(2, 4, 2, 168)),
    3: (Tile(1, 2, 2, 128), Tile(2, 2, 2, 168)),
}
"""By the largest patch radius, the one expected to be fastest first."""

_fastest: dict[tuple[object, ...], Tile] = {}


def refusal(request: Request) -> str:
    if not (request.image.is_cuda or interpreted()):
        return f"the image is on the device {request.image.device}, not on a CUDA device"
    if request.image.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it computes in float32, not {str(request.image.dtype).removeprefix('torch.')}"
    if max(request.patch_radius) > LARGEST_PATCH_RADIUS:
        return f"patch_radius={request.patch_radius} is larger than {LARGEST_PATCH_RADIUS}"
    if request.sample is not None:
        return "it visits the whole window, not a sample of it"
    return missing()


def bytes_per_voxel(channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    # padded image and guide, the result, and maps of falloff and offset
    return 4.0 * (2 * channels + features + 2)


def tiles(request: Request) -> list[Tile]:
    """The tiles to choose from, made to fit a result with few planes or lines."""
    depth, height, _ = request.shape
    fitting = (
        tile._replace(z=tile.z if tile.z <= depth else 1, y=tile.y if tile.y <= height else 1)
        for tile in TILES[max(request.patch_radius)]
    )
    return list(dict.fromkeys(fitting))


class Kernel:
    """The kernel with all its arguments but the tile and where to start."""

    def __init__(self, request: Request, result: Tensor) -> None:
        from nlmeans.operator.gpu_kernel import nonlocal_means  # imports triton

        self.kernel = nonlocal_means
        self.shape = request.shape
        channels, self.features = len(request.image), len(request.guide)
        self.groups = math.ceil(channels / CHANNELS_AT_ONCE)
        offset = "map" if request.offset.ndim else "number" if float(request.offset) else "none"
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
        self.columns_x = math.ceil(self.shape[2] / (LANES - 2 * request.patch_radius[2]))

    def tiles(self, tile: Tile) -> int:
        """Number of tiles in a result, along y and z."""
        return math.ceil(self.shape[1] / (WARPS * tile.y)) * math.ceil(self.shape[0] / tile.z)

    def launch(self, tile: Tile, first: int, count: int) -> None:
        grid = (count, self.columns_x, self.groups)
        pz, py, _ = self.patch_radius
        voxels = (tile.z + 2 * pz) * (tile.y + 2 * py)
        held = self.features if self.features == 1 or self.features * voxels <= VOXELS_HELD else 0
        self.kernel[grid](
            *self.tensors,
            self.least_own,
            first,
            *self.shape,
            *self.search_radius,
            **self.constants,
            TZ=tile.z,
            TY=tile.y,
            HELD=held,
            UNROLL=tile.unroll if held and self.constants["GROUP"] == 1 else 1,  # of many channels it compiles for 30 s
            WARPS=WARPS,
            num_warps=WARPS,
            maxnreg=tile.registers,
            enable_fp_fusion=False,  # sums must not depend on the tile
        )

    def key(self) -> tuple[object, ...]:
        return (*self.constants.values(), *(t.dtype for t in self.tensors), self.tensors[0].device)


def seconds(run: Callable[[], None]) -> float:
    """Time of the second run; the first one compiles."""
    run()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3


def fastest(kernel: Kernel, candidates: list[Tile], share: float) -> Tile:
    """Of the candidates, the one that takes least for the first `share` of the result."""
    key = (*kernel.key(), *candidates)
    if key not in _fastest:

        def time_of(tile: Tile) -> float:
            return seconds(lambda: kernel.launch(tile, 0, math.ceil(share * kernel.tiles(tile))))

        _fastest[key] = min(candidates, key=time_of)
    return _fastest[key]


def run(request: Request) -> Tensor:
    result = request.image.new_empty(len(request.image), *request.shape)
    kernel, candidates = Kernel(request, result), tiles(request)
    pairs = math.prod(request.shape) * window_voxels(request.search_radius) * kernel.groups
    launches = math.ceil(pairs / PAIRS_PER_LAUNCH)

    if not result.is_cuda:  # through the interpreter
        tile = candidates[0]
        for first in range(kernel.tiles(tile)):
            kernel.launch(tile, first, 1)
            request.progress((first + 1) / kernel.tiles(tile))
        return result

    with torch.cuda.device(result.device):
        tile = fastest(kernel, candidates, 1 / launches) if pairs >= WORTH_TRYING else candidates[0]
        bounds = [kernel.tiles(tile) * n // launches for n in range(launches + 1)]
        under_way: deque[tuple[torch.cuda.Event, float]] = deque()
        for number, (first, stop) in enumerate(itertools.pairwise(bounds), start=1):
            kernel.launch(tile, first, stop - first)
            finished = torch.cuda.Event(blocking=True)
            finished.record()
            under_way.append((finished, number / launches))
            if len(under_way) > 1:  # the card has the next launch to work on while this one is waited for
                finished, fraction = under_way.popleft()
                finished.synchronize()
                request.progress(fraction)
    request.progress(1.0)
    return result


GPU = Backend("gpu", "one kernel for the whole window (Triton, NVIDIA)", refusal, run, bytes_per_voxel)
