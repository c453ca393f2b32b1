"""Tests of how sigma is checked, converted, read from the metadata, and estimated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import nlmeans
from monai_transforms import levels
from tests.monai_transforms.scans import SHAPE, volume

ONE = volume(*SHAPE)
TWO = torch.cat([ONE, volume(*SHAPE, seed=1) * 3])


@pytest.mark.parametrize("sigma", [None, 5, 5.0, [1.0, 2.0], "map"])
def test_sigma_of_a_transform_comes_back(sigma: Any) -> None:
    assert levels.sigma_of_transform(sigma, "gaussian", "map") == sigma
    assert not levels.is_in_metadata(sigma)


def test_the_word_meta_leaves_sigma_to_the_metadata() -> None:
    assert levels.is_in_metadata("meta")
    assert levels.sigma_of_transform("meta", "rician") is None


def test_words_that_a_transform_does_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma='map' is not known; choose one of 'meta'"):
        levels.sigma_of_transform("map", "rician")
    for word in ("meta", "map"):
        with pytest.raises(ValueError, match=f"sigma='{word}' stands for all of the noise.*give the read noise"):
            levels.sigma_of_transform(word, "poisson", "map")


@pytest.mark.parametrize("sigma", [np.ones((2, 3)), torch.ones(2, 3), torch.ones(1, 2, 3)])
def test_a_transform_has_no_map(sigma: Any) -> None:
    with pytest.raises(TypeError, match=r"sigma is a map of shape .*2, 3\).*give the map to the call.*sigma_key"):
        levels.sigma_of_transform(sigma, "gaussian")


@pytest.mark.parametrize(
    "sigma", [7.5, np.float32(7.5), np.array([7.5]), torch.tensor(7.5), torch.tensor([7.5]), [7.5]]
)
def test_one_number_becomes_a_float(sigma: Any) -> None:
    found = levels.sigma_of_image(sigma, TWO)
    assert type(found) is float
    assert found == 7.5


@pytest.mark.parametrize("sigma", [[1.5, 2.5], (1.5, 2.5), np.array([1.5, 2.5]), torch.tensor([1.5, 2.5])])
def test_several_numbers_become_a_tuple(sigma: Any) -> None:
    assert levels.sigma_of_image(sigma, TWO) == (1.5, 2.5)


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE)], ids=str)
def test_a_map_loses_an_axis_of_one(shape: tuple[int, ...]) -> None:
    sigma = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for image in (ONE, TWO):
        found = levels.sigma_of_image(MetaTensor(sigma), image)
        assert type(found) is torch.Tensor
        assert torch.equal(found, sigma.reshape(SHAPE))


def test_a_map_for_each_channel_keeps_its_axes() -> None:
    found = levels.sigma_of_image(TWO.numpy(), TWO)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, TWO)
    with pytest.raises(ValueError, match=r"sigma has shape \(2, 20, 18, 10\), but the image has the spatial shape"):
        levels.sigma_of_image(TWO, ONE)


@pytest.mark.parametrize("kept", [6.5, [6.5, 7.5]])
def test_sigma_is_read_from_the_metadata(kept: Any) -> None:
    given = MetaTensor(ONE if isinstance(kept, float) else TWO, meta={levels.NOISE_SIGMA: kept})
    assert levels.sigma_in_metadata_of(given, given) == (kept if isinstance(kept, float) else tuple(kept))


@pytest.mark.parametrize("given", [TWO, TWO.numpy(), MetaTensor(TWO)], ids=["tensor", "numpy", "MetaTensor"])
def test_metadata_without_sigma_are_an_error(given: Any) -> None:
    with pytest.raises(ValueError, match=r"no such entry; put EstimateNoise.* before this transform"):
        levels.sigma_in_metadata_of(given, TWO)


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_estimates_are_those_of_the_engine(noise: str) -> None:
    mask = torch.zeros(SHAPE)
    mask[3:] = 1
    for where in (None, mask):
        each = tuple(nlmeans.estimate_sigma(channel, noise=noise, mask=where) for channel in TWO)
        assert levels.estimate_per_channel(TWO, noise, where) == each
        assert levels.estimate_per_channel(ONE, noise, where) == each[0]
        maps = levels.estimate_per_voxel(TWO, noise, where)
        assert maps.dtype == torch.float32
        for channel, found in zip(TWO, maps, strict=True):
            np.testing.assert_allclose(found, nlmeans.estimate_sigma(channel, noise=noise, mask=where, map=True))


def test_sigma_and_its_key_are_not_given_together() -> None:
    assert levels.sigma_key_for_each(None, "s", ("a", "b")) == ("s", "s")
    assert levels.sigma_key_for_each(5.0, None, ("a", "b")) == (None, None)
    with pytest.raises(ValueError, match=r"sigma=5\.0 and sigma_key='s' both say what the noise is; give only one"):
        levels.sigma_key_for_each(5.0, "s", ("a", "b"))


@pytest.mark.parametrize("kept", [6.5, [6.5, 7.5, 8.5]])
def test_sigma_of_other_channels_is_not_taken(kept: Any) -> None:
    given = MetaTensor(TWO, meta={levels.NOISE_SIGMA: kept})
    with pytest.raises(
        ValueError, match=r"for [13] channel\(s\), but the image has 2: .* put EstimateNoise\(d\) after"
    ):
        levels.sigma_in_metadata_of(given, given)
    with pytest.raises(ValueError, match="sigma has 3 numbers, but the image has 2 channels; give one number, or one"):
        levels.sigma_of_image([1.0, 2.0, 3.0], TWO)
