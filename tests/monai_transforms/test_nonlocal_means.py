"""Tests that the transform does what the engine does, for images with channels, masks, maps and an affine."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForeground, EnsureTyped

import nlmeans
from monai_transforms import (
    EstimateNoise,
    EstimateNoised,
    NonLocalMeans,
    NonLocalMeansd,
    RandNonLocalMeans,
    RandNonLocalMeansd,
)
from nlmeans.core.progress import Report
from nlmeans.core.tiles import Piece
from nlmeans.methods.method import Options
from nlmeans.methods.registry import METHODS
from nlmeans.noise.kinds import FOLLOWING, NOISES
from nlmeans.noise.search import found as found_module
from nlmeans.operator.backends import BACKENDS
from tests.monai_transforms.scans import SHAPE, SIGMA, image, volume
from tests.nlmeans.volumes import SINGLE, decaying_series

NOISY = volume(*SHAPE)
SLICE = volume(24, 22)
TWO = torch.cat([NOISY, volume(*SHAPE, seed=1) * 3])


def values(result: Any) -> Any:
    return result.as_tensor()


@pytest.mark.parametrize("method", ["auto", *SINGLE])
def test_every_method_is_the_engines(method: str) -> None:
    ours = NonLocalMeans(sigma=SIGMA, method=method)(SLICE)
    assert torch.equal(values(ours)[0], nlmeans.denoise(SLICE[0], SIGMA, method=method))


@pytest.mark.parametrize("noise", NOISES)
def test_every_noise_model_is_the_engines(noise: str) -> None:
    detector: dict[str, Any] = {
        "poisson": {"gain": 2.0, "offset": 5.0},
        "chi": {"coils": 4.0},
        "curve": {"curve": [(0, 5), (200, 25)]},
    }.get(noise, {})
    ours = NonLocalMeans(noise=noise, method="classic", **detector)(NOISY)
    assert torch.equal(values(ours)[0], nlmeans.denoise(NOISY[0], noise=noise, method="classic", **detector))


def test_a_noise_model_is_the_engines() -> None:
    model = nlmeans.NoiseModel(sigma=SIGMA, correlation=[[[0.4, 1.0, 0.4]]])
    ours = NonLocalMeans(noise=model, method="dct")(NOISY)
    assert torch.equal(values(ours)[0], nlmeans.denoise(NOISY[0], noise=model, method="dct"))
    assert not torch.equal(values(ours)[0], nlmeans.denoise(NOISY[0], SIGMA, method="dct"))


@pytest.mark.parametrize("backend", [name for name, backend in BACKENDS.items() if name != "gpu"])
def test_every_backend_is_the_engines(backend: str) -> None:
    ours = NonLocalMeans(sigma=SIGMA, method="classic", backend=backend)(SLICE)
    assert torch.equal(values(ours)[0], nlmeans.denoise(SLICE[0], SIGMA, method="classic", backend=backend))


def test_parameters_are_named_as_the_engines() -> None:
    engine = set(inspect.signature(nlmeans.denoise).parameters)
    ours = set(inspect.signature(NonLocalMeans).parameters)
    assert engine - ours == {"volume", "mask", "channels", "series", "out", "progress"}
    assert ours - engine == {"channel_wise"}
    twin = set(inspect.signature(NonLocalMeansd).parameters)
    assert twin - ours == {"keys", "mask_key", "sigma_key", "maps", "allow_missing_keys"}
    for transform, rest in ((RandNonLocalMeans, ours), (RandNonLocalMeansd, twin - {"maps"})):
        assert set(inspect.signature(transform).parameters) == {*rest, "prob"}


def test_all_parameters_arrive() -> None:
    some = {"h": 12.0, "patch_radius": (1, 1, 0), "search_radius": [2, 2, 1], "memory": "64MB", "method": "classic"}
    ours = NonLocalMeans(sigma=9, spacing=[1, 1, 2], backend="loop", device="cpu", dtype="float64", **some)(NOISY)
    engine = nlmeans.denoise(NOISY[0], 9, spacing=(1, 1, 2), backend="loop", device="cpu", dtype="float64", **some)
    assert torch.equal(values(ours)[0], engine)
    assert ours.dtype == torch.float64


def test_a_map_of_sigma_is_estimated_for_each_channel() -> None:
    ours = NonLocalMeans(sigma="map", method="classic")(TWO)
    for channel in range(2):
        assert torch.equal(values(ours)[channel], nlmeans.denoise(TWO[channel], "map", method="classic"))


def test_a_method_that_was_registered_at_run_time_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(noisy: Any, sigma: Any, wanted: Piece, options: Options, progress: Report) -> Any:
        return 2 * noisy[:, *wanted]

    twice = dataclasses.replace(METHODS["classic"], run=run)
    with pytest.raises(ValueError, match="method='twice' is not known"):
        NonLocalMeans(method="twice")
    monkeypatch.setitem(METHODS, "twice", twice)
    middle = float(SLICE.min() + SLICE.max()) / 2  # the engine shifts it to zero for the method
    expected = 2 * (SLICE - middle) + middle
    for transform in (NonLocalMeans(SIGMA, method="twice"), RandNonLocalMeans(1.0, sigma=SIGMA, method="twice")):
        torch.testing.assert_close(values(transform(SLICE)), expected, rtol=1e-4, atol=1e-2)
    data = NonLocalMeansd("image", SIGMA, method="twice")({"image": SLICE})
    torch.testing.assert_close(values(data["image"]), expected, rtol=1e-4, atol=1e-2)


def test_sigma_may_be_given_by_position() -> None:
    wanted = values(NonLocalMeans(sigma=SIGMA, method="classic")(SLICE))
    assert torch.equal(values(NonLocalMeans(SIGMA, method="classic")(SLICE)), wanted)
    assert torch.equal(values(NonLocalMeansd("i", SIGMA, method="classic")({"i": SLICE})["i"]), wanted)
    once = (1.0, 1.0)
    assert torch.equal(values(RandNonLocalMeans(1.0, once, SIGMA, method="classic")(SLICE)), wanted)
    assert torch.equal(values(RandNonLocalMeansd("i", 1.0, once, SIGMA, method="classic")({"i": SLICE})["i"]), wanted)


def test_impulses_go_first() -> None:
    speckled = NOISY.clone()
    speckled.view(-1)[::97] = 1000.0
    ours = NonLocalMeans(despeckle=True, method="classic")(speckled)
    assert torch.equal(values(ours)[0], nlmeans.denoise(speckled[0], despeckle=True, method="classic"))
    twice = RandNonLocalMeans(1.0, (2.0, 2.0), despeckle=True, method="classic")(speckled)
    sigma = 2 * nlmeans.estimate_sigma(nlmeans.despeckle(speckled[0]))
    assert torch.equal(values(twice)[0], nlmeans.denoise(speckled[0], sigma, despeckle=True, method="classic"))


def test_the_stochastic_method_repeats_with_its_seed() -> None:
    first, again, other = (values(NonLocalMeans(SIGMA, method="stochastic", seed=s)(NOISY)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_wrong_arguments_are_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="method='nlm' is not known; choose one of 'auto'"):
        NonLocalMeansd("image", method="nlm")
    with pytest.raises(ValueError, match="sigma=-1 must not be negative"):
        NonLocalMeans(sigma=-1)
    with pytest.raises(ValueError, match="spacing='pixdim' is not known; choose one of 'affine'"):
        NonLocalMeans(spacing="pixdim")
    with pytest.raises(TypeError, match=r"sigma is a map of shape \(4, 4\).*sigma_key"):
        NonLocalMeans(sigma=np.ones((4, 4)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sigma=5 and sigma_key='s' both say what the noise is"):
        NonLocalMeansd("image", sigma=5, sigma_key="s")
    with pytest.raises(ValueError, match=r"mask_key=\['a', 'b'\] has 2 keys; give one for all of keys=\('image',\)"):
        NonLocalMeansd("image", mask_key=["a", "b"])
    with pytest.raises(ValueError, match="sigma='all' is not known; choose one of 'meta', 'map'"):
        NonLocalMeans(sigma="all")
    with pytest.raises(ValueError, match=r"strength=\(2.0, 1.0\) must be the smallest and the largest"):
        RandNonLocalMeans(strength=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"strength=0 must be greater than 0"):
        RandNonLocalMeansd("image", strength=(0, 1.0))
    with pytest.raises(TypeError, match="channel_wise='no' must be True or False"):
        NonLocalMeansd("image", channel_wise="no")  # type: ignore[arg-type]


def test_integers_are_rounded() -> None:
    counts = NOISY.round().to(torch.int16)
    ours = NonLocalMeans(sigma=SIGMA)(counts)
    assert torch.equal(values(ours), NonLocalMeans(sigma=SIGMA, dtype="float32")(counts).round().to(torch.int16))


def test_channels_are_denoised_one_by_one_each_with_its_own_sigma() -> None:
    for sigma in (None, SIGMA, [SIGMA, 3 * SIGMA]):
        together = NonLocalMeans(sigma=sigma, method="classic")(TWO)
        for channel, level in enumerate(sigma if isinstance(sigma, list) else [sigma] * 2):
            assert torch.equal(values(together)[channel], nlmeans.denoise(TWO[channel], level, method="classic"))


def test_channels_are_compared_together() -> None:
    ours = NonLocalMeans(sigma=[SIGMA, 3 * SIGMA], method="classic", channel_wise=False)(TWO)
    assert torch.equal(values(ours), nlmeans.denoise(TWO, [SIGMA, 3 * SIGMA], method="classic", channels=0))
    assert not torch.equal(values(ours), values(NonLocalMeans([SIGMA, 3 * SIGMA], method="classic")(TWO)))


@pytest.mark.parametrize("lead", [(), (1,)], ids=["spatial", "with a channel"])
def test_the_mask_says_where(lead: tuple[int, ...]) -> None:
    mask = torch.zeros(*lead, *SHAPE)
    mask[..., :10, :, :] = 1
    data = NonLocalMeansd("image", sigma=SIGMA, mask_key="mask")({"image": TWO, "mask": mask})
    assert torch.equal(values(data["image"])[:, 10:], TWO[:, 10:])
    assert not torch.equal(values(data["image"])[:, :10], TWO[:, :10])


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask has shape \(2, 20, 18, 10\), but the image has the spatial shape"):
        NonLocalMeans()(NOISY, mask=torch.ones(2, *SHAPE))


def test_a_mask_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="mask_key='mask' is not in the data; the keys there are 'image', 'label'"):
        NonLocalMeansd("image", mask_key="mask")({"image": NOISY, "label": NOISY})


@pytest.mark.parametrize("sigma", [7.3, np.float32(7.5), torch.tensor(7.5), torch.tensor([7.5]), [7.3]])
def test_a_number_at_the_sigma_key_is_the_sigma_of_the_image(sigma: Any) -> None:
    data = NonLocalMeansd("image", sigma_key="s")
    expected = nlmeans.denoise(NOISY[0], float(np.ravel(sigma)[0]))
    assert torch.equal(values(data({"image": NOISY, "s": sigma})["image"])[0], expected)


@pytest.mark.parametrize("lead", [(), (1,)], ids=["spatial", "with a channel"])
def test_a_map_at_the_sigma_key_is_the_sigma_of_the_image(lead: tuple[int, ...]) -> None:
    sigma = torch.linspace(5, 15, SHAPE[2]).expand(*lead, *SHAPE)
    data = NonLocalMeansd("image", method="classic", sigma_key="s")({"image": TWO, "s": MetaTensor(sigma)})
    for channel in range(2):
        expected = nlmeans.denoise(TWO[channel], sigma.reshape(SHAPE), method="classic")
        assert torch.equal(values(data["image"])[channel], expected)


def test_each_channel_may_have_a_map_of_its_own() -> None:
    sigma = torch.stack([torch.linspace(5, 15, SHAPE[2]).expand(SHAPE), torch.linspace(40, 20, SHAPE[2]).expand(SHAPE)])
    ours = NonLocalMeans(method="classic")(TWO, sigma=sigma)
    for channel in range(2):
        assert torch.equal(values(ours)[channel], nlmeans.denoise(TWO[channel], sigma[channel], method="classic"))
    with pytest.raises(ValueError, match="a map for each channel, which channel_wise=False cannot use"):
        NonLocalMeans(method="classic", channel_wise=False)(TWO, sigma=sigma)


def test_each_image_may_have_a_key_of_its_own() -> None:
    transform = NonLocalMeansd(["a", "b"], method="classic", sigma_key=["a_sigma", "b_sigma"])
    data = transform({"a": NOISY, "b": NOISY, "a_sigma": 5.0, "b_sigma": 15.0})
    assert torch.equal(values(data["a"])[0], nlmeans.denoise(NOISY[0], 5.0, method="classic"))
    assert torch.equal(values(data["b"])[0], nlmeans.denoise(NOISY[0], 15.0, method="classic"))


def test_sigma_from_the_metadata_is_what_was_estimated_there() -> None:
    ours = Compose([EstimateNoise("rician"), NonLocalMeans(sigma="meta", noise="rician")])(TWO)
    assert torch.equal(values(ours), values(NonLocalMeans(noise="rician")(TWO)))
    by_key = Compose([EstimateNoised("i", sigma_key="s"), NonLocalMeansd("i", sigma_key="s")])({"i": TWO})
    assert torch.equal(values(by_key["i"]), values(NonLocalMeans()(TWO)))


def test_sigma_that_the_metadata_do_not_have_is_an_error() -> None:
    for given in (image(*SHAPE), NOISY):
        with pytest.raises(ValueError, match=r"sigma='meta' needs what EstimateNoise\(d\) writes to 'noise_sigma'"):
            NonLocalMeans(sigma="meta")(given)
    with pytest.raises(ValueError, match="the read noise alone"):
        NonLocalMeans(sigma="meta", noise="poisson")


def test_spacing_is_read_from_the_affine(tracked: bool) -> None:
    given = image(*SHAPE)
    sizes = np.linalg.norm(np.asarray(given.affine)[:3, :3], axis=0)
    assert len({round(size / min(sizes)) for size in sizes}) > 1
    ours = NonLocalMeans(sigma=SIGMA, method="classic", search_radius=3, spacing="affine")(given)
    expected = nlmeans.denoise(given.as_tensor()[0], SIGMA, method="classic", search_radius=3, spacing=sizes)
    assert torch.equal(torch.as_tensor(ours)[0], expected)
    assert not torch.equal(expected, nlmeans.denoise(given.as_tensor()[0], SIGMA, method="classic", search_radius=3))


def test_spacing_of_a_slice_counts_all_three_axes_of_the_world() -> None:
    sagittal = MetaTensor(SLICE, affine=torch.tensor([[0.0, 0, 4, 0], [2, 0, 0, 0], [0, -3, 0, 0], [0, 0, 0, 1]]))
    transform = NonLocalMeans(sigma=SIGMA, method="classic", search_radius=4, spacing="affine")
    expected = nlmeans.denoise(SLICE[0], SIGMA, method="classic", search_radius=4, spacing=(2, 3))
    assert torch.equal(values(transform(sagittal))[0], expected)


@pytest.mark.parametrize(
    "given", [NOISY, NOISY.numpy(), MetaTensor(NOISY), EnsureTyped("i")({"i": NOISY.numpy()})["i"]]
)
def test_an_image_without_an_affine_has_no_spacing(given: Any) -> None:
    with pytest.raises(ValueError, match=r"spacing='affine' needs an image with an affine.*spacing=\(1, 1, 5\)"):
        NonLocalMeans(spacing="affine")(given)


def test_a_true_voxel_of_one_millimetre_is_taken() -> None:
    loaded = MetaTensor(NOISY, affine=torch.eye(4), meta={"original_affine": np.eye(4)})
    ours = NonLocalMeans(sigma=SIGMA, spacing="affine")(loaded)
    assert torch.equal(values(ours), values(NonLocalMeans(sigma=SIGMA)(NOISY)))


def test_a_scan_without_its_channel_is_refused() -> None:
    loaded = MetaTensor(NOISY[0], meta={"spatial_shape": np.array(SHAPE), "original_channel_dim": float("nan")})
    with pytest.raises(
        ValueError,
        match=r"shape \(20, 18, 10\), as in its file.*does not say that an axis holds channels; put EnsureChannelFirst",
    ):
        NonLocalMeans()(loaded)
    with_channel = MetaTensor(NOISY, meta=loaded.meta)
    assert NonLocalMeans(sigma=SIGMA)(with_channel).shape == NOISY.shape


def test_the_strength_is_drawn_anew_and_repeats_with_its_seed() -> None:
    augment = RandNonLocalMeans(prob=1.0, strength=(0.5, 1.5), sigma=SIGMA, method="classic")

    def three(seed: int) -> list[Any]:
        augment.set_random_state(seed=seed)
        return [values(augment(NOISY)) for _ in range(3)]

    first, again, other = three(1), three(1), three(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({float(result.std()) for result in (*first, *other)}) == 6


@pytest.mark.parametrize("noise", NOISES)
def test_the_strength_scales_the_noise_that_is_removed(noise: str) -> None:
    sigma = None if noise in FOLLOWING else SIGMA
    removed = []
    for strength in (0.3, 0.6, 1.0, 1.5):
        augment = RandNonLocalMeans(1.0, (strength, strength), sigma=sigma, noise=noise, method="classic")
        removed.append(float((values(augment(NOISY.abs())) - NOISY.abs()).std()))
    assert removed == sorted(removed)
    assert removed[0] < 0.8 * removed[-1]


@pytest.mark.parametrize("noise", NOISES)
def test_strength_one_is_the_plain_transform(noise: str) -> None:
    coils = 4 if noise == "chi" else None
    augment = RandNonLocalMeans(1.0, (1.0, 1.0), noise=noise, coils=coils, method="classic")
    plain = NonLocalMeans(noise=noise, coils=coils, method="classic")
    assert torch.equal(values(augment(NOISY)), values(plain(NOISY)))


@pytest.mark.parametrize(
    "given", [{}, {"sigma": 9.0, "h": 7.0}, {"sigma": "map"}, {"sigma": "map", "channel_wise": False}]
)
def test_a_drawn_strength_is_that_of_the_engine(given: dict[str, Any]) -> None:
    ours = values(RandNonLocalMeans(1.0, (2.0, 2.0), method="classic", **given)(NOISY))
    assert torch.equal(ours, values(NonLocalMeans(strength=2.0, method="classic", **given)(NOISY)))
    engine = {name: value for name, value in given.items() if name != "channel_wise"}
    assert torch.equal(ours[0], nlmeans.denoise(NOISY[0], strength=2.0, method="classic", **engine))


def test_an_image_that_is_passed_over_stays_as_it_is(tracked: bool) -> None:
    for result in (
        RandNonLocalMeans(prob=0.0)(NOISY.numpy()),
        RandNonLocalMeansd("i", prob=0.0)({"i": NOISY.numpy()})["i"],
    ):
        assert isinstance(result, MetaTensor) == tracked
        assert torch.equal(torch.as_tensor(result), NOISY)


def test_images_of_one_case_share_the_draw() -> None:
    augment = RandNonLocalMeansd(["a", "b"], prob=0.5, sigma=SIGMA, method="classic").set_random_state(seed=0)
    results = [augment({"a": NOISY, "b": NOISY}) for _ in range(8)]
    assert all(torch.equal(values(r["a"]), values(r["b"])) for r in results)
    changed = [not torch.equal(values(r["a"]), NOISY) for r in results]
    assert any(changed)
    assert not all(changed)


def test_maps_are_those_of_the_engine_and_lie_beside_the_image() -> None:
    transform = NonLocalMeansd("image", method="classic", maps=("residual", "noise_map"))
    given = MetaTensor(TWO, affine=image(*SHAPE).affine)
    data = transform({"image": given, "other": 3})
    expected = nlmeans.denoise_with_maps(TWO.numpy(), method="classic", series=0)
    for name, result in zip(("image", "image_residual", "image_noise_map"), expected[:3], strict=True):
        np.testing.assert_array_equal(values(data[name]).numpy(), result)
        assert torch.equal(data[name].affine, given.affine)
    assert set(data) == {"image", "image_residual", "image_noise_map", "other"}
    alone = transform.converter(given)
    assert torch.equal(values(data["image"]), values(alone))


def test_a_series_has_one_map_of_sigma_and_one_of_components() -> None:
    volumes = torch.from_numpy(decaying_series(10, 3.0)[1]).movedim(-1, 0)
    data = NonLocalMeansd("image", maps=("noise_map", "rank_map"))({"image": volumes})
    expected = nlmeans.denoise_with_maps(volumes.numpy(), series=0)
    assert expected.rank_map is not None
    np.testing.assert_allclose(values(data["image_noise_map"])[0], expected.noise_map, rtol=1e-6)
    np.testing.assert_allclose(values(data["image_rank_map"])[0], expected.rank_map, rtol=1e-6)


def test_a_slice_and_channels_with_maps_of_their_own_have_maps() -> None:
    found = NonLocalMeans(sigma=SIGMA, method="classic").denoise_with_maps(SLICE)
    assert {name: tuple(value.shape) for name, value in found.items()} == dict.fromkeys(found, tuple(SLICE.shape))
    sigma = torch.stack([torch.full(SHAPE, 5.0), torch.linspace(20, 40, SHAPE[2]).expand(SHAPE)])
    found = NonLocalMeans(method="classic").denoise_with_maps(TWO, sigma=sigma)
    torch.testing.assert_close(values(found["noise_map"]), sigma)


def test_maps_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="maps='ranks' is not known; choose one of"):
        NonLocalMeansd("image", maps="ranks")
    with pytest.raises(ValueError, match="'image' has no rank_map, as its channels were not denoised together"):
        NonLocalMeansd("image", sigma=SIGMA, method="classic", maps="rank_map")({"image": NOISY})


# ---------------------------------------------------------------- a background that was removed


@pytest.mark.parametrize("arguments", [{}, {"noise": "rician"}, {"method": "classic"}, {"method": "wiener"}])
def test_crop_foreground_crops_to_the_same_brain(arguments: dict[str, Any]) -> None:
    stripped = torch.zeros(1, 24, 26, 28)
    stripped[:, 6:18, 7:20, 8:19] = volume(12, 13, 11) + 100
    denoised = NonLocalMeans(**arguments)(stripped)
    assert torch.equal(values(denoised) == 0, stripped == 0)
    assert CropForeground()(denoised).shape == (1, 12, 13, 11)


# ---------------------------------------------------------------- what an augmentation costs


def test_an_augmentation_looks_for_the_noise_in_the_middle_only(monkeypatch: pytest.MonkeyPatch) -> None:
    large = 100 + 5 * torch.randn(1, 20, 90, 100, generator=torch.Generator().manual_seed(0))
    large[..., :10] += 50 * torch.randn(1, 20, 90, 10, generator=torch.Generator().manual_seed(1))
    measured: list[tuple[int, ...]] = []
    found = found_module.model_of_volume
    monkeypatch.setattr(
        "nlmeans.noise.search.uneven.model_of_volume", lambda v, *a: measured.append(v.shape) or found(v, *a)
    )
    result = RandNonLocalMeans(1.0, (0.999, 0.999))(large)
    assert measured == [(20, 57, 56)]  # about 40³ voxels
    expected = nlmeans.denoise(large[0], 5 * 0.999, method="classic")
    np.testing.assert_allclose(values(result)[0], expected, atol=1)
    measured.clear()
    RandNonLocalMeans(1.0, sigma=5.0)(large)
    RandNonLocalMeansd("i", 1.0, sigma="meta")({"i": MetaTensor(large, meta={"noise_sigma": 5.0})})
    assert not measured


def test_where_the_middle_is_empty_the_noise_is_found_elsewhere() -> None:
    hollow = 100 + 5 * torch.randn(1, 300, 300, generator=torch.Generator().manual_seed(0))
    hollow[:, 10:-10, 10:-10] = 0
    augmented = RandNonLocalMeans(1.0, (1.1, 1.2))(hollow)
    assert float(augmented[:, :10].std()) < 4
    mask = torch.zeros(300, 300)
    mask[:10] = 1
    augmented = RandNonLocalMeans(1.0, (1.1, 1.2))(hollow, mask)
    assert float(augmented[:, :10].std()) < 4
    assert torch.equal(values(augmented)[:, 10:], hollow[:, 10:])
