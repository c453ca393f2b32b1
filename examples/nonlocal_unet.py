"""Add a non-local block to a trained MONAI UNet and continue the training.

Usage: python examples/nonlocal_unet.py

In PET a lesion counts if it is hotter than the liver of the same patient. The synthetic images here have a liver of
random uptake on the left and lesions on the right. The UNet sees 12 pixels around each pixel, which is too few to reach
from a lesion to the liver, so it can only guess. A non-local block at its bottom lets every position see all others.

Takes about 20 seconds.
"""

from __future__ import annotations

import copy

import click
import torch
from monai.losses import DiceCELoss
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import UNet
from torch import Tensor, nn

from nlmeans.nn import NonLocalBlock

SIZE = 64

CHANNELS = (8, 16, 32)


def patients(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw images and masks of their hot lesions, both (count, 1, 64, 64)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    liver = uniform(0.5, 2.0, count, 1, 1)
    images = liver * (((x - 10) / 8) ** 2 + ((y - 32) / 20) ** 2 < 1)
    labels = torch.zeros(count, SIZE, SIZE)
    for middle in (12, 32, 52):
        hot = uniform(0, 1, count, 1, 1) < 0.5
        place = uniform(40, 56, count, 1, 1), uniform(middle - 4, middle + 4, count, 1, 1)
        lesion = (x - place[0]) ** 2 + (y - place[1]) ** 2 < 25
        images = images + lesion * liver * torch.where(hot, 1.4, 0.7)
        labels = labels + lesion * hot
    noise = 0.05 * torch.randn(images.shape, generator=generator)
    return (images + noise)[:, None], labels[:, None]


def with_nonlocal_block(unet: UNet, channels: int) -> UNet:
    """Copy the network and add a block after its bottom layer, which has `channels` channels."""
    unet = copy.deepcopy(unet)
    deepest = [module for module in unet.modules() if isinstance(module, SkipConnection)][-1]
    deepest.submodule = nn.Sequential(deepest.submodule, NonLocalBlock(channels, spatial_dims=2))
    return unet


def train(network: UNet, steps: int, seed: int) -> None:
    loss_of = DiceCELoss(sigmoid=True)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    network.train()
    for _ in range(steps):
        images, labels = patients(8, generator)
        loss = loss_of(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


@torch.no_grad()
def dice(network: UNet) -> float:
    """Dice of the hot lesions, on patients that no network was trained on."""
    images, labels = patients(64, torch.Generator().manual_seed(999))
    found = network(images) > 0
    return float(2 * (found * labels).sum() / (found.sum() + labels.sum()))


@click.command(help=__doc__)
@click.option("--steps", default=150, show_default=True, help="Training steps before the block, and again with it.")
def main(steps: int) -> None:
    torch.manual_seed(0)
    unet = UNet(2, 1, 1, CHANNELS, strides=(2, 2), num_res_units=1, norm="batch")
    train(unet, steps, seed=1)
    click.echo(f"UNet: Dice {dice(unet):.3f}")

    extended = with_nonlocal_block(unet, CHANNELS[-1])
    images, _ = patients(4, torch.Generator().manual_seed(2))
    with torch.no_grad():
        change = (extended(images) - unet(images)).abs().max()
    click.echo(f"with a new non-local block: Dice {dice(extended):.3f}; largest change of the output {change:g}")

    train(extended, steps, seed=3)
    train(unet, steps, seed=3)
    click.echo(f"training continued without the block: Dice {dice(unet):.3f}")
    click.echo(f"training continued with the block: Dice {dice(extended):.3f}")


if __name__ == "__main__":
    main()
