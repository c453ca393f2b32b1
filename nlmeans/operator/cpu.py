"""The backend `cpu`: a fused numba kernel that runs the whole loop over offsets within tiles that stay in the cache.

The volume is cut into tiles that fit into the second-level cache. A thread copies a tile of the padded guide and image
to its scratch arrays, runs the whole loop over search offsets on it, and writes the finished voxels. Main memory is
therefore read about once. Tiles follow from the shapes alone, so the result does not depend on the number of threads.

Each call starts threads of its own, for the reasons given in kernels/turns.py.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.modes import kernel_threads
from nlmeans.operator.request import Backend, Request

if TYPE_CHECKING:
    from nlmeans.operator.cpu_kernel import Scratch, TileLayout

LARGEST_CPU_PATCH_RADIUS = 3
"""Each patch radius has a kernel of its own, which is compiled at first use."""

LARGEST_TILE = 16, 16, 128
"""Voxels of a tile. Larger tiles leave the second-level cache; smaller ones compute more margins."""

LARGEST_TILE_2D = 1, 32, 128

LONGEST_RUN = 8
"""Offsets in a run, whose yz sums must stay in the second-level cache as well."""


def ceil_div(value: int, step: int) -> int:
    return -(-value // step)


def round_up(value: int, step: int) -> int:
    return ceil_div(value, step) * step


def plan_tiles(request: Request, shape: Axes) -> TileLayout:
    """Cut the result into nearly equal tiles, which follow from shapes and radii and not from the number of threads."""
    from nlmeans.kernels.vector import LANES  # imports numba
    from nlmeans.operator.cpu_kernel import PITCH_STEP, ROWS, SUM_PITCH, TileLayout

    largest_tile = LARGEST_TILE if shape[0] > 1 else LARGEST_TILE_2D
    tile_d, tile_h, tile_w = (ceil_div(n, ceil_div(n, largest)) for n, largest in zip(shape, largest_tile, strict=True))
    tile_h, tile_w = round_up(tile_h, ROWS), round_up(tile_w, LANES)
    patch, search = request.patch_radius, request.search_radius
    copy_d, copy_h, copy_w = (n + 2 * (p + s) for n, p, s in zip((tile_d, tile_h, tile_w), patch, search, strict=True))
    lead = -search[2] % LANES
    pitch = round_up(lead + copy_w + LANES, PITCH_STEP)  # vectors read beyond the end of the row
    plane = copy_h * pitch
    return TileLayout(
        tile=(tile_d, tile_h, tile_w),
        copied=(copy_d, copy_h, copy_w),
        pitch=pitch,
        plane=plane,
        channel=copy_d * plane,
        guide_channels=request.guide.shape[0],
        lead=lead,
        corner=search[0] * plane + search[1] * pitch + lead + search[2],
        to_center=patch[0] * plane + patch[1] * pitch + patch[2],
        sum_width=round_up(tile_w + 2 * patch[2], LANES),
        sum_size=tile_d * ROWS * SUM_PITCH,
        out_pitch=tile_w,
        out_plane=tile_h * tile_w,
        out_channel=tile_d * tile_h * tile_w,
        per_voxel=int(max(request.falloff.numel(), request.offset.numel()) > 1),
    )


def plan_runs(request: Request) -> npt.NDArray[np.int64]:
    """All search offsets except (0, 0, 0), as runs of neighbours along x: rows of z, y, first x, count."""
    if request.sample is not None:
        pairs = np.array([offset for offset, _ in request.sample], np.int64).reshape(-1, 3)
        offsets = np.concatenate([pairs, -pairs])
        return np.column_stack([offsets, np.ones(len(offsets), np.int64)])
    search_z, search_y, search_x = request.search_radius
    longest = LONGEST_RUN if max(request.patch_radius) > 0 else 2 * search_x + 1
    runs = []
    for z in range(-search_z, search_z + 1):
        for y in range(-search_y, search_y + 1):
            spans = [(-search_x, search_x + 1)] if z or y else [(-search_x, 0), (1, search_x + 1)]
            for first, end in spans:
                parts = ceil_div(end - first, longest)  # no parts if the window is one voxel wide
                cuts = [first + (end - first) * part // max(parts, 1) for part in range(parts + 1)]
                runs += [(z, y, start, stop - start) for start, stop in itertools.pairwise(cuts)]
    return np.array(runs, np.int64).reshape(-1, 4)


def make_scratch(request: Request, layout: TileLayout, longest_run: int) -> Scratch:
    """Allocate the arrays on which one thread works, and fill those that are the same for all tiles."""
    from nlmeans.kernels.vector import LANES  # imports numba
    from nlmeans.operator.cpu_kernel import Scratch

    channels, self_guided = request.image.shape[0], request.guide is request.image
    sizes = {
        "guide": layout.guide_channels * layout.channel,
        "image": 0 if self_guided else channels * layout.channel,
        "slopes": layout.out_channel if layout.per_voxel else LANES,
        "starts": layout.out_channel if layout.per_voxel else LANES,
        "weight_totals": layout.out_channel,
        "value_totals": channels * layout.out_channel,
        "largest_weights": layout.out_channel,
        "sums": longest_run * layout.sum_size if max(request.patch_radius) > 0 else 0,
        "weights": longest_run * layout.out_pitch,
    }
    block = np.zeros(sum(round_up(size, LANES) for size in sizes.values()) + LANES, np.float32)
    arrays, start = {}, -block.ctypes.data // block.itemsize % LANES  # aligned to cache lines
    for name, size in sizes.items():
        arrays[name] = block[start : start + size]
        start += round_up(size, LANES)
    if self_guided:
        arrays["image"] = arrays["guide"]
    if not layout.per_voxel:
        steepness = float(request.falloff.detach()) / np.log(2)
        arrays["slopes"][:] = -steepness / np.prod([2 * radius + 1 for radius in request.patch_radius])
        arrays["starts"][:] = steepness * float(request.offset.detach())
    return Scratch(**arrays)


def refusal(request: Request) -> str:
    tensors = request.image, request.guide, request.falloff, request.offset
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "it needs tensors on the CPU"
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        return f"it computes in float32, not {request.image.dtype}"
    if max(request.patch_radius) > LARGEST_CPU_PATCH_RADIUS:
        return f"its patch radius goes up to {LARGEST_CPU_PATCH_RADIUS}, not {max(request.patch_radius)}"
    return ""


def run(request: Request) -> Tensor:
    from nlmeans.operator.cpu_kernel import EXP2_TERMS, compile_kernel  # imports numba

    layout, runs = plan_tiles(request, request.shape), plan_runs(request)
    factors = np.array([n.factor for n in request.sample or ()] * 2, np.float32)
    guide, image, falloff, offset = (
        tensor.detach().contiguous().numpy()
        for tensor in (request.guide, request.image, request.falloff.reshape(-1), request.offset.reshape(-1))
    )
    out = torch.empty((image.shape[0], *request.shape), dtype=torch.float32)
    tiles = math.prod(ceil_div(n, tile) for n, tile in zip(request.shape, layout.tile, strict=True))
    threads = min(kernel_threads(), tiles)
    done, stop = np.zeros(threads, np.int64), np.zeros(1, np.bool_)
    kernel = compile_kernel(
        *request.patch_radius,
        layout.pitch,
        multichannel=max(guide.shape[0], image.shape[0]) > 1,
        has_offset=bool(offset.any()),
        track_largest=request.center == "max",
        sampled=request.sample is not None,
    )
    patch_size = math.prod(request.patch)
    least_own = np.float32({"one": 1.0, "max": request.least_own, "zero": 0.0}[request.center])

    def work(thread: int) -> None:
        scratch = make_scratch(request, layout, longest_run=int(runs[:, 3].max(initial=0)))
        kernel(
            guide, image, request.guide is request.image, falloff, offset, patch_size, least_own, layout, runs,
            factors, EXP2_TERMS, scratch, out.numpy(), thread, threads, done[thread : thread + 1], stop,
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as executor:
        try:
            pending = {executor.submit(work, thread) for thread in range(threads)}
            while pending:
                finished, pending = wait(pending, timeout=0.05, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                request.progress(int(done.sum()) / max(tiles * len(runs), 1))
        finally:
            stop[0] = True  # after an exception in a worker or in `progress`, all workers stop at their next run
    return out


def bytes_per_voxel(channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    # padded image and guide, the result, and temporary arrays of the normalisation
    return 4.0 * (5 * channels + 2 * features + 1)


CPU = Backend("cpu", "fused kernel, tile by tile in cache (numba, CPU)", refusal, run, bytes_per_voxel)
