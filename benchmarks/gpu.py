"""Measure the `gpu` backend and the methods on a CUDA GPU: rates, share of the GPU's limits, seconds and memory.

Usage: python benchmarks/gpu.py [--size 256] [--out benchmarks/results] [--tiles]

The operator runs on random voxels with a 17³ window and patch radii 0 to 2. `loop` is measured with a 5³ window, as its
rate does not depend on the window. Every run checks the error relative to `loop` in float64 on a part of the result,
and that a second run gives the same bits. The filters of patches run with their kernels and in torch; in both, a kernel
matches the patches. The local blur and its derivatives run with a 13³ kernel. The methods run on the head phantom with
sigma given; those that take more than a second on 96³ are skipped on the large volume. Writes gpu.json and gpu.md.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from contenders import NOISE, noisy
from speed import machine
from speed_report import digits, table

import nlmeans
from nlmeans.blur import gpu as blur_gpu
from nlmeans.blur import loop as blur_loop
from nlmeans.core.axes import Axes, window_voxels
from nlmeans.methods.registry import single_methods
from nlmeans.operator import gpu
from nlmeans.operator.gpu import GPU
from nlmeans.operator.loop import LOOP
from nlmeans.operator.request import Request
from nlmeans.patches.bayes import gpu as bayes_gpu
from nlmeans.patches.bayes.nl_bayes import nl_bayes
from nlmeans.patches.dct.sliding import hard_threshold, wiener_filter

SLOTS_PER_PAIR = {0: 7.7, 1: 23.0 * 32 / 30}
"""Instructions per pair for a 17³ window, counted in the machine code for sm_90 (log/gpu-kernel.md) and including
idle lanes. There is no count for patch radius 2."""

KINDS = {1: "spherical", 3: "diagonal", 6: "full"}
"""Covariances of the blur, by the number of entries of their inverse."""

PREVIEWED = ("classic", "wiener", "bayes")


def request(size: int, patch: int, search: int) -> Request:
    p, s = (patch,) * 3, (search,) * 3
    generator = torch.Generator().manual_seed(patch)
    image = torch.randn(1, *(size + 2 * (patch + search),) * 3, generator=generator).cuda()
    number = torch.tensor(0.7, device="cuda")
    return Request(image, image, number, torch.zeros_like(number), p, s, "one")


def times(run: Callable[[], object], repeats: int = 7, budget: float = 6.0) -> list[float]:
    """Time each run until the GPU has finished, after one run to warm up."""
    found: list[float] = []
    for number in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if number:
            found.append(time.perf_counter() - start)
        if sum(found) > budget:
            break
    return found


def limits() -> dict[str, float]:
    """Limits of the GPU per second: instructions of single lanes, and exp2."""
    device = torch.cuda.get_device_properties(0)
    clock = getattr(device, "clock_rate", 1.98e6) * 1e3
    lanes = device.multi_processor_count * clock
    return {"slots": 128 * lanes, "exp2": 16 * lanes}


def error(of: Request) -> float:
    """Relative error with respect to `loop` in float64, on the first planes of the result."""
    planes = 8 + 2 * of.margin[0]
    image = of.image[:, :planes, : 32 + 2 * of.margin[1], : 32 + 2 * of.margin[2]].contiguous()
    part = dataclasses.replace(of, image=image, guide=image)
    double = image.double()
    wide = dataclasses.replace(part, image=double, guide=double, falloff=of.falloff.double(), offset=of.offset.double())
    expected = LOOP.run(wide)
    return float((GPU.run(part).double() - expected).norm() / expected.norm())


def measure_operator(size: int, patch: int, all_tiles: bool) -> dict[str, Any]:
    of, of_loop = request(size, patch, 8), request(size, patch, 2)
    pairs = size**3 * window_voxels(of.search_radius)
    start = time.perf_counter()
    first = GPU.run(of)
    torch.cuda.synchronize()
    first_call = time.perf_counter() - start
    host = of.image.cpu().pin_memory()

    def with_copies() -> torch.Tensor:
        image = host.to("cuda")
        return GPU.run(dataclasses.replace(of, image=image, guide=image)).cpu()

    seconds, of_loop_seconds = times(lambda: GPU.run(of)), times(lambda: LOOP.run(of_loop), 3)
    rate, peak = pairs / statistics.median(seconds), limits()
    return {
        "size": size,
        "patch_radius": patch,
        "pairs": pairs,
        "seconds": seconds,
        "with_copies": times(with_copies),
        "first_call": first_call,
        "loop_rate": size**3 * window_voxels(of_loop.search_radius) / statistics.median(of_loop_seconds),
        "share_of_slots": rate * SLOTS_PER_PAIR[patch] / peak["slots"] if patch in SLOTS_PER_PAIR else None,
        "share_of_exp2": rate * 32 / (32 - 2 * patch) / peak["exp2"],
        "error": error(of),
        "repeats": bool(torch.equal(GPU.run(of), first)),
        "tiles": {str(tile): rate_of(tile, of, pairs) for tile in gpu.COLUMNS[patch]} if all_tiles else {},
    }  # fmt: skip


def rate_of(tile: gpu.Column, of: Request, pairs: int) -> float:
    """Pairs per second with one tile, in one launch."""
    shape: Axes = of.shape
    kernel = gpu.PreparedKernel(of, of.image.new_empty(1, *shape))
    return pairs / statistics.median(times(lambda: kernel.launch(tile, 0, kernel.block_count(tile)), 3))


FILTERS: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]] = {
    "non-local Bayes, 48 patches of 4³, step 3": (lambda noisy, guide: nl_bayes(noisy, guide), "bayes.gpu.serves"),
    "non-local Bayes across, 32 patches of 3³, step 3": (
        lambda noisy, guide: nl_bayes(noisy, guide, patch=3, count=32, across=True),
        "bayes.gpu.serves",
    ),
    "non-local Bayes across, 64 patches of 4³, step 2": (
        lambda noisy, guide: nl_bayes(noisy, guide, count=64, step=2, search_radius=(5, 5, 5), across=True),
        "bayes.gpu.serves",
    ),
    "hard threshold": (lambda noisy, guide: hard_threshold(noisy, stride=1), "dct.cpu.serves"),
    "Wiener filter": (lambda noisy, guide: wiener_filter(noisy, guide), "dct.cpu.serves"),
}
"""Filters of patches, and the function whose denial leaves them to torch."""

THREADS = {32: ((1, 255), (1, 168), (2, 168), (4, 128)), 64: ((4, 255), (4, 168), (8, 168), (8, 128))}
"""Warps per group and registers per thread to try, for each size of the matrices."""


def measure_filter(size: int, name: str, all_tiles: bool) -> dict[str, Any]:
    filtered, switch = FILTERS[name]
    noisy_volume = torch.from_numpy(noisy((size,) * 3)).cuda()[None] / NOISE
    guide = hard_threshold(noisy_volume, stride=1)
    start = time.perf_counter()
    first = filtered(noisy_volume, guide)
    torch.cuda.synchronize()
    row: dict[str, Any] = {"size": size, "filter": name, "first_call": time.perf_counter() - start, "tiles": {}}
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    row["seconds"] = times(lambda: filtered(noisy_volume, guide))
    row["memory"] = torch.cuda.max_memory_allocated() - held
    row["repeats"] = bool(torch.equal(filtered(noisy_volume, guide), first))
    if all_tiles and switch.startswith("bayes"):
        for threads in zip(*THREADS.values(), strict=True):
            given = dict(zip(THREADS, threads, strict=True))
            with mock.patch.dict(bayes_gpu.GROUP_THREADS, given):
                warps, registers = given[32 if "3³" in name else 64]
                row["tiles"][f"{warps} × {registers}"] = times(lambda: filtered(noisy_volume, guide), 3)
    with mock.patch(f"nlmeans.patches.{switch}", return_value=False):
        row["torch_seconds"] = times(lambda: filtered(noisy_volume, guide), 3)
        row["difference"] = float((filtered(noisy_volume, guide) - first).abs().max())
    return row


def measure_blur(size: int, entries: int) -> dict[str, Any]:
    """Time the local blur and both derivatives with a 13³ kernel and standard deviations from 1 to 3 voxels."""
    torch.manual_seed(0)
    shape, reach, sizes = (size,) * 3, (6,) * 3, (1.0,) * 3
    padded, gradient = torch.rand(1, *(size + 12,) * 3).cuda(), torch.randn(1, *shape).cuda()
    precision = (1 + 2 * torch.rand(entries, *shape)).pow(-2).cuda()
    if entries == 6:
        precision[[1, 2, 4]] *= 0.05  # leaves the matrices positive definite
    row: dict[str, Any] = {"size": size, "entries": entries}
    results = []
    for name, kernels in (("kernel", blur_gpu), ("loop", blur_loop)):

        def derivatives(kernels: Any = kernels) -> tuple[torch.Tensor, torch.Tensor]:
            found = torch.zeros_like(padded), torch.zeros_like(precision)
            kernels.derivatives(padded, precision, *results[0], gradient, reach, sizes, *found)
            return found

        def blur(kernels: Any = kernels) -> tuple[torch.Tensor, torch.Tensor]:
            return kernels.blur(padded, precision, reach, sizes)  # type: ignore[no-any-return]

        results.append(blur())
        row[f"{name}_seconds"], row[f"{name}_derivatives"] = times(blur, 3), times(derivatives, 3)
    row["difference"] = float((results[0][0] - results[1][0]).abs().max())
    return row


def measure_method(size: int, method: str) -> dict[str, Any]:
    volume = torch.from_numpy(noisy((size,) * 3)).cuda()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    seconds = times(lambda: nlmeans.denoise(volume, NOISE, method=method), 5)
    memory = torch.cuda.max_memory_allocated() - held
    return {"size": size, "method": method, "seconds": seconds, "memory": memory}


def measure_preview(size: int, method: str) -> dict[str, Any]:
    volume = torch.from_numpy(noisy((size,) * 3)).cuda()
    seconds = times(lambda: nlmeans.preview(volume, size // 2, sigma=NOISE, method=method), 20)
    return {"size": size, "method": method, "seconds": seconds}


def middle(seconds: list[float]) -> str:
    return digits(statistics.median(seconds))


def page(found: dict[str, Any]) -> str:
    about = found["machine"]
    versions = ", ".join(f"{name} {text}" for name, text in about["versions"].items() if name != "scikit-image")
    operator = [
        [
            f"patch {2 * row['patch_radius'] + 1}³",
            middle(row["seconds"]),
            digits(row["pairs"] / statistics.median(row["seconds"]) / 1e9),
            "" if row["share_of_slots"] is None else f"{row['share_of_slots']:.0%}",
            f"{row['share_of_exp2']:.0%}",
            middle(row["with_copies"]),
            digits(row["first_call"]),
            digits(row["loop_rate"] / 1e9),
            f"{row['error']:.1e}",
        ]
        for row in found["operator"]
    ]
    filters = [
        [
            f"{row['filter']}, {row['size']}³",
            middle(row["seconds"]),
            f"{row['memory'] / 2**20:.0f}",
            middle(row["torch_seconds"]),
            f"{row['difference']:.1e}",
            "yes" if row["repeats"] else "NO",
            digits(row["first_call"]),
            ", ".join(f"{tile}: {middle(seconds)}" for tile, seconds in row["tiles"].items()),
        ]
        for row in found["filters"]
    ]
    blurs = [
        [f"{row['size']}³, {KINDS[row['entries']]}"]
        + [middle(row[key]) for key in ("kernel_seconds", "loop_seconds", "kernel_derivatives", "loop_derivatives")]
        + [f"{row['difference']:.1e}"]
        for row in found["blurs"]
    ]
    methods = [
        [
            f"`{row['method']}`, {row['size']}³",
            middle(row["seconds"]),
            f"{row['memory'] / 2**20:.0f}",
        ]
        for row in found["methods"]
    ]
    previews = [[f"`{row['method']}`", digits(1e3 * statistics.median(row["seconds"]))] for row in found["previews"]]
    size = found["operator"][0]["size"]
    repeats = "the same bits" if all(row["repeats"] for row in found["operator"]) else "DIFFERENT bits"
    head = ["", "s", "Gpairs/s", "of the instruction limit", "of the exp2 limit", "s, copies included", "first call, s",
            "`loop`, Gpairs/s", "error"]  # fmt: skip
    return "\n".join(
        [
            "# On a GPU",
            "",
            f"Made by `python benchmarks/gpu.py` on one {about['gpu']} with {about['cores']} CPU cores "
            f"({about['cpu']}); {about['system']}; {versions}; {about['date']}. Medians.",
            "",
            f"## The operator, {size}³ with a 17³ window",
            "",
            table(head, operator),
            "",
            f"The error is relative to `loop` in float64. A second run gives {repeats}. The first call compiles. "
            "The copies move the volume from pinned memory to the GPU and the result back.",
            "",
            "## Filters of patches",
            "",
            table(
                ["", "s", "memory, MiB", "s in torch", "largest difference, sigma", "same bits again", "first call, s",
                 "s by warps and registers"],
                filters,
            ),
            "",
            "## Local blur, 13³ kernel",
            "",
            table(
                ["", "s", "s by `loop`", "both derivatives, s", "by `loop`, s", "largest difference"],
                blurs,
            ),
            "",
            "## Methods",
            "",
            table(["`denoise`, sigma given", "s", "memory, MiB"], methods),
            "",
            f"## Preview of one slice of {size}³",
            "",
            table(["", "ms"], previews),
            "",
        ]
    )  # fmt: skip


@click.command()
@click.option("--size", default=256, show_default=True, help="Edge of the volume in voxels.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
@click.option("--tiles", is_flag=True, help="Also time every tile and number of warps separately.")
def main(size: int, out: Path, tiles: bool) -> None:
    """Measure and write gpu.json and gpu.md."""
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: run this benchmark on a machine with an NVIDIA GPU")
    found: dict[str, Any] = {
        "machine": machine(torch.get_num_threads()),
        "limits": limits(),
        "operator": [measure_operator(size, patch, tiles) for patch in (0, 1, 2)],
        "filters": [measure_filter(96, name, tiles) for name in FILTERS],
        "blurs": [measure_blur(128, entries) for entries in KINDS],
        "methods": [],
        "previews": [measure_preview(size, method) for method in PREVIEWED],
    }
    for edge in (96, size):
        slow = {row["method"] for row in found["methods"] if statistics.median(row["seconds"]) > 1}
        for method in single_methods():
            if method not in slow:
                found["methods"].append(measure_method(edge, method))
                (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                (out / "gpu.md").write_text(page(found), encoding="utf-8")
    click.echo(page(found))


if __name__ == "__main__":
    main()
