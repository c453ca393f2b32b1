"""A preview equals the same slice of the whole result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise, preview

SIGMA = 5.0


@pytest.fixture
def noisy() -> np.ndarray[Any, np.dtype[np.float32]]:
    ramp = np.linspace(0, 100, 18)[:, None, None] * np.ones((18, 20, 22))
    return (ramp + SIGMA * np.random.default_rng(0).standard_normal(ramp.shape)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("index", [0, 9, -1])
def test_equals_that_slice_of_the_whole(noisy: Any, index: int, axis: int) -> None:
    whole = denoise(noisy, SIGMA)
    assert preview(noisy, index, axis, SIGMA) == pytest.approx(whole.take(index, axis), abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": "rician"},
        {"spacing": (1, 1, 5)},
        {"h": 7.0, "patch_radius": 0, "search_radius": (1, 2, 3)},
        {"backend": "loop"},
        {"memory": 20_000_000},
    ],
)
def test_with_any_settings(noisy: Any, settings: dict[str, Any]) -> None:
    whole = denoise(noisy, SIGMA, **settings)
    assert preview(noisy, 7, 1, SIGMA, **settings) == pytest.approx(whole[:, 7], abs=1e-3)


def test_with_an_estimated_sigma_a_map_and_a_mask(noisy: Any) -> None:
    mask = noisy > 30
    sigma = np.linspace(3, 8, 22) * np.ones(noisy.shape)
    assert preview(noisy, 4) == pytest.approx(denoise(noisy)[4], abs=1e-4)
    assert preview(noisy, 9, mask=mask) == pytest.approx(denoise(noisy, mask=mask)[9], abs=1e-4)
    assert preview(noisy, 4, 2, sigma) == pytest.approx(denoise(noisy, sigma)[:, :, 4], abs=1e-3)


def test_channels_and_series_keep_their_axes(noisy: Any) -> None:
    several = np.stack([noisy, noisy[::-1], noisy.transpose(0, 1, 2) * 2], axis=-1)
    for names in ({"series": -1}, {"channels": 3}):
        whole = denoise(several, SIGMA, **names)
        assert preview(several, 5, 0, SIGMA, **names) == pytest.approx(whole[5], abs=1e-4)


def test_type_and_dtype_are_those_of_the_volume(noisy: Any) -> None:
    assert preview(noisy.astype(np.int16), 3, sigma=SIGMA).dtype == np.int16
    assert preview(torch.from_numpy(noisy), 3, sigma=SIGMA).dtype == torch.float32
    assert preview(torch.from_numpy(noisy), 3, sigma=SIGMA).shape == (20, 22)


def test_reads_only_the_slab_that_it_depends_on(noisy: Any) -> None:
    whole = denoise(noisy, SIGMA, method="classic", h=SIGMA)
    noisy[:5] = np.nan
    noisy[14:] = np.nan
    assert preview(noisy, 9, sigma=SIGMA, method="classic", h=SIGMA) == pytest.approx(
        whole[9], abs=1e-4
    )  # search 3 + patch 1 on either side


@pytest.mark.parametrize(
    ("index", "axis", "message"),
    [(18, 0, "index=18 is not among the 18 slices"), (0, 3, "axis=3 is not an axis"), (0, 1.5, "axis=1.5 must be")],
)
def test_no_such_slice(noisy: Any, index: int, axis: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        preview(noisy, index, axis, SIGMA)


def test_an_image_has_no_slices() -> None:
    with pytest.raises(ValueError, match="axis=0 must be one of the three spatial axes"):
        preview(np.ones((8, 8)), 0, sigma=1.0)
