"""Rate of the `gpu` backend on a CUDA card, as JSON: 256³ with a 17³ window, patch radii 0 and 1, beside `loop`.

    python bench_gpu.py [--size 256] [--search 8] [--loop-search 2] [--tiles]

A rate is voxels × window / seconds. `loop` is measured with a smaller window, as its rate does not depend on it.
Checked on every run: the error against `loop` in float64 on a part, and that a second run gives the same bits.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Callable

import torch

from nlmeans.backends import gpu
from nlmeans.backends.gpu import GPU
from nlmeans.backends.loop import LOOP
from nlmeans.backends.request import Axes, Request, window_voxels

SLOTS_PER_PAIR = {0: 7.7, 1: 23.0 * 32 / 30}
"""Instructions per pair for a 17³ window, counted in the machine code for sm_90 (LOG.md), with the idle lanes."""


def request(size: int, patch: int, search: int, device: str) -> Request:
    p, s = (patch,) * 3, (search,) * 3
    padded = size + 2 * (patch + search)
    generator = torch.Generator().manual_seed(patch)
    image = torch.randn(1, padded, padded, padded, generator=generator).to(device)
    number = torch.tensor(0.7, device=device)
    return Request(image, image, number, torch.zeros_like(number), p, s, "one")


def median_seconds(run: Callable[[], object], repeats: int = 7) -> tuple[float, float]:
    """Median and spread (largest − smallest) after one run to warm up; waits for the card."""
    times = []
    for number in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if number:
            times.append(time.perf_counter() - start)
    return statistics.median(times), max(times) - min(times)


def limits() -> dict[str, object]:
    device = torch.cuda.get_device_properties(0)
    clock = getattr(device, "clock_rate", 1.98e6) * 1e3
    return {
        "device": device.name,
        "multiprocessors": device.multi_processor_count,
        "clock_GHz": clock / 1e9,
        "clock_assumed": not hasattr(device, "clock_rate"),
        "slots_T_per_s": device.multi_processor_count * 128 * clock / 1e12,
        "exp2_T_per_s": device.multi_processor_count * 16 * clock / 1e12,
    }


def error(of: Request) -> float:
    """Against `loop` in float64 on the first planes of the result."""
    planes = 8 + 2 * of.margin[0]
    image = of.image[:, :planes, : 32 + 2 * of.margin[1], : 32 + 2 * of.margin[2]].contiguous()
    part = dataclasses.replace(of, image=image, guide=image)
    double = image.double()
    wide = dataclasses.replace(part, image=double, guide=double, falloff=of.falloff.double(), offset=of.offset.double())
    expected = LOOP.run(wide)
    return float((GPU.run(part).double() - expected).norm() / expected.norm())


def measure(size: int, patch: int, search: int, loop_search: int, all_tiles: bool) -> dict[str, object]:
    of = request(size, patch, search, "cuda")
    pairs = size**3 * window_voxels(of.search_radius)
    start = time.perf_counter()
    first = GPU.run(of)
    torch.cuda.synchronize()
    first_call = time.perf_counter() - start
    seconds, spread = median_seconds(lambda: GPU.run(of))

    host = of.image.cpu().pin_memory()

    def with_copies() -> torch.Tensor:
        image = host.to("cuda")
        return GPU.run(dataclasses.replace(of, image=image, guide=image)).cpu()

    of_loop = request(size, patch, loop_search, "cuda")
    loop_seconds, _ = median_seconds(lambda: LOOP.run(of_loop), 3)
    loop_pairs = size**3 * window_voxels(of_loop.search_radius)

    peak = limits()
    floor_slots = pairs * SLOTS_PER_PAIR[patch] / (float(str(peak["slots_T_per_s"])) * 1e12)
    floor_exp = pairs * (32 / (32 - 2 * patch)) / (float(str(peak["exp2_T_per_s"])) * 1e12)
    row: dict[str, object] = {
        "size": size,
        "window": 2 * search + 1,
        "patch_radius": patch,
        "error": error(of),
        "repeats": bool(torch.equal(GPU.run(of), first)),
        "first_call_s": first_call,
        "seconds": seconds,
        "spread_s": spread,
        "Gpairs_per_s": pairs / seconds / 1e9,
        "seconds_with_copies": median_seconds(with_copies, 5)[0],
        "floor_slots_s": floor_slots,
        "floor_exp_s": floor_exp,
        "fraction_of_slots": floor_slots / seconds,
        "fraction_of_exp": floor_exp / seconds,
        "loop_Gpairs_per_s": loop_pairs / loop_seconds / 1e9,
        "tile": str([*gpu._fastest.values()][-1:]),
    }
    if all_tiles:
        row["tiles"] = {str(tile): rate(of, tile, pairs) for tile in gpu.TILES[patch]}
    return row


def rate(of: Request, tile: gpu.Tile, pairs: int) -> float:
    """Gpairs/s of a tile, in one launch."""
    shape: Axes = of.shape
    kernel = gpu.Kernel(of, of.image.new_empty(1, *shape))
    seconds, _ = median_seconds(lambda: kernel.launch(tile, 0, kernel.tiles(tile)), 3)
    return pairs / seconds / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--search", type=int, default=8)
    parser.add_argument("--loop-search", type=int, default=2)
    parser.add_argument("--tiles", action="store_true", help="time every tile by itself")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to measure")
    rows = [measure(options.size, p, options.search, options.loop_search, options.tiles) for p in (0, 1)]
    assert all(math.isfinite(float(str(row["error"]))) for row in rows)
    print(json.dumps({"limits": limits(), "runs": rows}, indent=1))


if __name__ == "__main__":
    main()
