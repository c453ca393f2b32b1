"""The noise of a volume: what is stated stays, and what is not is found."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import NoiseModel, Settings, denoise, estimate_noise, estimate_sigma
from nlmeans.core.layout import Layout
from nlmeans.engine.noise import Noise, given_sigma, noise_of, shared_model
from nlmeans.engine.settings import settings_from
from tests.nlmeans.volumes import gaussian, piecewise, rician

IMAGE = gaussian(piecewise(16, 18, 20), 5.0)
HEAD = np.where(np.indices((24, 26, 28)).max(0) < 17, 300.0, 0.0)


def noise(settings: Settings, volume: Any = IMAGE, sigma_map: Any = None, index: int = 0) -> Noise:
    return noise_of(volume, index, Layout.of(volume, settings.channels, settings.series), settings, None, sigma_map)


def test_sigma_is_estimated_unless_it_is_given() -> None:
    for settings in (Settings(), Settings(noise="gaussian"), Settings(noise="gaussian", correlation=None)):
        found = noise(settings)
        assert found.sigma == (estimate_sigma(IMAGE),)
        assert (found.model.kind, found.model.correlation) == ("gaussian", None)
    assert noise(Settings(sigma=3.0)) == Noise(NoiseModel(sigma=3.0), (3.0,), None)


def test_a_map_has_its_largest_value_as_sigma_of_every_channel() -> None:
    sigma_map = np.linspace(1, 4, IMAGE.size).reshape(IMAGE.shape)
    several = np.stack([IMAGE, IMAGE])
    found = noise(Settings(channels=0), several, sigma_map)
    assert found.sigma == (4.0, 4.0)
    assert found.map is sigma_map
    estimated = noise(Settings(sigma="map"))
    expected = estimate_sigma(IMAGE, map=True)
    assert estimated.sigma == (float(expected.max()),)
    np.testing.assert_allclose(np.asarray(estimated.map), expected, rtol=1e-6)


def test_a_map_of_sigma_is_no_matter_of_photons_or_curves() -> None:
    rng = np.random.default_rng(0)
    photons, following = rng.poisson(STEPS).astype(float), proportional()
    assert noise(Settings(), photons).model.kind == "poisson"
    assert noise(Settings(), following).model.kind == "curve"
    for values in (photons, following):
        by_map = noise(Settings(sigma="map"), values)
        assert not by_map.model.follows_intensity
        np.testing.assert_allclose(np.asarray(by_map.map), estimate_sigma(values, map=True), rtol=1e-6)


def test_the_read_noise_of_counts_is_sigma_and_none_means_none() -> None:
    assert noise(Settings(noise="poisson", gain=2.0, sigma=3.0)).model == NoiseModel(kind="poisson", gain=2, sigma=3)
    assert noise(Settings(noise="poisson")) == Noise(NoiseModel(kind="poisson", sigma=0.0), (1.0,), None)


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        (
            Settings(noise="poisson"),
            IMAGE,
            "with noise='poisson', sigma is the read noise of the detector; give a number",
        ),
        (Settings(noise="poisson", sigma="map"), None, "sigma='map' does not work with noise='poisson'"),
        (
            Settings(noise="poisson", sigma=2e4),
            None,
            "sigma=20000, the read noise .* 10000 times gain=1, so that counts",
        ),
        (Settings(), -IMAGE, "sigma=.* must not be negative"),
        (Settings(noise="curve", curve=((0, 3), (9, 8))), IMAGE, "a map of sigma does not fit noise='curve'"),
        (Settings(noise="curve"), IMAGE, "a map of sigma does not fit noise='curve', .* give one of them"),
    ],
)
def test_noise_that_does_not_fit_is_refused(settings: Settings, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noise(settings, sigma_map=given)


def test_several_sigmas_are_those_of_the_volumes_or_of_the_channels() -> None:
    array = np.zeros((3, 2, 4, 5, 6))
    series, both = Layout(array.shape[:1] + array.shape[2:], None, 0), Layout(array.shape, 1, 0)
    assert given_sigma(7.0, 1, both) == (7.0, 7.0)
    assert given_sigma((1.0, 2.0, 3.0), 1, series) == (2.0,)
    assert given_sigma((1.0, 2.0, 3.0), 2, both) == (3.0, 3.0)
    assert given_sigma((1.0, 2.0), 0, Layout(array.shape[1:], 0, None)) == (1.0, 2.0)
    with pytest.raises(ValueError, match=r"sigma has 2 numbers; give one, or one per volume .*\(here 3\)"):
        given_sigma((1.0, 2.0), 0, both)


def test_magnitudes_are_found_by_their_air_and_become_zero_there() -> None:
    noisy = rician(HEAD, 20.0)
    found = noise(Settings(), noisy)
    assert found.model.kind == "rician"
    assert found.sigma[0] == pytest.approx(20, rel=0.05)
    result = denoise(noisy, method="bayes")
    np.testing.assert_array_equal(result, denoise(noisy, method="bayes", noise=estimate_noise(noisy)))
    assert abs(result[18:, 18:].mean()) < 4
    assert denoise(noisy, method="bayes", noise="gaussian")[18:, 18:].mean() > 20


def test_a_stated_sigma_is_that_of_white_gaussian_noise() -> None:
    noisy = rician(HEAD, 20.0)
    np.testing.assert_array_equal(denoise(noisy, 20.0), denoise(noisy, 20.0, noise="gaussian", correlation=None))


def test_the_modality_limits_the_kinds() -> None:
    noisy = rician(HEAD, 20.0)
    assert noise(Settings(modality="CT"), noisy).model.kind == "gaussian"
    assert noise(Settings(modality="MR"), noisy).model.kind == "rician"
    positive = IMAGE - IMAGE.min() + 1
    assert noise(Settings(), positive).model.kind == "gaussian"
    assert noise(Settings(modality="MR"), positive).model.kind == "rician"
    with pytest.raises(TypeError, match="modality=3 must be a DICOM code"):
        Settings(modality=3)  # type: ignore[arg-type]


def test_the_number_of_coils_is_read_from_the_air_or_given() -> None:
    noisy = np.sqrt(sum(rician(HEAD / 2, 20.0, seed) ** 2 for seed in range(4)))
    found = noise(Settings(noise="chi"), noisy).model
    assert found.coils == pytest.approx(4, rel=0.05)
    assert found.sigma == pytest.approx(20, rel=0.05)
    assert noise(Settings(noise="chi", coils=3), noisy).model.coils == 3
    assert abs(denoise(noisy, 20.0, noise="chi", coils=4, method="bayes")[18:, 18:].mean()) < 6
    with pytest.raises(ValueError, match="shows no air to read the number of coils from"):
        noise(Settings(noise="chi"), np.abs(IMAGE))
    with pytest.raises(ValueError, match=r"coils=3\.0 belongs to noise='chi'"):
        Settings(noise="rician", coils=3)


def test_gain_offset_and_read_noise_are_found() -> None:
    photons = np.tile(np.repeat(np.arange(5.0, 105.0, 10.0), 10), (60, 30, 1))
    rng = np.random.default_rng(0)
    image = 2.0 * rng.poisson(photons) + 100 + 3 * rng.standard_normal(photons.shape)
    found = noise(Settings(noise="poisson", gain="auto"), image).model
    assert found.gain == pytest.approx(2, rel=0.1)
    by_hand = denoise(image, 3.0, noise="poisson", gain=2.0, offset=100.0, method="classic")
    np.testing.assert_allclose(denoise(image, noise="poisson", gain="auto", method="classic"), by_hand, atol=8)
    assert noise(Settings(), image).model.kind == "poisson"
    assert noise(Settings(noise="poisson", gain="auto", sigma=5.0), image).model.sigma == 5.0


def test_channels_share_a_model_and_have_their_own_sigma() -> None:
    several = np.stack([factor * rician(HEAD, 20.0, factor) for factor in range(1, 7)])
    found = noise(Settings(channels=0), several)
    assert found.model.kind == "rician"
    np.testing.assert_allclose(found.sigma, 20.0 * np.arange(1, 7), rtol=0.15)


def test_channels_that_differ_in_kind_count_as_gaussian() -> None:
    model = shared_model([NoiseModel(kind="rician", sigma=2), NoiseModel(sigma=1, correlation=[[[0.5, 1, 0.5]]])])
    assert (model.kind, model.correlation) == ("gaussian", None)
    assert "different kinds" in model.evidence[0]


def test_the_log_says_what_was_found_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="nlmeans"):
        noise(Settings(), rician(HEAD, 20.0))
    assert "found rician noise, sigma" in caplog.text
    assert "weaker in the dark, as in magnitude images" in caplog.text


@pytest.mark.parametrize(("scale", "offset", "warned"), [(1, 0, False), (10, 200, True), (0.01, 0, True)])
def test_counts_in_other_units_are_warned_of(
    scale: float, offset: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    photons = np.random.default_rng(0).poisson(40 + np.indices((16, 18, 20)).sum(0))
    denoise((scale * photons + offset).astype(np.float32), method="classic", noise="poisson")
    assert ("the values have other units; give gain='auto'" in caplog.text) == warned
    caplog.clear()
    denoise((scale * photons + offset).astype(np.float32), method="classic", noise="poisson", gain=scale, offset=offset)
    assert not caplog.messages


def test_correlated_counts_in_their_own_units_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    clean = 400.0 + 5 * np.indices((24, 26, 28)).sum(0)
    white = np.random.default_rng(0).standard_normal((24, 26, 29))
    noisy = clean + np.sqrt(clean / 2) * (white[..., 1:] + white[..., :-1])
    denoise(noisy, noise=NoiseModel(kind="poisson", correlation=[[[0.5, 1.0, 0.5]]]))
    assert not caplog.messages
    denoise(10 * noisy, noise=NoiseModel(kind="poisson", correlation=[[[0.5, 1.0, 0.5]]]))
    assert "the values have other units" in caplog.text


STEPS = np.repeat(100.0 * np.arange(1, 9), 6)[:, None, None] * np.ones((1, 24, 24))
"""Eight flat parts."""
BY_HAND = ((100.0, 5.0), (800.0, 40.0))


def proportional(seed: int = 0) -> Any:
    """Flat parts of eight intensities whose noise is a twentieth of them."""
    return STEPS * (1 + 0.05 * np.random.default_rng(seed).standard_normal(STEPS.shape))


def test_a_curve_is_as_told_or_found() -> None:
    told = noise(Settings(noise="curve", curve=BY_HAND), proportional())
    assert told == Noise(NoiseModel(kind="curve", curve=BY_HAND), (1.0,), None)
    found = noise(Settings(noise="curve"), proportional())
    assert (found.model.kind, found.model.sigma, found.sigma) == ("curve", None, (1.0,))
    levels = found.model.sigma_at(torch.tensor([200.0, 400.0, 700.0]))
    np.testing.assert_allclose(levels, [10, 20, 35], rtol=0.08)
    assert found.model.evidence[0].startswith("in flat parts the deviation rises from")


def test_a_curve_is_better_than_one_sigma_as_told_or_found() -> None:
    noisy = proportional()
    errors = {
        name: np.sqrt(np.mean((denoise(noisy, method="dct", **how) - STEPS) ** 2))
        for name, how in {
            "one": {"noise": "gaussian", "variation": None},
            "told": {"noise": "curve", "curve": BY_HAND},
            "model": {"noise": NoiseModel(kind="curve", curve=BY_HAND)},
            "found": {"noise": "curve"},
        }.items()
    }
    assert errors["told"] == errors["model"] < 0.85 * errors["one"]
    assert errors["found"] < 1.1 * errors["told"]


def test_a_curve_wins_over_that_of_a_model() -> None:
    model = NoiseModel(kind="curve", curve=[(100, 1), (800, 2)], correlation=[[[0.4, 1.0, 0.4]]])
    settings, _ = settings_from(None, {"noise": model, "curve": BY_HAND})
    assert (settings.curve, settings.correlation) == (BY_HAND, (((0.4, 1.0, 0.4),),))
    assert settings_from(None, {"noise": model})[0].stated == model


@pytest.mark.parametrize("how", [{"sigma": 5.0}, {"sigma": "map"}, {"sigma": (1.0, 2.0)}])
def test_a_curve_has_no_sigma(how: Any) -> None:
    with pytest.raises(ValueError, match=r"does not fit noise='curve', .*; give curve, or leave sigma out"):
        Settings(noise="curve", **how)
    with pytest.raises(ValueError, match="curve belongs to noise='curve', not to noise='auto'"):
        Settings(curve=BY_HAND)


def test_a_curve_of_other_units_is_told(caplog: pytest.LogCaptureFixture) -> None:
    denoise(proportional(), noise="curve", curve=BY_HAND, method="classic")
    assert not caplog.records
    denoise(10 * proportional(), noise="curve", curve=[(1000, 5), (8000, 40)], method="classic")
    assert "times as much as the curve says: the values have other units" in caplog.text


def test_an_image_of_one_value_has_no_curve_and_no_noise() -> None:
    np.testing.assert_array_equal(denoise(np.full((9, 9, 9), 7.0), noise="curve"), 7.0)
    assert estimate_noise(np.full((9, 9, 9), 7.0), kind="curve").sigma == 0


def test_one_level_counts_for_all_intensities_where_there_are_too_few() -> None:
    flat = gaussian(np.full((20, 20, 20), 100.0), 5.0)
    found = estimate_noise(flat, kind="curve")
    assert found.kind == "curve"
    np.testing.assert_allclose(found.sigma_at(torch.tensor([0.0, 100.0, 300.0])), 5, rtol=0.15)
    assert found.doubts[0].startswith("there are too few intensities to see how the noise follows them")
    assert denoise(flat, noise="curve", method="classic").std() < 1.5


def test_volumes_that_are_denoised_together_share_the_curve_of_the_one_that_reaches_farthest() -> None:
    series = np.stack([proportional(seed) * (3 if seed == 6 else 1) for seed in range(10)], -1)
    found = noise(Settings(noise="curve", channels=3), series)
    assert found.sigma == (1.0,) * 10
    np.testing.assert_allclose(found.model.sigma_at(torch.tensor([600.0, 2100.0])), [30, 105], rtol=0.12)
    together = denoise(series, noise="curve", method="series", series=3)
    assert np.sqrt(np.mean((together[..., 0] - STEPS) ** 2)) < 0.2 * (0.05 * STEPS).mean()
