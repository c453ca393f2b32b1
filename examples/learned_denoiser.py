"""Learn to denoise without clean images, by noise2noise or noise2self, and compare with bayes, which learns nothing.

Usage: python examples/learned_denoiser.py [--steps 2500] [--out learned.md]

A small 3D network with a non-local block sees noisy phantoms only. With noise2noise it predicts a second scan of the
same object from the first, whose noise is independent. With noise2self it has one scan of each object: it predicts
voxels from their neighbours, which works as far as neighbouring voxels have no noise in common. RandScannerNoise makes
the noise: white, or zero-filled, which is correlated. Each network is tested on new phantoms with the noise that it was
trained on and with other noise, as are the methods of nlmeans, which find the noise in each volume.

The four trainings take about a quarter of an hour on one core. The table is written anew after each of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import click
import torch
from torch import Tensor, nn

import nlmeans
from monai_transforms import RandScannerNoise
from nlmeans import metrics
from nlmeans.nn import NonLocalBlock

SIZE, CROP, BATCH = 48, 24, 4
"""Voxels along each axis of a phantom and of a training crop, and crops per step."""

TRAINED, TESTED = 16, 6
"""Phantoms to learn from, and others for the test."""

SCALE = 100.0
"""Brightness of the phantoms; the network divides by it."""

GRID = 4
"""noise2self hides every fourth voxel along each axis."""


class Noise(NamedTuple):
    """Gaussian noise: sigma in per cent of the brightness, and the filter of the scanner."""

    sigma: float
    correlation: str | None

    def __str__(self) -> str:
        return f"{self.sigma:g} % {self.correlation or 'white'}"

    def scans(self, objects: Tensor, seed: int) -> Tensor:
        """Scan each object, (objects, D, H, W), with noise of its own."""
        add = RandScannerNoise(1.0, "gaussian", sigma=self.sigma, correlation=self.correlation)
        return torch.as_tensor(add.set_random_state(seed)(objects)).as_subclass(Tensor)


WHITE, ZERO_FILLED, STRONG = Noise(10, None), Noise(10, "zero-filled"), Noise(20, None)


def phantoms(count: int, seed: int) -> Tensor:
    """Draw objects of a few ellipsoids, some of them striped, (count, D, H, W), from 0 to about `SCALE`."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 3, indexing="ij"), -1)
    objects = torch.zeros(count, SIZE, SIZE, SIZE)
    for image in objects:
        for size in (0.9, *torch.linspace(0.6, 0.15, 14).tolist()):
            centre = (1 - size) * (2 * torch.rand(3, generator=generator) - 1) * 0.8
            radii = size * (0.6 + 0.4 * torch.rand(3, generator=generator))
            depth = (1 - ((place - centre) / radii).norm(dim=-1)) * radii.min() * SIZE / 2
            wave = torch.randn(3, generator=generator) * 12
            striped = torch.rand((), generator=generator) < 0.4
            stripes = 1 + 0.25 * torch.sin(place @ wave) * striped
            inside = (depth + 0.5).clamp(0, 1)  # edges are soft over one voxel
            image.lerp_(SCALE * torch.rand((), generator=generator) * stripes, inside)
    return objects


class Denoiser(nn.Module):
    """Small U-Net with a non-local block at its bottom.

    It returns the image, not the noise: noise2self must not hand on the voxel itself.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.top = nn.Sequential(convolution(1, width), convolution(width, width))
        self.down = nn.Sequential(nn.Conv3d(width, 2 * width, 2, stride=2), convolution(2 * width, 2 * width))
        self.bottom = nn.Sequential(
            nn.Conv3d(2 * width, 2 * width, 2, stride=2),
            convolution(2 * width, 2 * width),
            NonLocalBlock(2 * width, spatial_dims=3),
            nn.ConvTranspose3d(2 * width, 2 * width, 2, stride=2),
        )
        self.up = nn.Sequential(convolution(4 * width, 2 * width), nn.ConvTranspose3d(2 * width, width, 2, stride=2))
        self.last = nn.Sequential(convolution(2 * width, width), nn.Conv3d(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x / SCALE
        top = self.top(x)
        down = self.down(top)
        up = self.up(torch.cat([down, self.bottom(down)], 1))
        return SCALE * self.last(torch.cat([top, up], 1))


def convolution(channels: int, features: int) -> nn.Module:
    return nn.Sequential(nn.Conv3d(channels, features, 3, padding=1), nn.ReLU())


def crops(*volumes: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Cut the same random pieces from each set of volumes, (BATCH, 1, ...), and flip them at random."""
    pieces: list[list[Tensor]] = [[] for _ in volumes]
    for _ in range(BATCH):
        number = int(torch.randint(len(volumes[0]), (), generator=generator))
        corner = torch.randint(SIZE - CROP + 1, (3,), generator=generator).tolist()
        flips = [axis for axis in range(3) if torch.rand((), generator=generator) < 0.5]
        box = (number, *(slice(start, start + CROP) for start in corner))
        for piece, volume in zip(pieces, volumes, strict=True):
            piece.append(volume[box].flip(flips))
    return [torch.stack(piece)[:, None] for piece in pieces]


