"""Tests of the transforms that estimate noise and that stabilise it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, ConcatItemsd, GaussianSmoothd, NormalizeIntensity, SplitDimd

import nlmeans
from monai_transforms import (
    EstimateNoise,
    EstimateNoised,
    NoiseStabilise,
    NoiseStabilised,
    NonLocalMeans,
    NonLocalMeansd,
)
from nlmeans.core.metrics import psnr
from nlmeans.noise import level_curve, poisson, rician_transform
from tests.monai_transforms.scans import SHAPE, image, volume
from tests.nlmeans.volumes import piecewise
from tests.nlmeans.volumes import rician as rician_image

LARGE = (24, 40, 40)
CLEAN = piecewise(*LARGE)
MAGNITUDE = rician_image(CLEAN, 15.0)
TWO = torch.cat([volume(*SHAPE), volume(*SHAPE, seed=1) * 3])


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_the_estimate_is_the_engines(noise: str) -> None:
    result = EstimateNoise(noise)(TWO)
    expected = [nlmeans.estimate_sigma(channel, noise=noise) for channel in TWO]
    assert result.meta["noise_sigma"] == expected
    assert EstimateNoise(noise)(TWO[:1]).meta["noise_sigma"] == expected[0]
    assert EstimateNoised("i", noise, sigma_key="s")({"i": TWO})["s"] == expected


def test_the_image_stays_as_it_is_and_so_do_the_metadata_that_were_given() -> None:
    given = image(*SHAPE)
    result = EstimateNoise()(given)
    assert torch.equal(result, given)
    assert "noise_sigma" in result.meta
    assert "noise_sigma" not in given.meta


def test_the_estimate_looks_where_the_mask_is() -> None:
    mask = CLEAN == 200
    data = EstimateNoised("i", "rician", "s", mask_key="mask")({"i": MAGNITUDE[None], "mask": mask[None]})
    assert data["s"] == nlmeans.estimate_sigma(MAGNITUDE, noise="rician", mask=mask)


def test_a_map_is_an_image_that_other_transforms_take() -> None:
    given = torch.cat([image(*LARGE), image(*LARGE, seed=1) * 3])
    data = EstimateNoised("i", sigma_key="s", map=True)({"i": given})
    assert torch.equal(data["s"].affine, given.affine)
    for channel in range(2):
        expected = nlmeans.estimate_sigma(given.as_tensor()[channel], map=True)
        np.testing.assert_allclose(data["s"][channel], expected)
    denoised = NonLocalMeansd("i", method="classic", sigma_key="s")(data)["i"]
    for channel in range(2):
        values, sigma = (data[key].as_tensor()[channel] for key in ("i", "s"))
        assert torch.equal(denoised.as_tensor()[channel], nlmeans.denoise(values, sigma, method="classic"))


def test_estimates_can_be_collated() -> None:
    items = [{"i": volume(*SHAPE, seed=n)} for n in range(2)]
    data = Dataset(items, Compose([EstimateNoised("i"), EstimateNoised("i", sigma_key="s")]))
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["s"].tolist() == [nlmeans.estimate_sigma(item["i"][0]) for item in items]
    assert batch["i"].meta["noise_sigma"].tolist() == batch["s"].tolist()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(
        ValueError, match="noise='poisson' is not known; choose one of 'auto', 'gaussian', 'rician', 'chi'"
    ):
        EstimateNoise("poisson")
    with pytest.raises(ValueError, match=r"sigma_key='s' must have a different name for each of keys=\('a', 'b'\)"):
        EstimateNoised(["a", "b"], sigma_key="s")
    with pytest.raises(ValueError, match="map=True makes an image"):
        EstimateNoised("a", map=True)
    with pytest.raises(ValueError, match="noise='gaussian' is not known; choose one of 'rician', 'poisson'"):
        NoiseStabilise("gaussian")
    with pytest.raises(ValueError, match="need noise='poisson'"):
        NoiseStabilise("rician", gain=2.0)
    with pytest.raises(ValueError, match="the read noise alone"):
        NoiseStabilise("poisson", sigma="meta")
    with pytest.raises(
        ValueError, match="sigma has 2 numbers, but it is the read noise where noise='poisson'; give one"
    ):
        NoiseStabilise("poisson", sigma=[1.0, 2.0])(TWO)
    with pytest.raises(ValueError, match=r"sigma has shape \(20, 18, 10\), but it is the read noise"):
        NoiseStabilise("poisson")(TWO, sigma=torch.ones(SHAPE))
    with pytest.raises(ValueError, match="curve is missing: noise='curve' needs pairs of intensity and sigma"):
        NoiseStabilise("curve")
    with pytest.raises(ValueError, match="sigma='meta' does not fit noise='curve', whose level is the curve"):
        NoiseStabilise("curve", sigma="meta", curve="0:1,9:2")
    with pytest.raises(ValueError, match="sigma of a call does not fit noise='curve'"):
        NoiseStabilise("curve", curve="0:1,9:2")(TWO, sigma=3.0)
    with pytest.raises(ValueError, match="both need the same sigma"):
        NoiseStabilise("rician")(TWO)
    with pytest.raises(ValueError, match=r"sigma=0.0 must be greater than 0"):
        NoiseStabilise("rician", sigma=0.0)(TWO)
    with pytest.raises(
        ValueError, match="sigma has 3 numbers, but the image has 2 channels; give one number, or one per"
    ):
        NoiseStabilise("rician", sigma=[1.0, 2.0, 3.0])(TWO)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_transforms_are_the_engines(inverse: bool) -> None:
    ours = NoiseStabilise("rician", sigma=12.0, inverse=inverse)(TWO)
    assert torch.equal(
        ours.as_tensor(),
        (rician_transform.restore_magnitude if inverse else rician_transform.stabilise_magnitude)(TWO, 12.0),
    )
    ours = NoiseStabilise("poisson", sigma=2.0, gain=3.0, offset=4.0, inverse=inverse)(TWO)
    assert torch.equal(
        ours.as_tensor(), (poisson.restore_counts if inverse else poisson.stabilise_counts)(TWO, 3.0, 4.0, 2.0)
    )
    curve = ((0.0, 5.0), (300.0, 20.0))
    ours = NoiseStabilised("i", "curve", curve=curve, inverse=inverse)({"i": TWO})["i"]
    engines = level_curve.restore_level if inverse else level_curve.stabilise_level
    assert torch.equal(ours.as_tensor(), engines(TWO, curve))


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (2, *SHAPE)], ids=str)
def test_sigma_may_be_a_map(shape: tuple[int, ...]) -> None:
    sigma = torch.linspace(5, 15, SHAPE[2]).expand(shape)
    ours = NoiseStabilised("i", "rician", sigma_key="s")({"i": TWO, "s": sigma})["i"]
    assert torch.equal(ours.as_tensor(), rician_transform.stabilise_magnitude(TWO, sigma))


def test_each_channel_may_have_its_own_sigma() -> None:
    ours = NoiseStabilise("rician", sigma=[10.0, 30.0])(TWO)
    for channel, sigma in enumerate((10.0, 30.0)):
        assert torch.equal(ours.as_tensor()[channel], rician_transform.stabilise_magnitude(TWO[channel], sigma))


def smoothed(noise: str, noisy: Any, filter_between: Any, **level: Any) -> Any:
    there = NoiseStabilised("i", noise, **level)
    back = NoiseStabilised("i", noise, inverse=True, **level)
    return Compose([EstimateNoised("i", "rician"), there, filter_between, back])({"i": noisy[None]})["i"][0].numpy()


def test_a_filter_for_gaussian_noise_between_the_two_takes_the_bias_of_magnitudes_away() -> None:
    ours = smoothed("rician", MAGNITUDE, NonLocalMeansd("i", sigma=1.0, method="classic"), sigma="meta")
    plain = nlmeans.denoise(MAGNITUDE, 15.0, method="classic")
    assert psnr(CLEAN, ours) > psnr(CLEAN, plain) + 3
    nothing = CLEAN == 0
    assert ours[nothing].mean() < 0.2 * plain[nothing].mean()


def test_monais_own_smoothing_keeps_the_mean_of_few_counts() -> None:
    counts = np.random.default_rng(0).poisson(3.0, LARGE).astype(np.float64)
    ours = smoothed("poisson", counts, GaussianSmoothd("i", sigma=2.0))
    inner = (slice(8, -8),) * 3  # MONAI's filter pads with zeros
    assert ours[inner].mean() == pytest.approx(3.0, abs=0.05)


def test_metadata_keep_sigma_on_the_way() -> None:
    between = Compose([EstimateNoised("i", "rician"), NoiseStabilised("i", "rician", sigma="meta")])
    result = between({"i": MAGNITUDE[None]})["i"]
    assert isinstance(result, MetaTensor)
    assert result.meta["noise_sigma"] == pytest.approx(15, rel=0.05)


@pytest.mark.parametrize("noise", ["rician", "poisson"])
def test_negative_values_are_neither_stabilised_as_magnitudes_nor_as_counts(noise: str) -> None:
    with pytest.raises(ValueError, match=r"down to -3.* shifted or scaled"):
        NoiseStabilise(noise, sigma=0.1)(torch.linspace(-3, 3, 100).view(1, 10, 10))
    NoiseStabilise(noise, sigma=0.1, inverse=True)(torch.linspace(-3, 3, 100).view(1, 10, 10))


@pytest.mark.parametrize("noise", ["rician", "auto"])
def test_after_a_normalisation_denoising_keeps_what_is_below_zero(noise: str) -> None:
    normalised = NormalizeIntensity()(volume(*SHAPE))
    denoised = NonLocalMeans(noise=noise, method="classic")(normalised)
    assert not (denoised == 0).any()
    assert abs(float(denoised.min()) - float(normalised.min())) < 0.5


# ---------------------------------------------------------------- channels that are joined and split, and blank slices


def test_sigma_of_the_first_item_is_not_taken_for_all_that_are_joined() -> None:
    data = {"t1": volume(*SHAPE), "t2": 10 * volume(*SHAPE, seed=1)}
    joined = ConcatItemsd(["t1", "t2"], "image")
    denoise = NonLocalMeansd("image", sigma="meta", method="classic")
    with pytest.raises(RuntimeError) as caught:
        Compose([EstimateNoised(["t1", "t2"]), joined, denoise])(data)
    assert "ConcatItems(d) keeps only the metadata of its first item" in str(caught.value.__cause__)
    right = Compose([joined, EstimateNoised("image"), denoise])(data)["image"]
    low, high = right.meta["noise_sigma"]
    assert high == pytest.approx(10 * low, rel=0.2)


@pytest.mark.parametrize(
    "transform", [NonLocalMeansd("image_a", sigma="meta"), NoiseStabilised("image_a", "rician", sigma="meta")]
)
def test_a_channel_that_was_split_off_has_no_sigma_of_its_own(transform: Any) -> None:
    split = SplitDimd("image", dim=0, output_postfixes=["a", "b"])
    with pytest.raises(RuntimeError) as caught:
        Compose([EstimateNoised("image"), split, transform])({"image": TWO})
    said = str(caught.value.__cause__)
    assert "for 2 channel(s), but the image has 1" in said
    assert "series=" not in said
    assert "channels=" not in said
    Compose([split, EstimateNoised(["image_a", "image_b"]), transform])({"image": TWO})


def test_numbers_for_other_channels_are_refused_in_the_words_of_the_transform() -> None:
    for transform in (NonLocalMeans([1.0, 2.0, 3.0]), NonLocalMeans([1.0, 2.0, 3.0], channel_wise=False)):
        with pytest.raises(ValueError, match="sigma has 3 numbers, but the image has 2 channels; give one number, or"):
            transform(TWO)


def test_a_blank_slice_comes_back_unchanged_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Compose(
        [
            EstimateNoised("image", noise="rician"),
            NoiseStabilised("image", "rician", sigma="meta"),
            NonLocalMeansd("image", sigma="meta", method="classic"),
        ]
    )
    assert torch.equal(pipeline({"image": torch.zeros(1, 64, 64)})["image"].as_tensor(), torch.zeros(1, 64, 64))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "sigma is 0, so there is no noise to stabilise: what has none, such as a blank slice, is unchanged"
    ]
    one_blank = torch.cat([TWO[:1], torch.zeros_like(TWO[:1])])
    both = Compose([EstimateNoised("i", "rician"), NoiseStabilised("i", "rician", sigma="meta")])({"i": one_blank})["i"]
    expected = rician_transform.stabilise_magnitude(TWO[0], both.meta["noise_sigma"][0])
    torch.testing.assert_close(both.as_tensor()[0], expected)
    assert not both[1].any()


@pytest.mark.parametrize("count", [0, 63])
def test_a_mask_of_too_few_voxels_is_said_to_count_as_none(count: int, caplog: pytest.LogCaptureFixture) -> None:
    mask = torch.zeros(SHAPE)
    mask.view(-1)[:count] = 1
    for map in (False, True):
        caplog.clear()
        found = EstimateNoise().estimate(TWO, mask, map=map)
        expected = EstimateNoise().estimate(TWO, map=map)
        assert torch.allclose(torch.as_tensor(found), torch.as_tensor(expected), rtol=0.15)
        assert caplog.text.count(f"mask has {count} voxels that are not zero, too few to measure the noise in") == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("noise", ["rician", "poisson"])
def test_autocast_changes_no_number(noise: str, inverse: bool, dtype: torch.dtype) -> None:
    for table in (rician_transform.transform_tables, poisson.inverse_table):
        table.cache_clear()  # tables must not be made in half precision either
    transform = NoiseStabilise(noise, sigma=3.0, inverse=inverse)
    with torch.autocast("cpu", dtype):
        result = transform(TWO)
        map = EstimateNoise().estimate(TWO, map=True)
    assert torch.equal(result.as_tensor(), transform(TWO).as_tensor())
    assert torch.equal(torch.as_tensor(map), torch.as_tensor(EstimateNoise().estimate(TWO, map=True)))
    for table in (rician_transform.transform_tables, poisson.inverse_table):
        table.cache_clear()
    assert torch.equal(result.as_tensor(), transform(TWO).as_tensor())
