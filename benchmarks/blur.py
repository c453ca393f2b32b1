"""Compare time and memory of the local blur with the im2col version, and report the error of the recovery example.

Usage: python benchmarks/blur.py [--quick] [--out benchmarks/results/blur.md] [--threads 2]

- Times: forward and backward to image and covariance, in one process; both versions take turns, and the first round,
  which compiles, is not counted. The peer is `im2col`: the stacked kernels of all pixels times the columns that
  `unfold` makes, in float32, with autograd.
- Memory: one run in a fresh process, after a warm-up on a small volume. It is the largest resident memory, sampled from
  outside every millisecond, minus the memory in use before, which includes image and covariance. So it counts the
  result and both derivatives.
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import runpy
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import psutil
import torch
import torch.nn.functional as F
from fresh_process import measured_alone
from torch import Tensor

from nlmeans.blur import gaussian_blur, gaussian_kernel, local_gaussian_blur

ROOT = Path(__file__).parents[1]
KERNEL_SIZE = 13


def covariances(shape: tuple[int, ...], covariance_type: str) -> Tensor:
    """Draw covariances with standard deviations from 1 to 3 voxels."""
    dimensions = len(shape)
    deviations = 1 + 2 * torch.rand(*shape, dimensions, generator=torch.Generator().manual_seed(1))
    if covariance_type == "spherical":
        return deviations[..., 0].square()
    if covariance_type == "diagonal":
        return deviations.square()
    turn = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(2)))[0]
    return turn @ torch.diag_embed(deviations.square()) @ turn.T


def im2col(image: Tensor, covariance: Tensor) -> Tensor:
    """Blur as research code does it: in 2D, with zero padding. This is the peer."""
    covariance_type = {0: "spherical", 1: "diagonal", 2: "full"}[covariance.ndim - 2]
    form = covariance.shape[2:]
    kernels = gaussian_kernel(
        covariance.reshape(-1, *form), 2, covariance_type=covariance_type, kernel_size=KERNEL_SIZE
    )
    columns = F.unfold(image[None, None], KERNEL_SIZE, padding=KERNEL_SIZE // 2)[0].T
    return (columns * kernels.flatten(1)).sum(1).view(image.shape)


def ours(image: Tensor, covariance: Tensor) -> Tensor:
    return local_gaussian_blur(image, covariance, kernel_size=KERNEL_SIZE, padding="zeros")


def there_and_back(blur: Callable[[Tensor, Tensor], Tensor], image: Tensor, covariance: Tensor) -> Tensor:
    result = blur(image, covariance)
    result.backward(torch.ones_like(result))
    return result


def inputs(shape: tuple[int, ...], covariance_type: str) -> tuple[Tensor, Tensor]:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return image.requires_grad_(), covariances(shape, covariance_type).requires_grad_()


def race(shape: tuple[int, ...], covariance_type: str, rounds: int) -> dict[str, list[float]]:
    """Time both versions in turns, in seconds."""
    runs: dict[str, list[float]] = {"im2col": [], "nlmeans": []}
    for _ in range(rounds + 1):
        for name, blur in (("im2col", im2col), ("nlmeans", ours)):
            image, covariance = inputs(shape, covariance_type)
            start = time.perf_counter()
            result = there_and_back(blur, image, covariance)
            runs[name].append(time.perf_counter() - start)
            if name == "im2col":
                expected = result
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    return {name: seconds[1:] for name, seconds in runs.items()}


def prepared(side: int, covariance_type: str, threads: int) -> Callable[[], tuple[float, float]]:
    """Prepare a run that returns its seconds and processor seconds."""
    torch.set_num_threads(threads)
    there_and_back(ours, *inputs((16, 16, 16), covariance_type))
    image, covariance = inputs((side,) * 3, covariance_type)

    def run() -> tuple[float, float]:
        start, processor = time.perf_counter(), time.process_time()
        there_and_back(ours, image, covariance)
        return time.perf_counter() - start, time.process_time() - processor

    return run


def milliseconds(seconds: list[float]) -> str:
    return f"{1e3 * float(np.median(seconds)):.1f} ({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f})"


def report(quick: bool, threads: int) -> list[str]:
    size, side, rounds = (64, 32, 3) if quick else (256, 128, 9)
    lines = [
        "# Adaptive Gaussian blur",
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {threads} threads on {os.cpu_count()} cores "
        f"({platform.machine()}), load {psutil.getloadavg()[0]:.1f}, torch {torch.__version__}, float32.",
        "Made by `python benchmarks/blur.py`, which describes how it is measured.",
        "",
        f"## {size}×{size}, kernel 13×13 at every pixel, forward and backward, ms (median, smallest to largest)",
        "",
        "| covariances | im2col | nlmeans | times as fast (medians) |",
        "|---|---|---|---|",
    ]
    for covariance_type in ("spherical", "diagonal", "full"):
        runs = race((size, size), covariance_type, rounds)
        ratio = float(np.median(runs["im2col"]) / np.median(runs["nlmeans"]))
        lines.append(
            f"| {covariance_type} | {milliseconds(runs['im2col'])} | {milliseconds(runs['nlmeans'])} | {ratio:.0f} |"
        )
    volume = 4 * side**3
    lines += [
        "",
        f"## {side}³, kernel 13³ at every voxel, forward and backward",
        "",
        f"A volume is {volume / 2**20:.0f} MiB. im2col needs {2 * KERNEL_SIZE**3:,} volumes for columns and kernels.",
        "",
        "| covariances | their size, volumes | memory without the inputs, volumes | seconds | processor seconds |",
        "|---|---|---|---|---|",
    ]
    for covariance_type, own in (("spherical", 1), ("diagonal", 3), ("full", 9)):
        (seconds, processor), memory = measured_alone(prepared, side, covariance_type, threads)
        lines.append(f"| {covariance_type} | {own} | {memory / volume:.1f} | {seconds:.2f} | {processor:.2f} |")
    image = torch.rand(side, side, side)
    gaussian_blur(image, 9.0)
    start = time.perf_counter()
    gaussian_blur(image, 9.0)
    lines += [
        "",
        f"A single spherical covariance (`gaussian_blur`, 13³, forward): {time.perf_counter() - start:.2f} s.",
        "",
        "## Recovery: 32×32, one spherical covariance per pixel, 100 steps of Adamax at 0.1, seed 0",
        "",
    ]
    example = runpy.run_path(str(ROOT / "examples" / "adaptive_blur_recovery.py"))
    torch.manual_seed(0)
    found = example["recover"](steps=10 if quick else 100)
    scales = ", ".join(f"{learned:.2f} ({true:.2f})" for true, learned in example["median_scales"](found))
    lines += [
        f"Mean squared error from {found.losses[0]:.2e} to {found.losses[-1]:.2e}, "
        f"{found.losses[0] / found.losses[-1]:.0f} times smaller.",
        f"Median learned scale (true scale) of each quadrant, voxels: {scales}.",
    ]
    assert math.isfinite(found.losses[-1])
    return lines


@click.command()
@click.option("--quick", is_flag=True, help="Run small cases to check that everything works.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "results" / "blur.md")
@click.option("--threads", type=click.IntRange(1), default=2, help="Threads of PyTorch.")
def main(quick: bool, out: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    text = "\n".join(report(quick, threads)) + "\n"
    out.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
