"""dask arrays give the same numbers as arrays in memory, for any chunks."""

from __future__ import annotations

import dataclasses
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
from dask.callbacks import Callback

from nlmeans import METHODS, Settings, denoise, estimate_sigma
from nlmeans.core.metrics import psnr
from nlmeans.engine.dask.graph import denoised_lazily
from tests.nlmeans.engine.dask.conftest import QUICK, SIGMA, assert_same, volume
from tests.nlmeans.volumes import decaying_series, piecewise


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("linear", "best", "subspace", "series")])
def test_every_family_of_methods_with_uneven_chunks(method: str) -> None:
    noisy = volume(20, 45, 30)
    array = da.from_array(noisy, chunks=((5, 12, 3), (20, 25), (30,)))
    result = denoise(array, method=method, search_radius=2)
    assert result.chunks == array.chunks
    assert_same(result, denoise(noisy, method=method, search_radius=2))


def test_planes_are_fitted_up_to_their_own_rounding() -> None:
    noisy = volume(20, 45, 30)
    result = denoise(da.from_array(noisy, chunks=(12, 20, 30)), SIGMA, method="linear", search_radius=2)
    np.testing.assert_allclose(result.compute(), denoise(noisy, SIGMA, method="linear", search_radius=2), atol=0.01)


@pytest.mark.parametrize("method", ["classic", "bayes"])
def test_the_strength_is_that_of_an_array_in_memory(method: str) -> None:
    noisy = volume(12, 25, 20)
    array = da.from_array(noisy, chunks=(12, 13, 20))
    given: dict[str, Any] = {"method": method, "search_radius": 2, "strength": 0.5}
    assert_same(denoise(array, SIGMA, **given), denoise(noisy, SIGMA, **given))


def test_chunks_smaller_than_the_halo() -> None:
    noisy = volume(9, 16, 20)
    array = da.from_array(noisy, chunks=(4, 7, 10))
    assert_same(denoise(array, method="wiener"), denoise(noisy, method="wiener"))


@pytest.mark.parametrize(
    "settings", [{}, {"noise": "rician"}, {"memory": 2**24}, {"strength": 0.9}], ids=lambda s: "".join(s) or "plain"
)
def test_the_volumes_of_a_series_together(settings: dict[str, Any]) -> None:
    clean, noisy = decaying_series(12, SIGMA)
    array = da.from_array(noisy, chunks=(5, 13, 9, 4))
    result = denoise(array, SIGMA, method="series", series=-1, **settings)
    expected = denoise(noisy, SIGMA, method="series", series=-1, **settings)
    assert result.chunks == array.chunks
    np.testing.assert_allclose(result.compute(), expected, rtol=0, atol=1e-3 * SIGMA)
    assert psnr(clean, expected) > psnr(clean, noisy) + 10


def test_the_noise_of_a_series_is_what_its_volumes_do_not_share() -> None:
    noisy = decaying_series(12, SIGMA)[1]
    result = denoise(da.from_array(noisy, chunks=(5, 13, 9, 4)), method="series", series=-1)
    np.testing.assert_allclose(result.compute(), denoise(noisy, method="series", series=-1), rtol=0, atol=1e-3 * SIGMA)


def test_the_noise_of_a_series_has_one_level_for_all_chunks() -> None:
    clean = decaying_series(12, SIGMA)[0]
    level = np.linspace(2, 24, 14) * np.ones(clean.shape[:3])
    noisy = (clean + level[..., None] * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)
    result = denoise(da.from_array(noisy, chunks=(6, 13, 14, 12)), method="series", series=-1).compute()
    assert psnr(clean, result) > psnr(clean, noisy) + 5


@pytest.mark.parametrize("despeckle", [False, True])
def test_a_constant_series_comes_back(despeckle: bool) -> None:
    constant = np.full((9, 8, 7, 12), 41.5)
    array = da.from_array(constant, chunks=(5, 8, 7, 12))
    for volumes in (array, constant):
        result = denoise(volumes, method="series", series=-1, despeckle=despeckle)
        np.testing.assert_array_equal(np.asarray(result), constant)


def test_a_map_of_sigma_for_the_volumes_of_a_series() -> None:
    clean, _ = decaying_series(12, SIGMA)
    level = np.linspace(5, 15, 14) * np.ones(clean.shape[:3])
    noisy = clean + level[..., None] * np.random.default_rng(0).standard_normal(clean.shape)
    result = denoise(da.from_array(noisy, chunks=(12, 6, 14, 12)), level, method="series", series=-1)
    expected = denoise(noisy, level, method="series", series=-1)
    np.testing.assert_allclose(result.compute(), expected, rtol=0, atol=1e-3 * SIGMA)


