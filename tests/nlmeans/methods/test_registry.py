"""Every method: what it gains, and that tiles, images, channels, maps and masks are all the same to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlmeans import METHODS, denoise, preview
from nlmeans.core.axes import Axes
from nlmeans.core.metrics import psnr
from nlmeans.engine import plan as engine_plan
from nlmeans.methods.automatic import pick
from nlmeans.methods.method import h_of_contrast
from tests.nlmeans.volumes import piecewise

SIGMA = 10.0
NAMES = list(METHODS)
LEAST_GAIN = {
    "classic": 11,
    "patchwise": 12,
    "linear": 10,
    "stochastic": 11,
    "dct": 12,
    "wiener": 13,
    "pri": 13,
    "bayes": 13,
    "best": 13,
    "subspace": 11,
}


def noisy(*shape: int, sigma: Any = SIGMA) -> tuple[Any, Any]:
    clean = piecewise(*shape).astype(np.float32)
    random = np.random.default_rng(0)
    return clean, (clean + sigma * random.standard_normal(clean.shape)).astype(np.float32)


def test_every_method_has_a_least_gain_here() -> None:
    assert set(LEAST_GAIN) == set(METHODS)


@pytest.mark.parametrize("method", NAMES)
def test_noise_is_removed_from_a_volume(method: str) -> None:
    clean, image = noisy(20, 22, 24)
    denoised = denoise(image, SIGMA, method=method)
    assert psnr(clean, denoised) - psnr(clean, image) > LEAST_GAIN[method]


@pytest.mark.parametrize("method", NAMES)
def test_noise_is_removed_from_an_image(method: str) -> None:
    clean, image = noisy(48, 50)
    denoised = denoise(image, SIGMA, method=method)
    assert psnr(clean, denoised) - psnr(clean, image) > 4


@pytest.mark.parametrize("method", NAMES)
def test_tiles_give_the_untiled_result(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, image = noisy(12, 180, 14)
    whole = denoise(image, SIGMA, method=method)
    sizes = []
    original = engine_plan.tile_shape

    def small_tiles(*arguments: Any) -> Any:
        sizes.append(original(*arguments))
        return 12, 23, 14

    monkeypatch.setattr(engine_plan, "tile_shape", small_tiles)
    rounding = 5e-3 if method == "linear" else 1e-3
    assert denoise(image, SIGMA, method=method) == pytest.approx(whole, abs=rounding)
    assert sizes == [(12, 180, 14)]


@pytest.mark.parametrize(
    ("method", "search_radius"), [("classic", (3, 2, 1)), ("wiener", 2), ("linear", 3), ("bayes", 2)]
)
def test_tiles_and_previews_of_windows_are_those_of_the_whole(
    method: str, search_radius: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of attention lie where they lie in the whole volume."""
    _, image = noisy(12, 90, 14)
    settings: dict[str, Any] = {"method": method, "search_radius": search_radius, "backend": "windowed"}
    whole = denoise(image, SIGMA, **settings)
    rounding = 5e-2 if method == "linear" else 5e-3
    assert preview(image, 41, 1, SIGMA, **settings) == pytest.approx(whole[:, 41], abs=rounding)
    monkeypatch.setattr(engine_plan, "tile_shape", lambda *_: (12, 23, 7))
    assert denoise(image, SIGMA, **settings) == pytest.approx(whole, abs=rounding)


@pytest.mark.parametrize("method", NAMES)
def test_preview_is_a_slice_of_the_whole(method: str) -> None:
    _, image = noisy(12, 140, 14)
    whole = denoise(image, SIGMA, method=method)
    assert preview(image, 71, 1, SIGMA, method=method) == pytest.approx(whole[:, 71], abs=1e-3)


@pytest.mark.parametrize("method", NAMES)
def test_a_map_of_sigma_beats_one_number_where_noise_varies(method: str) -> None:
    sigma = np.linspace(2, 18, 24) * np.ones((20, 22, 24))
    clean, image = noisy(20, 22, 24, sigma=sigma)
    varying, uniform = denoise(image, sigma, method=method), denoise(image, 10.0, method=method)
    assert psnr(clean, varying) > psnr(clean, uniform) + 0.5


@pytest.mark.parametrize("method", NAMES)
def test_offset_and_scale_of_the_intensities_do_not_matter(method: str) -> None:
    _, image = noisy(14, 15, 16)
    plain = denoise(image, SIGMA, method=method)
    assert denoise(3 * image + 500, 3 * SIGMA, method=method) == pytest.approx(3 * plain + 500, abs=0.02)


@pytest.mark.parametrize("method", NAMES)
def test_a_constant_volume_and_tiny_ones_come_back(method: str) -> None:
    assert np.array_equal(denoise(np.full((9, 8, 7), 41.5), 3.0, method=method), np.full((9, 8, 7), 41.5))
    for shape in ((1, 1, 1), (2, 3, 2), (1, 5), (5, 1, 7)):
        result = denoise(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), 0.1, method=method)
        assert result.shape == shape
        assert np.isfinite(result).all()


@pytest.mark.parametrize("method", NAMES)
def test_several_channels(method: str) -> None:
    clean, image = noisy(14, 16, 18)
    several = np.stack([image, 200 - image], axis=-1)
    denoised = denoise(several, SIGMA, method=method, channels=-1)
    assert denoised.shape == several.shape
    assert psnr(clean, denoised[..., 0]) > psnr(clean, image) + 3


