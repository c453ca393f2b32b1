"""Recover the covariance at every voxel from a signal and its blurred version, by gradient descent.

A random signal is blurred with a known Gaussian in each quadrant (octant in 3D). A local blur starts with the same
round kernel everywhere and learns a covariance per voxel until its result matches. One blurred voxel cannot determine
all numbers of a full covariance, so several signals are blurred with the same kernels.

    python examples/adaptive_blur_recovery.py                                 # 2D, spherical; takes seconds
    python examples/adaptive_blur_recovery.py --model full --truth random
    python examples/adaptive_blur_recovery.py --dims 3 --size 16 --model full --truth full
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from nlmeans.blur import LocalGaussianBlur, gaussian_kernel, local_gaussian_blur, log_cholesky_to_covariance

TRUTHS = ("spherical", "diagonal", "full", "random")
MODELS = ("spherical", "full")
SMALLEST, LARGEST = 0.6, 1.6
"""Standard deviations in voxels of the true kernels, from the first part to the last."""


@dataclass(frozen=True)
class Recovery:
    signal: Tensor
    """(signals, *shape)."""
    smoothed: Tensor
    recovered: Tensor
    """The signal blurred with the learned covariances."""
    truth: Tensor
    """(*shape, D, D), in voxels²."""
    learned: Tensor
    """(*shape, D, D)."""
    kernel_size: int
    losses: list[float]


def parts(size: int, dims: int) -> list[tuple[slice, ...]]:
    """Slices of the quadrants (2D) or octants (3D)."""
    halves = slice(0, size // 2), slice(size // 2, size)
    return list(itertools.product(halves, repeat=dims))


def true_covariances(kind: str, dims: int) -> Tensor:
    """Covariances (2^D, D, D), one per part, each wider than the one before."""
    count = 2**dims
    deviations = torch.linspace(SMALLEST, LARGEST, count)
    if kind == "spherical":
        return deviations.square()[:, None, None] * torch.eye(dims)
    if kind == "random":
        spread = 0.3 * torch.randn(count, dims * (dims + 1) // 2)
        diagonal = torch.tril_indices(dims, dims).diff(dim=0)[0] == 0
        return log_cholesky_to_covariance(spread + torch.where(diagonal, deviations.log()[:, None], 0))
    axes = deviations[:, None] * torch.linspace(0.6, 1.4, dims)
    odd = torch.arange(count)[:, None] % 2 == 1
    matrices = torch.diag_embed(torch.where(odd, axes.flip(1), axes).square())
    if kind == "diagonal":
        return matrices
    turn = torch.eye(dims)  # rotation by 45 degrees in the plane of the last two axes
    turn[-2:, -2:] = math.sqrt(0.5) * torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    return turn @ matrices @ turn.T


def recover(
    dims: int = 2,
    size: int = 32,
    model: str = "spherical",
    truth: str = "spherical",
    signals: int = 1,
    steps: int = 100,
    lr: float = 0.1,
) -> Recovery:
    """Blur random signals and learn the covariances from the result."""
    shape = (size,) * dims
    signal = torch.randn(signals, *shape)
    covariance = torch.empty(*shape, dims, dims)
    for part, matrix in zip(parts(size, dims), true_covariances(truth, dims), strict=True):
        covariance[part] = matrix
    smoothed = local_gaussian_blur(signal, covariance[None], spatial_dims=dims)

    widest = float(covariance.diagonal(dim1=-2, dim2=-1).max())
    kernel_size = gaussian_kernel(widest, 1).numel()
    blur = LocalGaussianBlur(shape, covariance=1.0, covariance_type=model, kernel_size=kernel_size)
    optimiser = torch.optim.Adamax(blur.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (blur(signal) - smoothed).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        recovered, learned = blur(signal), blur.covariance
    losses.append(float((recovered - smoothed).square().mean()))
    if model == "spherical":
        learned = learned[..., None, None] * torch.eye(dims)
    return Recovery(signal, smoothed, recovered, covariance, learned, kernel_size, losses)


def scales(covariance: Tensor) -> Tensor:
    """Standard deviations of round Gaussians with the same volume."""
    return covariance.det().pow(0.5 / covariance.shape[-1])


def median_scales(of: Recovery) -> list[tuple[float, float]]:
    """Median true and learned scale of each part."""
    size, dims = of.signal.shape[-1], of.signal.ndim - 1
    return [
        (float(scales(of.truth[part]).median()), float(scales(of.learned[part]).median())) for part in parts(size, dims)
    ]


def flat(signals: Tensor) -> Tensor:
    """Image to show: the first image, or the plane a quarter into the first volume."""
    first = signals[0]
    return first if first.ndim == 2 else first[len(first) // 4]


def figure(of: Recovery) -> Figure:
    """Draw the signals, and below them the true and the learned kernels in the middle of each part."""
    size, dims = of.signal.shape[-1], of.signal.ndim - 1
    middles = [tuple((part.start + part.stop) // 2 for part in which) for which in parts(size, dims)]
    drawing = Figure(figsize=(13, 8.2), layout="constrained")
    FigureCanvasAgg(drawing)
    above, below = drawing.subfigures(2, 1, height_ratios=[1, 1.15])

    reach = float(of.signal.abs().max())
    low, high = (float(value) for value in flat(of.smoothed).aminmax())
    errors = LogNorm(1e-10, max(1e-9, float((of.recovered - of.smoothed).square().max())), clip=True)
    shown = (
        ("signal", of.signal, Normalize(-reach, reach)),
        ("smoothed with known kernels", of.smoothed, Normalize(low, high)),
        ("smoothed with learned kernels", of.recovered, Normalize(low, high)),
        ("squared error", (of.recovered - of.smoothed).square(), errors),
    )
    axes = above.subplots(1, 5)
    for axis, (title, values, scale) in zip(axes, shown, strict=False):
        picture = axis.imshow(flat(values), cmap="gray", norm=scale)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        above.colorbar(picture, ax=axis, location="bottom", shrink=0.8)
    axes[4].semilogy(of.losses)
    axes[4].set_title("mean squared error", fontsize=10)
    axes[4].set_xlabel("step")
    axes[4].set_box_aspect(1)

    kernels = below.subplots(2, len(middles))
    for column, middle in enumerate(middles):
        true = gaussian_kernel(of.truth[middle], kernel_size=of.kernel_size)
        learned = gaussian_kernel(of.learned[middle], kernel_size=of.kernel_size)
        for row, (name, kernel) in enumerate((("true", true), ("learned", learned))):
            plane = kernel if dims == 2 else kernel[of.kernel_size // 2]
            kernels[row, column].imshow(plane, cmap="magma", vmin=0)
            kernels[row, column].set_title(f"{name} at {middle}", fontsize=9)
            kernels[row, column].set_axis_off()
    return drawing


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, choices=(2, 3), default=2, help="number of axes")
    parser.add_argument("--size", type=int, default=32, help="voxels along each axis")
    parser.add_argument("--model", choices=MODELS, default="spherical", help="covariance to learn at every voxel")
    parser.add_argument("--truth", choices=TRUTHS, default="spherical", help="kernels that blur the signal")
    parser.add_argument("--signals", type=int, help="number of signals; by default 1 (spherical) or 8 (full)")
    parser.add_argument("--steps", type=int, default=100, help="steps of Adamax")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate of Adamax")
    parser.add_argument("--seed", type=int, default=0, help="random seed of signals and kernels")
    parser.add_argument("--out", type=Path, default=Path("adaptive_blur_recovery.png"), help="picture to write")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    signals = options.signals or {"spherical": 1, "full": 8}[options.model]
    found = recover(options.dims, options.size, options.model, options.truth, signals, options.steps, options.lr)
    for step in range(0, options.steps + 1, max(1, options.steps // 10)):
        print(f"step {step:4d}  mean squared error {found.losses[step]:.3e}")
    print(f"from {found.losses[0]:.2e} to {found.losses[-1]:.2e}: a factor of {found.losses[0] / found.losses[-1]:.0f}")
    print("median scale of each part in voxels (true, learned):")
    for (true, learned), part in zip(median_scales(found), parts(options.size, options.dims), strict=True):
        print(f"  part at {tuple(axis.start for axis in part)}: {true:.2f}, {learned:.2f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure(found).savefig(options.out, dpi=100)
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