@pytest.mark.parametrize(
    ("shape", "chunks", "axes"),
    [
        ((40, 50), (15, 20), {}),
        ((3, 12, 16, 20), (1, 8, 16, 9), {"channels": 0}),
        ((12, 16, 20, 3), (7, 16, 9, 2), {"series": -1}),
        ((3, 12, 16, 20, 2), (2, 12, 7, 20, 1), {"channels": -1, "series": 0}),
    ],
)
def test_with_any_axes(shape: tuple[int, ...], chunks: tuple[int, ...], axes: dict[str, int]) -> None:
    noisy = 100 + SIGMA * np.random.default_rng(0).standard_normal(shape)
    array = da.from_array(noisy, chunks=chunks)
    result = denoise(array, **QUICK, **axes)
    assert result.chunks == array.chunks
    assert_same(result, denoise(noisy, **QUICK, **axes))
    np.testing.assert_allclose(estimate_sigma(array, **axes), estimate_sigma(noisy, **axes))


MASK, MAP = piecewise(12, 16, 20) > 50, 5 + piecewise(12, 16, 20) / 40


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": "rician"},
        {"noise": "poisson", "sigma": 3.0, "gain": 2.0, "offset": 5.0},
        {"noise": "curve", "curve": [(0, 5), (200, 25)]},
        {"despeckle": True},
        {"h": 9.0, "sigma": SIGMA, "dtype": "float64"},
        {"mask": MASK},
        {"mask": MASK, "sigma": MAP},
        {"mask": torch.from_numpy(MASK), "sigma": MAP},
        {"mask": da.from_array(MASK, chunks=5), "sigma": da.from_array(MAP, chunks=(12, 3, 20))},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "uint16", "int32"])
def test_with_any_settings_and_types(dtype: str, settings: dict[str, Any]) -> None:
    noisy = volume(12, 16, 20, dtype=dtype)
    inside = {name: np.asarray(given) if name in ("mask", "sigma") else given for name, given in settings.items()}
    if np.ndim(inside.get("sigma", 0)) == 0 and "sigma" in inside:
        inside["sigma"] = float(inside["sigma"])
    array = da.from_array(noisy, chunks=(5, 9, 20))
    assert_same(denoise(array, **QUICK, **settings), denoise(noisy, **QUICK, **inside))


def test_blocks_larger_than_the_memory_are_cut_into_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = volume(30, 160, 120)
    array = da.from_array(noisy, chunks=noisy.shape)
    shapes = []
    run = METHODS["classic"].run

    def spied(values: Any, *arguments: Any) -> Any:
        shapes.append(values.shape)
        return run(values, *arguments)

    monkeypatch.setitem(METHODS, "classic", dataclasses.replace(METHODS["classic"], run=spied))
    memory = 16 * 2**20
    result = denoise(array, SIGMA, method="classic", search_radius=1, memory=memory)
    assert_same(result, denoise(noisy, SIGMA, method="classic", search_radius=1))
    assert len(shapes) > 1 + 1


class Tasks(Callback):  # type: ignore[misc]
    """List of the tasks that ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        super().__init__(pretask=lambda key, *_: self.ran.append(str(key[0] if isinstance(key, tuple) else key)))


def test_nothing_is_computed_before_the_result_is() -> None:
    noisy = da.from_array(volume(12, 16, 20), chunks=8).map_blocks(lambda block: block + 1, dtype="float32")
    with Tasks() as tasks:
        result = denoise(noisy, **QUICK)
        assert tasks.ran == []
        result.compute()
    assert sum(key.endswith("-noise") for key in tasks.ran) == 1
    assert sum(key.endswith("facts") for key in tasks.ran) == 1
    assert sum(key.endswith("look") for key in tasks.ran) == noisy.npartitions


def test_the_method_is_picked_where_it_is_called(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nlmeans")
    denoise(da.zeros((2000, 1000, 1000), chunks=500, dtype="uint8"), SIGMA)
    assert "method auto picked wiener" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sigma": "map"}, ValueError, "sigma='map' needs the whole volume in memory"),
        ({"sigma": MAP, "noise": "poisson"}, ValueError, "sigma is the read noise of the detector; give a number"),
        ({"sigma": MAP, "noise": "curve"}, ValueError, "a map of sigma does not fit noise='curve'"),
        ({"sigma": -MAP}, ValueError, "sigma=.* must not be negative"),
        ({"sigma": MAP[1:]}, ValueError, r"sigma has shape \(11, 16, 20\)"),
        ({"mask": MASK[1:]}, ValueError, r"mask has shape \(11, 16, 20\)"),
        ({"out": np.zeros((12, 16, 20))}, ValueError, "out= and progress= do not work with a dask array"),
        ({"progress": True}, ValueError, "dask's ProgressBar"),
        ({"channels": 7}, ValueError, "channels=7 is not an axis"),
        ({"sigma": (1.0, 2.0)}, ValueError, "sigma has 2 numbers"),
    ],
)
def test_refused_with_the_argument_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        denoise(da.zeros((12, 16, 20), chunks=8), **arguments).compute()


def test_other_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match="array is a ndarray; give a dask array"):
        denoised_lazily(np.zeros((4, 4)), Settings(), None, None)
    with pytest.raises(TypeError, match="complex128; give numpy arrays of real numbers"):
        denoise(da.zeros((4, 4), dtype=complex))
    unknown = da.zeros((8, 8), chunks=4)
    with pytest.raises(ValueError, match=r"unknown shape .* compute_chunk_sizes"):
        denoise(unknown[unknown[:, 0] > -1])