@pytest.mark.parametrize("method", NAMES)
def test_runs_repeat_bit_for_bit(method: str) -> None:
    _, image = noisy(14, 16, 18)
    assert np.array_equal(denoise(image, SIGMA, method=method), denoise(image, SIGMA, method=method))


@pytest.mark.parametrize("method", ["classic", "patchwise", "pri", "bayes"])
def test_an_image_is_denoised_alike_whichever_axis_of_a_volume_has_length_one(method: str) -> None:
    _, image = noisy(1, 24, 26)
    expected = denoise(image, SIGMA, method=method)
    for axis in (1, 2):
        turned = np.moveaxis(image, 0, axis)
        assert np.moveaxis(denoise(turned, SIGMA, method=method), axis, 0) == pytest.approx(expected, abs=1e-3)


def test_a_thick_axis_may_be_any_axis() -> None:
    _, image = noisy(8, 24, 26)
    thick_first = denoise(image, SIGMA, method="bayes", spacing=(7, 1, 1))
    thick_last = denoise(np.moveaxis(image, 0, 2), SIGMA, method="bayes", spacing=(1, 1, 7))
    assert np.moveaxis(thick_last, 2, 0) == pytest.approx(thick_first, abs=SIGMA)
    assert np.abs(np.moveaxis(thick_last, 2, 0) - thick_first).mean() < 0.02 * SIGMA


def test_linear_fits_a_smooth_ramp_better_than_classic() -> None:
    z, y, x = np.meshgrid(*[np.linspace(0, 1, 24)] * 3, indexing="ij")
    ramp = 400 * (z + 0.5 * y + 0.3 * x * x)
    noisy_ramp = (ramp + 20 * np.random.default_rng(0).standard_normal(ramp.shape)).astype(np.float32)
    flat, tilted = denoise(noisy_ramp, 20, method="classic"), denoise(noisy_ramp, 20, method="linear")
    assert psnr(ramp, tilted) > psnr(ramp, flat) + 1.5


def series(volumes: int, sigma: float = SIGMA) -> tuple[Any, Any]:
    """Signals that decay over the volumes at two rates, mixed by place."""
    share = piecewise(12, 13, 14) / 150
    time = np.arange(1, volumes + 1) / (volumes + 1)
    clean = 300 * (share[..., None] * np.exp(-3 * time) + (1 - share[..., None]) * np.exp(-time))
    noise = sigma * np.random.default_rng(0).standard_normal(clean.shape)
    return clean.astype(np.float32), (clean + noise).astype(np.float32)


def test_subspace_uses_what_the_volumes_of_a_series_have_in_common() -> None:
    clean, image = series(24)
    one_by_one = denoise(image, SIGMA, method="subspace", series=-1)
    together = denoise(image, SIGMA, method="subspace", channels=-1)
    assert psnr(clean, together) > psnr(clean, one_by_one) + 3
    assert psnr(clean, together) > psnr(clean, image) + 12


@pytest.mark.parametrize(("method", "gain"), [("classic", 1.0), ("patchwise", 1.0), ("bayes", 0.1)])
def test_weights_shared_by_the_volumes_of_a_series_are_better_than_their_own(method: str, gain: float) -> None:
    clean, image = series(6, sigma=20)
    own, shared = (denoise(image, 20, method=method, **axis) for axis in ({"series": -1}, {"channels": -1}))
    assert psnr(clean, shared) > psnr(clean, own) + gain


def test_shared_weights_know_the_sigma_of_each_volume() -> None:
    clean, image = series(6)
    image[..., 0] += 3 * SIGMA * np.random.default_rng(1).standard_normal(image.shape[:-1])
    levels = [SIGMA * np.sqrt(10), *[SIGMA] * 5]
    known, unknown = (denoise(image, sigma, method="classic", channels=-1) for sigma in (levels, SIGMA))
    assert psnr(clean, known) > psnr(clean, unknown) + 1


def test_stochastic_repeats_with_the_same_seed_and_differs_with_another() -> None:
    _, image = noisy(14, 15, 16)
    first, again, other = (denoise(image, SIGMA, method="stochastic", seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_auto_is_bayes_where_time_and_memory_allow_it() -> None:
    assert pick((96, 112, 96), 1, "auto", 2**31)[0] == "bayes"
    assert pick((1, 512, 512), 1, "auto", 2**31)[0] == "bayes"


@pytest.mark.parametrize(
    ("shape", "backend", "memory", "name", "reason"),
    [
        ((96, 112, 96), "windowed", 2**31, "classic", "attention"),
        ((256, 256, 256), "auto", 2**25, "wiener", "tiles fit into the memory"),
        ((64, 64, 64), "auto", 2**18, "classic", "tiles fit into the memory"),
        ((1000, 900, 800), "auto", 2**37, "wiener", "time that 720,000,000 voxels leave"),
    ],
)
def test_auto_says_why_it_is_another(shape: Axes, backend: str, memory: int, name: str, reason: str) -> None:
    picked, why = pick(shape, 1, backend, memory)
    assert picked == name
    assert reason in why


def test_auto_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    _, image = noisy(8, 9, 10)
    with caplog.at_level("INFO", logger="nlmeans"):
        denoise(image, SIGMA)
    assert "method auto picked bayes: the best at every level of noise" in caplog.text


def test_h_grows_with_the_contrast_between_its_bounds() -> None:
    volume, flat = (3, 3, 3), (0, 3, 3)
    assert [h_of_contrast(contrast, volume) for contrast in (0, 20, 1000)] == pytest.approx([0.6, 0.77, 1.0])
    assert h_of_contrast(20, flat) == 1.0