def noise2noise(network: nn.Module, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """Loss of Lehtinen et al., ICML 2018 (arXiv:1803.04189): predict the second scan from the first."""
    seen, wanted = crops(first, second, generator=generator)
    return (network(seen) - wanted).square().mean()


def noise2self(network: nn.Module, first: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    """Loss of Batson and Royer, ICML 2019 (arXiv:1901.11365): predict hidden voxels of a scan from the others.

    A hidden voxel shows the value of a neighbour (Krull et al., CVPR 2019, doi:10.1109/CVPR.2019.00223), as the network
    would notice a smoother one, and denoise nothing else.
    """
    (scan,) = crops(first, generator=generator)
    offset = torch.randint(GRID, (3,), generator=generator).tolist()
    hidden = torch.zeros(CROP, CROP, CROP, dtype=torch.bool)
    hidden[tuple(slice(start, None, GRID) for start in offset)] = True
    step = NEIGHBOURS[int(torch.randint(len(NEIGHBOURS), (), generator=generator))]
    seen = torch.where(hidden, scan.roll(step, (2, 3, 4)), scan)
    return (network(seen) - scan)[..., hidden].square().mean()


NEIGHBOURS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]

LOSSES: dict[str, Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]] = {
    "noise2noise": noise2noise,
    "noise2self": noise2self,
}


def train(how: str, noise: Noise, steps: int, seed: int = 0) -> nn.Module:
    """Train a network on noisy scans alone."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    objects = phantoms(TRAINED, seed)
    scans = noise.scans(objects, seed), noise.scans(objects, seed + 1000)
    network = Denoiser()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = LOSSES[how](network, *scans, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


Filter = Callable[[Tensor], Tensor]


def learned(network: nn.Module) -> Filter:
    def denoise(volume: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(volume[None, None])[0, 0]

    return denoise


def methods() -> Iterator[tuple[str, Filter]]:
    """What learns nothing."""
    yield "noisy", lambda volume: volume
    for method in ("classic", "bayes"):
        yield method, lambda volume, method=method: nlmeans.denoise(volume, method=method)


class Score(NamedTuple):
    psnr: float
    ssim: float
    seconds: float


def score(denoise: Filter, noise: Noise) -> Score:
    """Mean PSNR in dB, with peak `SCALE`, and SSIM over the test phantoms, and the median CPU seconds for one."""
    objects = phantoms(TESTED, seed=99)
    found, seconds = [], []
    for scan in noise.scans(objects, seed=99):
        start = time.process_time()
        found.append(denoise(scan))
        seconds.append(time.process_time() - start)
    pairs = [(truth.numpy(), image.numpy()) for truth, image in zip(objects, found, strict=True)]
    return Score(
        fmean(metrics.psnr(truth, image, peak=SCALE) for truth, image in pairs),
        fmean(metrics.ssim(truth, image, peak=SCALE) for truth, image in pairs),
        median(seconds),
    )


def row(name: str, denoise: Filter, training: str) -> str:
    scores = [score(denoise, noise) for noise in (WHITE, ZERO_FILLED, STRONG)]
    cells = [f"{one.psnr:.2f}, {one.ssim:.3f}" for one in scores]
    line = f"| {' | '.join([name, *cells, f'{scores[0].seconds:.2f}', training])} |"
    click.echo(line)
    return line


def page(rows: list[str], steps: int) -> str:
    head = ["", *(f"{noise}" for noise in (WHITE, ZERO_FILLED, STRONG)), "CPU seconds", "CPU seconds of training"]
    return "\n".join(
        [
            "# A denoiser that learns, compared with non-local means",
            "",
            f"Made by `python examples/learned_denoiser.py`: PSNR in dB and SSIM, mean over {TESTED} new phantoms of "
            f"{SIZE}³ voxels, with Gaussian noise in per cent of the brightness. The networks saw {TRAINED} phantoms, "
            f"all of them noisy, for {steps} steps, one training each, so that small differences mean "
            "little. `classic` and `bayes` find the noise in each volume and have learned nothing. CPU seconds: of one "
            f"volume, and of the training, with {torch.get_num_threads()} thread(s) of PyTorch.",
            "",
            f"| {' | '.join(head)} |",
            f"|{'---|' * len(head)}",
            *rows,
            "",
        ]
    )


@click.command(help=__doc__)
@click.option("--steps", type=click.IntRange(1), default=2500, show_default=True, help="Steps of each training.")
@click.option("--out", type=click.Path(path_type=Path), help="Markdown file for the table.")
def main(steps: int, out: Path | None) -> None:
    rows: list[str] = []

    def add(name: str, denoise: Filter, training: str) -> None:
        rows.append(row(name, denoise, training))
        if out:
            out.write_text(page(rows, steps), encoding="utf-8")

    for name, denoise in methods():
        add(name, denoise, "none")
    for noise in (WHITE, ZERO_FILLED):
        for how in LOSSES:
            start = time.process_time()
            network = train(how, noise, steps)
            add(f"{how}, trained on {noise}", learned(network), f"{time.process_time() - start:.0f}")


if __name__ == "__main__":
    main()
