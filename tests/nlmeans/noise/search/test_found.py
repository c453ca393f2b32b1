"""The noise model found in a volume, and what denoising with it is worth."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import nlmeans
from nlmeans import NoiseModel, estimate_noise, estimate_sigma, load_image, samples
from nlmeans.core.metrics import psnr
from nlmeans.noise.search.correlation import deviation_of_finest
from nlmeans.noise.search.found import kind_of_one, model_of_volume
from tests.nlmeans.volumes import gaussian, mosaic, piecewise, rician, sample

denoise = partial(nlmeans.denoise, method="bayes")
"""One method that whitens, whatever the default is."""

SIGMA = 10.0
SHAPE = (30, 40, 44)


def filtered(kind: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Any:
    """Noise of standard deviation 1 as scanners make it, through a filter in k-space."""
    frequencies = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    in_plane = np.hypot(*frequencies[-2:])
    response = {
        "zero-filled": np.all([np.abs(f) < 1 / 3 for f in frequencies[-2:]], axis=0).astype(float),
        "apodised": np.prod([0.5 + 0.5 * np.cos(2 * np.pi * f) for f in frequencies], axis=0),
        "CT": np.sqrt(in_plane) * np.exp(-((in_plane / 0.25) ** 2)),
    }[kind]
    white = np.random.default_rng(seed).standard_normal(shape)
    noise = np.fft.ifftn(np.fft.fftn(white) * response).real
    return noise / np.sqrt((response**2).mean())


@pytest.mark.parametrize("kind", ["zero-filled", "apodised", "CT"])
def test_correlated_noise_is_found_and_removed(kind: str) -> None:
    clean = piecewise(*SHAPE)
    noisy = clean + SIGMA * filtered(kind)
    model = estimate_noise(noisy)
    assert model.sigma == pytest.approx(SIGMA, rel=0.1)
    assert model.correlation is not None
    assert "correlated" in model.evidence[-1]
    plain, whitened = denoise(noisy, noise="gaussian", correlation=None), denoise(noisy)
    np.testing.assert_array_equal(denoise(noisy, noise=model), whitened)
    assert psnr(clean, whitened) > psnr(clean, plain) + 2
    assert psnr(clean, whitened) > psnr(clean, denoise(noisy, SIGMA)) + 0.5


def test_images_have_correlated_noise_too() -> None:
    clean = piecewise(1, 150, 160)[0]
    noisy = clean + SIGMA * filtered("apodised", (150, 160))
    model = estimate_noise(noisy)
    assert model.sigma == pytest.approx(SIGMA, rel=0.1)
    assert model.autocovariance is not None
    assert model.autocovariance.shape == (1, 11, 11)
    plain = denoise(noisy, correlation=None)
    assert psnr(clean, denoise(noisy, noise=model)) > psnr(clean, plain) + 2


@pytest.mark.parametrize("method", ["dct", "wiener", "pri", "bayes", "best", "subspace"])
def test_methods_that_whiten_beat_themselves(method: str, caplog: pytest.LogCaptureFixture) -> None:
    clean = piecewise(24, 32, 36)
    noisy = clean + SIGMA * filtered("apodised", (24, 32, 36))
    model = estimate_noise(noisy)
    whitened = denoise(noisy, noise=model, method=method)
    assert psnr(clean, whitened) > psnr(clean, denoise(noisy, SIGMA, method=method)) + 0.5
    assert "takes correlated noise" not in caplog.text


def test_methods_that_do_not_whiten_say_so(caplog: pytest.LogCaptureFixture) -> None:
    denoise(piecewise(8, 9, 10), noise=NoiseModel(sigma=1, correlation=[[[0.5, 1, 0.5]]]), method="classic")
    assert (
        "method classic takes correlated noise for white noise; dct, wiener, pri, bayes, best, subspace, series do not"
        in caplog.text
    )


def test_white_noise_is_white() -> None:
    noisy = gaussian(piecewise(*SHAPE), SIGMA)
    model = estimate_noise(noisy)
    assert model.correlation is None
    assert model.sigma == estimate_sigma(noisy)
    np.testing.assert_array_equal(denoise(noisy, noise=model), denoise(noisy))


def test_the_air_of_a_magnitude_image_does_not_count() -> None:
    clean = np.where(np.indices((36, 40, 40)).max(0) < 24, 300.0, 0.0)
    real, imaginary = (SIGMA * filtered("zero-filled", clean.shape, seed) for seed in (0, 1))
    model = estimate_noise(np.hypot(clean + real, imaginary))
    assert model.sigma == pytest.approx(SIGMA, rel=0.12)
    assert model.kind == "rician"
    assert any("in the object" in sentence for sentence in model.evidence)


def test_a_mask_says_where_to_look() -> None:
    noisy = np.concatenate([SIGMA * filtered("CT"), 4 * SIGMA * filtered("CT", seed=1)])
    mask = np.arange(len(noisy)) < 30
    model = estimate_noise(100 + noisy, mask=np.broadcast_to(mask[:, None, None], noisy.shape))
    assert model.sigma == pytest.approx(SIGMA, rel=0.1)
    assert any("in the mask" in sentence for sentence in model.evidence)


@pytest.mark.parametrize("lags", [np.ones((3, 3, 3)), np.cos(np.pi * np.arange(-3, 4))[None, None], np.eye(1)[None]])
@pytest.mark.parametrize("method", ["dct", "wiener", "bayes", "best"])
def test_wrong_models_and_extreme_correlations_give_finite_results(method: str, lags: Any) -> None:
    noisy = gaussian(piecewise(12, 20, 24), SIGMA)
    result = denoise(noisy, noise=NoiseModel(sigma=SIGMA, correlation=lags), method=method)
    assert np.isfinite(result).all()
    assert noisy.min() - 3 * SIGMA < result.min() < result.max() < noisy.max() + 3 * SIGMA


@pytest.mark.parametrize("volume", [np.full((12, 14, 16), 7.0), np.zeros((20, 20)), np.eye(3)])
def test_volumes_without_noise_have_none(volume: Any) -> None:
    model = estimate_noise(volume)
    assert model.correlation is None
    assert model.sigma is not None
    np.testing.assert_array_equal(denoise(volume.astype(float), noise=NoiseModel(sigma=0.0)), volume)


def test_what_is_given_wins_over_the_model() -> None:
    noisy = gaussian(piecewise(12, 14, 16), SIGMA)
    lags = [[[0.4, 1.0, 0.4]]]
    model = NoiseModel(sigma=1.0, correlation=lags)
    np.testing.assert_array_equal(denoise(noisy, SIGMA, noise=model, correlation=None), denoise(noisy, SIGMA))
    np.testing.assert_array_equal(denoise(noisy, 1.0, correlation=lags), denoise(noisy, noise=model))


@pytest.mark.parametrize("sigma", [None, "map"])
def test_a_correlation_needs_its_sigma(sigma: Any) -> None:
    model = NoiseModel(correlation=[[[0.5, 1.0, 0.5]]])
    with pytest.raises(ValueError, match="would be estimated from differences of neighbours"):
        denoise(piecewise(8, 9, 10), sigma, noise=model)


def test_tiles_do_not_show() -> None:
    noisy = piecewise(20, 60, 40) + SIGMA * filtered("apodised", (20, 60, 40))
    model = estimate_noise(noisy)
    whole = denoise(noisy, noise=model, search_radius=2)
    tiled = denoise(noisy, noise=model, search_radius=2, memory="16MiB")
    np.testing.assert_allclose(tiled, whole, atol=1e-3 * SIGMA)


@pytest.mark.parametrize(
    "volume",
    [
        np.where(np.indices((90, 90))[0] < 60, -1000.0, np.random.default_rng(0).normal(40, 5, (90, 90))),
        np.cumsum(np.random.default_rng(0).normal(size=(24, 25, 26)), axis=-1),
        (np.random.default_rng(0).random((30, 30, 30)) < 0.05) * 100.0,
        np.indices((20, 20, 20)).sum(0).astype(float),
        np.random.default_rng(0).poisson(0.05, (64, 64)).astype(float),
        np.random.default_rng(0).integers(0, 3, (24, 24, 24)).astype(float),
        1e30 * np.random.default_rng(0).normal(size=(12, 13, 14)),
        np.full((3, 3), 7.0),
    ],
    ids=["padded", "sums", "dots", "ramp", "few counts", "three values", "huge", "tiny"],
)
def test_odd_volumes_have_a_finite_model(volume: Any) -> None:
    model = estimate_noise(volume)
    assert model.sigma is not None
    assert 0 <= model.sigma < np.inf
    assert np.isfinite(denoise(volume, method="dct")).all()


def sparse() -> Any:
    """Thin, textured branches in air, as vessels in an angiography; their maximum is 1."""
    first, second, texture = (np.random.default_rng(seed).standard_normal((64, 68, 60)) for seed in range(3))
    first, second, texture = (gaussian_filter(z, s) for z, s in ((first, 5), (second, 5), (texture, 1)))
    core = np.clip(1 - np.hypot(first / first.std(), second / second.std()) / 0.35, 0, 1)
    clean = gaussian_filter((core > 0) * (0.3 + 0.7 * core) * (1 + 0.1 * texture / texture.std()), 0.6)
    return clean / clean.max()


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_air_with_the_noise_of_the_object_tells_it_from_texture(offset: float) -> None:
    clean = sparse()
    assert (clean < 0.01).mean() > 0.8
    noisy = clean + offset + 0.01 * np.random.default_rng(0).standard_normal(clean.shape)
    assert estimate_noise(noisy).sigma == pytest.approx(0.01, rel=0.03)


def test_air_as_noisy_as_the_finest_detail_shows_that_texture_is_no_noise() -> None:
    texture = 25 * gaussian_filter(np.random.default_rng(1).standard_normal(SHAPE), 1.2) / 0.12
    clean = np.where(np.arange(44) < 20, 0.0, 300 + texture)
    noisy = rician(clean, SIGMA)
    assert (
        estimate_noise(noisy[..., 20:], kind="rician").correlation is not None
    )  # without air, nothing tells them apart
    model = estimate_noise(noisy)
    assert (model.kind, model.correlation) == ("rician", None)
    assert model.sigma == pytest.approx(SIGMA, rel=0.03)
    assert "the air has" in model.evidence[-2]


def test_air_that_a_scanner_has_filtered_says_nothing_about_the_object() -> None:
    clean = 500.0 * (np.indices(SHAPE).max(0) < 26)
    noise = SIGMA * np.random.default_rng(0).standard_normal(SHAPE)
    model = estimate_noise(1000 + clean + np.where(clean > 0, noise, 0.3 * noise))
    assert model.sigma == pytest.approx(SIGMA, rel=0.1)


@pytest.mark.parametrize("left", [0.3, 0.1])
def test_correlated_noise_of_air_that_a_scanner_has_filtered_is_not_that_of_the_object(left: float) -> None:
    shape = (36, 48, 48)
    place = np.indices(shape) - np.array(shape)[:, None, None, None] / 2
    object_ = np.square(place / [[[[15]]], [[[20]]], [[[20]]]]).sum(0) < 1
    noise = SIGMA * filtered("zero-filled", shape)
    noisy = np.where(object_, 40 + piecewise(*shape) + noise, left * noise)
    model = estimate_noise(noisy)
    assert model.sigma == pytest.approx(SIGMA, rel=0.1)
    assert model.correlation is not None
    assert any("the air was filtered" in sentence for sentence in model.evidence)


def test_noise_below_the_step_between_grey_values_is_named() -> None:
    weak, strong = (gaussian(piecewise(*SHAPE), sigma).round() for sigma in (0.3, 3.0))
    assert "weaker than the step of 1 between grey values" in str(estimate_noise(weak).evidence)
    assert "weaker" not in str(estimate_noise(strong).evidence)


def test_padding_is_no_evidence_and_hides_none() -> None:
    noisy = gaussian(piecewise(1, 90, 90)[0] + 300, SIGMA)
    noisy[:30] = -1000
    assert estimate_noise(noisy).sigma == pytest.approx(SIGMA, rel=0.2)


@pytest.mark.parametrize("seed", range(8))
def test_the_last_digit_of_the_values_makes_no_difference_in_small_volumes(seed: int) -> None:
    """Sums are rounded differently by another number of threads, and records must not change by that."""
    volume = np.zeros((16, 18, 20))
    volume[4:12, 4:14, 4:16] = 100
    volume += 8 * np.random.default_rng(seed).standard_normal(volume.shape)
    again = volume * (1 + 1e-15 * np.random.default_rng(9).standard_normal(volume.shape))
    one, other = (estimate_noise(values) for values in (volume, again))
    assert one.sigma == pytest.approx(other.sigma, rel=1e-9)
    assert dataclasses.replace(one, sigma=1.0) == dataclasses.replace(other, sigma=1.0)


@pytest.mark.parametrize("kind", ["rician", "chi"])
def test_a_stated_magnitude_with_negative_values_is_gaussian_and_says_so(kind: str) -> None:
    noisy = 20 * np.random.default_rng(0).standard_normal((24, 24, 24))
    model = estimate_noise(noisy, kind=kind)
    assert (model.kind, model.coils) == ("gaussian", 1.0)
    assert model.sigma == pytest.approx(20, rel=0.03)
    assert "which magnitudes do not have" in model.evidence[0]
    assert estimate_sigma(noisy, noise="rician") == pytest.approx(20, rel=0.03)
    assert float(np.median(estimate_sigma(noisy, noise="rician", map=True))) == pytest.approx(20, rel=0.05)


def test_counts_are_not_found_where_much_lies_below_the_offset_of_the_detector() -> None:
    """The line through a few bright, textured parts can meet zero variance above the dark ones."""
    random = np.random.default_rng(0)
    clean = np.repeat(np.linspace(0.02, 0.3, 12), 4)[:, None, None] * np.ones((48, 30, 30))
    slope, offset = 0.005, 0.06
    noisy = clean + np.sqrt(np.maximum(slope * (clean - offset), 4e-6)) * random.standard_normal(clean.shape)
    assert estimate_noise(noisy.clip(0)).kind != "poisson"
    assert estimate_noise(noisy[12:]).kind == "poisson"


@pytest.mark.parametrize("dose", [2.0, 1.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_few_photons_are_found_and_removed_as_well_as_when_all_is_told(dose: float, seed: int) -> None:
    """Many voxels have no photon at all, which is a measurement, and the body is as dark as the noise is strong."""
    clean, gain = sample("pet_clean"), 20 / dose
    noisy = gain * np.random.default_rng(seed).poisson(clean / gain)
    model = estimate_noise(noisy)
    assert model.kind == "poisson"
    assert model.gain == pytest.approx(gain, rel=0.16)
    told = NoiseModel(kind="poisson", gain=gain)
    assert psnr(clean, denoise(noisy, noise=model)) > psnr(clean, denoise(noisy, noise=told)) - 1.0


def test_an_offset_that_no_value_lies_below_is_kept() -> None:
    steps = np.repeat(np.linspace(0.4, 1.0, 8), 6)[:, None, None] * np.ones((48, 40, 40))
    noisy = 2.0 * np.random.default_rng(0).poisson(steps * 200) + 300
    model = estimate_noise(noisy)
    assert (model.kind, model.gain) == ("poisson", pytest.approx(2.0, rel=0.1))
    assert model.offset == pytest.approx(300, abs=30)


def test_no_offset_is_no_negative_zero() -> None:
    model = estimate_noise(np.asarray(load_image(samples.path("pet")).dataobj), modality="PT")
    assert (model.kind, model.offset) == ("poisson", 0)
    assert "-0" not in str(model)


def test_a_curve_of_correlated_noise_is_found_with_its_correlation() -> None:
    steps = np.repeat(np.linspace(100, 800, 8), 8)[:, None, None] * np.ones((1, 40, 40))
    white = np.random.default_rng(0).standard_normal((64, 40, 41))
    correlated = (white[..., 1:] + white[..., :-1]) / np.sqrt(2)
    noisy = torch.from_numpy(steps * (1 + 0.04 * correlated))
    found = model_of_volume(noisy, "curve")
    levels = found.sigma_at(torch.tensor([200.0, 400.0, 700.0]))
    np.testing.assert_allclose(levels, [8, 16, 28], rtol=0.12)
    lags = found.autocovariance
    assert lags is not None
    assert lags[tuple(n // 2 for n in lags.shape[:2])][lags.shape[2] // 2 + 1] == pytest.approx(0.5, abs=0.1)
    assert any("once stabilised" in reason for reason in found.evidence)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 3, 3), (1, 1, 5), (2, 2, 2), (1, 60, 60)])
def test_a_curve_asked_of_any_volume_is_a_model_that_can_be_used(shape: tuple[int, ...]) -> None:
    volume = 100 + 5 * np.random.default_rng(0).standard_normal(shape)
    found = model_of_volume(torch.from_numpy(volume), "curve")
    assert found.has_level
    assert found.kind == "curve" or found.sigma == 0
    assert np.isfinite(denoise(volume[0] if shape[0] == 1 else volume, noise=found, method="classic")).all()


@pytest.mark.parametrize("lags", [(1.0, 1.0, 1.0), (0.8, 1.0, 0.8)])
def test_noise_too_smooth_for_any_finest_detail_is_denoised_without_a_word_about_units(lags: Any) -> None:
    counts = np.random.default_rng(0).poisson(50, (9, 10, 11)).astype(np.float32)
    assert deviation_of_finest(1.0, torch.tensor([[lags]])) is None
    assert np.isfinite(denoise(counts, noise="poisson", gain=1.0, method="dct", correlation=[[lags]])).all()


MOSAIC = mosaic()


def gamma_corrected(light: Any) -> Any:
    """Light as a camera saves it: 8 bits, in which equal steps look equal."""
    return np.round(255 * np.clip(light, 0, 1) ** (1 / 2.2))


def proportional(clean: Any) -> Any:
    return gaussian(clean, 0.005 + 0.1 * clean)


FOLLOWING = {
    "gamma-corrected": (gamma_corrected(MOSAIC), gamma_corrected(gaussian(MOSAIC, 0.05)), "falls"),
    "proportional": (MOSAIC, proportional(MOSAIC), "rises"),
    "negative": (MOSAIC - 0.5, proportional(MOSAIC) - 0.5, "rises"),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_noise_that_follows_the_intensity_in_no_known_way_is_a_curve_by_default(name: str) -> None:
    clean, noisy, goes = FOLLOWING[name]
    model = estimate_noise(noisy)
    assert (model.kind, model.sigma, model.correlation, model.doubts) == ("curve", None, None, ())
    assert "far from one level, magnitudes and photon counts" in model.evidence[0]
    assert f"the deviation {goes} from" in model.evidence[1]
    by_default, one_level = (denoise(noisy, method="dct", **how) for how in ({}, {"noise": "gaussian"}))
    assert psnr(clean, by_default) > psnr(clean, one_level) + 1
    np.testing.assert_array_equal(by_default, denoise(noisy, method="dct", noise="curve"))


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_scanners_whose_values_are_linear_have_no_curve(modality: str) -> None:
    assert estimate_noise(FOLLOWING["proportional"][1], modality=modality).kind != "curve"
    assert estimate_noise(FOLLOWING["proportional"][1], modality="GM").kind == "curve"


NO_CURVE = {
    "gaussian": gaussian(MOSAIC, 0.05),
    "rician": rician(np.pad(MOSAIC, 8), 0.05),
    "photons": np.random.default_rng(0).poisson(100 * MOSAIC).astype(float),
    "correlated": MOSAIC + 0.05 * filtered("apodised", MOSAIC.shape),
    "cut off": gaussian(np.pad(MOSAIC, 8), 0.05).clip(0, 1),
    "few grey values": np.round(20 * gaussian(MOSAIC, 0.05)),
}


@pytest.mark.parametrize("name", NO_CURVE)
def test_noise_of_a_known_kind_is_no_curve_by_default(name: str) -> None:
    assert estimate_noise(NO_CURVE[name]).kind != "curve"


@pytest.mark.parametrize("kind", ["auto", "rician", "chi", "gaussian"])
def test_the_kind_alone_is_that_of_the_whole_model(kind: str) -> None:
    clean = piecewise(24, 26, 28)
    several = np.sqrt(sum(rician(clean / 2, SIGMA, seed) ** 2 for seed in range(4)))
    possible = ("rician", "chi")
    for volume in (rician(clean, SIGMA), several, gaussian(clean, SIGMA), np.zeros(SHAPE)):
        values = torch.from_numpy(volume)
        coils = 2.0 if kind == "chi" and volume is not several else None
        alone, whole = (find(values, kind, None, possible, coils, None) for find in (kind_of_one, model_of_volume))
        assert alone.kind == whole.kind
        assert alone.coils == whole.coils or whole.sigma == 0
        assert alone.sigma is None
        if whole.kind != kind and whole.sigma:
            assert alone.evidence == whole.evidence[:1]


def test_the_number_of_coils_alone_needs_air() -> None:
    with pytest.raises(ValueError, match="no air to read the number of coils from"):
        kind_of_one(torch.from_numpy(gaussian(piecewise(20, 20, 20) + 500, SIGMA)), "chi", None, (), None, None)
