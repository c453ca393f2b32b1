"""The example runs, and what it says of the block holds in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

UNet = pytest.importorskip("monai.networks.nets", reason="the example is about MONAI").UNet
PATH = Path(__file__).parents[2] / "examples" / "nonlocal_unet.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("nonlocal_unet", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unet(example: Any) -> Any:
    torch.manual_seed(0)
    network = UNet(2, 1, 1, example.CHANNELS, strides=(2, 2), num_res_units=1, norm="batch")
    example.train(network, 3, seed=1)
    return network


def test_a_trained_network_stays_as_it_was_until_it_trains_on(example: Any, unet: Any) -> None:
    images, _ = example.patients(2, torch.Generator().manual_seed(2))
    extended = example.with_nonlocal_block(unet, example.CHANNELS[-1])
    assert torch.equal(extended(images), unet(images))
    example.train(extended, 3, seed=3)
    assert not torch.equal(extended(images), unet(images))


def test_only_the_block_sees_the_liver_from_a_lesion(example: Any, unet: Any) -> None:
    images, _ = example.patients(1, torch.Generator().manual_seed(2))
    extended = example.with_nonlocal_block(unet, example.CHANNELS[-1])
    example.train(extended, 3, seed=3)
    for network, seen in ((unet, False), (extended, True)):
        image = images.clone().requires_grad_()
        network(image)[..., 35].sum().backward()  # the leftmost column of any lesion
        assert image.grad is not None
        assert bool(image.grad[..., :19].any()) == seen


def test_it_prints_what_inserting_and_training_did(example: Any) -> None:
    result = CliRunner().invoke(example.main, ["--steps", "2"], catch_exceptions=False)
    assert "largest change of the output 0\n" in result.output
    assert result.output.count("Dice") == 4
