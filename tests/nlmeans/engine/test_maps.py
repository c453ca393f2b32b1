"""What is known of every voxel besides its denoised value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise, denoise_with_maps
from tests.nlmeans.volumes import decaying_series, noisy_piecewise

QUICK: dict[str, Any] = {"method": "classic", "search_radius": 1}


def test_the_result_is_that_of_denoise_and_the_residual_is_what_it_removed() -> None:
    _, noisy = noisy_piecewise(9, 10, 11, sigma=8.0)
    volume = noisy.round().astype(np.int16)
    found = denoise_with_maps(volume, 8.0, **QUICK)
    np.testing.assert_array_equal(found.volume, denoise(volume, 8.0, **QUICK))
    np.testing.assert_array_equal(found.residual, volume - found.volume)
    assert found.residual.dtype == np.float32


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_noise_map_is_sigma_as_given(kind: str) -> None:
    _, noisy = noisy_piecewise(9, 10, 11, sigma=8.0)
    levels = np.linspace(2, 20, noisy.size).reshape(noisy.shape).astype(np.float32)
    volume: Any = torch.from_numpy(noisy) if kind == "torch" else noisy
    for sigma in (8.0, levels):
        found = denoise_with_maps(volume, sigma, **QUICK)
        assert type(found.noise_map) is type(found.residual) is type(volume)
        np.testing.assert_array_equal(np.asarray(found.noise_map), np.float32(sigma) * np.ones_like(noisy))
    assert found.rank_map is None


def test_each_volume_and_each_channel_has_its_own_sigma_in_the_map() -> None:
    volumes = np.stack([noisy_piecewise(9, 10, 11, sigma=sigma)[1] for sigma in (4.0, 8.0)], -1)
    for axis in ("series", "channels"):
        found = denoise_with_maps(volumes, (4.0, 8.0), **{axis: 3}, **QUICK)
        np.testing.assert_array_equal(found.noise_map[0, 0, 0], [4.0, 8.0])
        assert found.noise_map.shape == volumes.shape


def test_the_noise_of_counts_follows_the_result() -> None:
    counts = np.random.default_rng(0).poisson(np.linspace(5, 50, 1000).reshape(10, 10, 10)).astype(np.float32)
    found = denoise_with_maps(3 * counts + 7, 2.0, noise="poisson", gain=3.0, offset=7.0, **QUICK)
    expected = np.sqrt(np.maximum(3 * (np.asarray(found.volume) - 7), 0) + 4)
    np.testing.assert_allclose(found.noise_map, expected, rtol=1e-5)


def test_the_noise_of_a_curve_follows_the_result() -> None:
    clean = np.linspace(50, 500, 1000).reshape(10, 10, 10)
    noisy = clean * (1 + 0.1 * np.random.default_rng(0).standard_normal(clean.shape))
    found = denoise_with_maps(noisy, noise="curve", curve=[(100, 10), (400, 40)], **QUICK)
    expected = np.interp(found.volume, [100, 400], [10, 40])
    np.testing.assert_allclose(found.noise_map, expected, rtol=1e-5)


def test_a_series_has_one_map_of_sigma_and_one_of_the_components_that_were_kept() -> None:
    _, noisy = decaying_series(12, 3.0)
    inside = np.zeros(noisy.shape[:3], bool)
    inside[2:9] = True
    found = denoise_with_maps(noisy, series=3, mask=inside)
    assert found.noise_map.shape == noisy.shape[:3]
    np.testing.assert_allclose(found.noise_map, 3.0, rtol=0.1)
    assert found.rank_map is not None
    assert 0.1 < np.mean(found.rank_map[inside]) < 3  # two decays; the means of small patches do not count
    np.testing.assert_array_equal(found.residual[~inside], 0)


def test_the_rank_does_not_depend_on_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    _, noisy = decaying_series(12, 3.0)
    whole = denoise_with_maps(noisy, 3.0, method="series", series=3)
    monkeypatch.setattr("nlmeans.engine.plan.tile_shape", lambda *_: (6, 6, 8))
    tiled = denoise_with_maps(noisy, 3.0, method="series", series=3)
    np.testing.assert_allclose(tiled.rank_map, whole.rank_map, atol=1e-3)


def test_a_dask_array_has_no_maps() -> None:
    dask = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match=r"dask array, which has no maps; give volume.compute\(\)"):
        denoise_with_maps(dask.zeros((8, 8, 8)))
