"""Networks to choose from, each with or without a non-local block at its bottom."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import DynUNet, SegResNet, SwinUNETR, UNet
from torch import nn

from nlmeans.nn import NonLocalBlock

CHANNELS = (16, 32, 64)
"""Channels at each resolution of the convolutional networks, small enough for a CPU."""

FEATURES = 12
"""Features of SwinUNETR; those of the paper are 48."""


def unet(dims: int, channels: int, classes: int) -> nn.Module:
    return UNet(dims, channels, classes, CHANNELS, strides=(2, 2), num_res_units=1, norm="instance")


def segresnet(dims: int, channels: int, classes: int) -> nn.Module:
    blocks_down = (1, 2, 2)  # three resolutions, as the other networks
    return SegResNet(dims, CHANNELS[0], channels, classes, blocks_down=blocks_down, blocks_up=(1, 1))


def dynunet(dims: int, channels: int, classes: int) -> nn.Module:
    return DynUNet(
        dims,
        channels,
        classes,
        kernel_size=(3, 3, 3),
        strides=(1, 2, 2),
        upsample_kernel_size=(2, 2),
        filters=CHANNELS,
        res_block=True,
    )


def swinunetr(dims: int, channels: int, classes: int) -> nn.Module:
    if find_spec("einops") is None:
        raise ValueError("model='swinunetr' needs einops: pip install 'nlmeans[examples]', or take another --model")
    return SwinUNETR(channels, classes, feature_size=FEATURES, spatial_dims=dims)


MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "unet": unet,
    "segresnet": segresnet,
    "dynunet": dynunet,
    "swinunetr": swinunetr,
}

MULTIPLE = {"unet": 4, "segresnet": 4, "dynunet": 4, "swinunetr": 32}
"""The edge of a network's input is a multiple of this, as often as the network halves it."""

LEARNING_RATE = {"unet": 0.01, "segresnet": 0.002, "dynunet": 0.01, "swinunetr": 0.001}
"""Learning rates to start with; SegResNet found nothing but background with 0.01."""


def build(model: str, dims: int, channels: int, classes: int, non_local: bool = False) -> nn.Module:
    """Build a network with random weights.

    Args:
        model: a name in `MODELS`.
        dims: number of spatial axes, 2 or 3.
        channels: channels of its input.
        classes: channels of its output, background included.
        non_local: whether a `NonLocalBlock` follows the bottom, where every position can then see all others. A new
            block changes nothing until it is trained.

    Raises:
        ValueError: the network needs a package that is missing.
    """
    network = MODELS[model](dims, channels, classes)
    if non_local:
        bottom, width = bottom_of(network)
        insert_after(network, bottom, NonLocalBlock(width, spatial_dims=dims))
    return network


def bottom_of(network: nn.Module) -> tuple[nn.Module, int]:
    """Return the part of a network with the lowest resolution, and its number of channels."""
    if isinstance(network, UNet):
        deepest = [module for module in network.modules() if isinstance(module, SkipConnection)][-1]
        return deepest.submodule, CHANNELS[-1]
    if isinstance(network, SegResNet):
        return network.down_layers[-1], CHANNELS[0] * 4
    if isinstance(network, DynUNet):
        return network.bottleneck, CHANNELS[-1]
    return network.encoder10, 16 * FEATURES


def insert_after(network: nn.Module, part: nn.Module, block: nn.Module) -> None:
    """Let a block follow a part of a network, wherever the network holds this part."""
    both = nn.Sequential(part, block)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child is part:
                setattr(parent, name, both)
