"""Noise that is stronger in some places than in others is found, and denoised as such, wherever the volume is."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nlmeans
from nlmeans import NoiseModel, denoise, denoise_with_maps, estimate_noise
from nlmeans.core.lags import covariance_over
from nlmeans.core.metrics import psnr
from nlmeans.core.tiles import piece
from nlmeans.engine.survey import Facts
from nlmeans.noise.drawn.noisy import with_noise
from nlmeans.noise.search import uneven
from nlmeans.noise.search.found import model_of_volume
from nlmeans.noise.variation import variation_at
from tests.nlmeans import zarrs
from tests.nlmeans.cli.calls import call
from tests.nlmeans.scans import RAS, save, scan
from tests.nlmeans.volumes import Floats, mosaic, piecewise, rician, sample

SHAPE = (40, 48, 44)
CLEAN = piecewise(*SHAPE)
LEVEL = 4 * 4 ** np.linspace(0, 1, SHAPE[1])[:, None] * np.ones(SHAPE)
"""From 4 to 16."""


def noisy(seed: int = 0, clean: Floats = CLEAN, level: Floats | float = LEVEL) -> Floats:
    return np.asarray(clean + level * np.random.default_rng(seed).standard_normal(clean.shape))


def level_of(model: NoiseModel, shape: tuple[int, ...]) -> Floats:
    assert model.variation is not None
    variation: Any = model.variation
    whole = piece([slice(0, n) for n in shape])
    return np.asarray((model.sigma or 0.0) * variation_at(variation, (shape[0], shape[1], shape[2]), whole).numpy())


def test_the_level_at_each_voxel_is_found() -> None:
    found = level_of(estimate_noise(noisy()), SHAPE)
    assert np.abs(found / LEVEL - 1).mean() < 0.1


def test_magnitudes_vary_in_space_too() -> None:
    random, signal = np.random.default_rng(0), np.pad(CLEAN + 60, 8)
    level = np.pad(LEVEL, 8, mode="edge")
    parts = (signal + level * random.standard_normal(signal.shape), level * random.standard_normal(signal.shape))
    model = estimate_noise(np.hypot(*parts))
    assert model.kind == "rician"
    assert np.abs(level_of(model, signal.shape) / level - 1)[signal > 0].mean() < 0.15


@pytest.mark.parametrize("seed", range(3))
def test_even_noise_has_no_variation(seed: int) -> None:
    assert estimate_noise(noisy(seed, level=8.0)).variation is None


def test_air_that_a_scanner_has_filtered_makes_no_variation() -> None:
    clean = np.pad(CLEAN + 200, 8)
    assert estimate_noise(noisy(clean=clean, level=np.where(clean > 0, 8.0, 1.0))).variation is None


@pytest.mark.parametrize("seed", [2, 3])
def test_a_little_air_that_a_scanner_has_filtered_makes_no_variation(seed: int) -> None:
    head = sample("head_clean")[12:76, 14:94, 18:58]
    air = head < 0.05 * head.max()
    assert air.mean() < 0.06
    assert estimate_noise(noisy(seed, head, np.where(air, 0.01, 0.05) * head.max())).variation is None


def test_a_bump_is_found_in_thin_volumes_too() -> None:
    shape = (64, 80, 14)
    y, z = (np.linspace(-1, 1, n) for n in shape[1:])
    level = 4 + 8 * np.exp(-(y[:, None] ** 2 + z**2) / 0.32) * np.ones(shape)
    found = level_of(estimate_noise(noisy(clean=piecewise(64, 80, 12)[..., 6:7].repeat(14, -1), level=level)), shape)
    assert np.abs(found / level - 1).mean() < 0.08


def test_two_halves_of_very_different_noise_are_told_apart() -> None:
    level = np.where(np.arange(SHAPE[2]) < 20, 3.0, 15.0) * np.ones(SHAPE)
    found = level_of(estimate_noise(noisy(level=level)), SHAPE)
    assert np.abs(found / level - 1)[..., [*range(12), *range(30, SHAPE[2])]].mean() < 0.25


def test_noise_that_varies_in_space_is_no_curve_and_a_curve_does_not_vary_in_space() -> None:
    place = np.indices((40, 40, 40))[0] / 40
    clean = mosaic() + 0.3 * place
    in_space, over_intensity = (
        estimate_noise(noisy(clean=clean, level=level)) for level in (0.02 + 0.08 * place, 0.005 + 0.08 * clean)
    )
    assert (in_space.kind, over_intensity.kind) == ("gaussian", "curve")
    assert in_space.variation is not None


def test_a_gain_that_varies_in_space_is_no_curve_though_it_makes_bright_what_it_makes_noisy() -> None:
    clean = sample("thick_clean")[30:126, 40:152] / 1000
    gain = (
        1 + 0.4 * np.linspace(-1, 1, clean.shape[0])[:, None, None] - 0.3 * np.linspace(-1, 1, clean.shape[1])[:, None]
    )
    scan = gain * noisy(clean=clean, level=0.02 * clean.max())
    assert model_of_volume(torch.from_numpy(scan)).kind == "curve"  # as long as it must be the same everywhere
    model = estimate_noise(scan)
    assert model.kind == "gaussian"
    assert model.variation is not None


def test_what_is_surely_rician_is_no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rician noise in a scan that was made evenly bright afterwards may look like a curve."""
    asked: list[Any] = []

    def credulous(values: Any, kind: str, inside: Any, possible: Any, *more: Any) -> NoiseModel:
        asked.append(possible)
        return model_of_volume(values, "curve" if "curve" in possible else kind, inside, possible, *more)

    monkeypatch.setattr(uneven, "model_of_volume", credulous)
    assert estimate_noise(rician(np.pad(mosaic(), 8), 0.05)).kind == "rician"
    assert "curve" in asked[0]


def apodised(white: Floats) -> Floats:
    """Noise of k-space under a Hann window, with a deviation of 1."""
    windows = (0.5 + 0.5 * np.cos(2 * np.pi * np.fft.fftfreq(n)) if n > 1 else np.ones(1) for n in white.shape)
    window = functools.reduce(np.multiply.outer, windows)
    coloured = np.fft.ifftn(np.fft.fftn(white) * window / np.sqrt(np.square(window).mean()))
    return np.asarray(coloured.real)


def correlated(clean: Floats, level: Floats | float, seed: int = 0) -> Floats:
    return np.asarray(clean + level * apodised(np.random.default_rng(seed).standard_normal(clean.shape)))


def bump(*shape: int) -> Floats:
    """From 1 to 3 in the middle of a plane, as parallel imaging makes it."""
    y, x = (np.linspace(-1, 1, n) for n in shape[-2:])
    return np.asarray((1 + 2 * np.exp(-np.add.outer(y**2, x**2) / 0.32)) * np.ones(shape))


def test_a_bump_of_correlated_noise_is_found() -> None:
    level = 4 * bump(*SHAPE)
    model = estimate_noise(correlated(CLEAN, level))
    assert np.abs(level_of(model, SHAPE) / level - 1).mean() < 0.15
    lags = model.autocovariance
    assert lags is not None
    np.testing.assert_allclose([lags[4, 3, 3], lags[3, 4, 3], lags[3, 3, 4]], 2 / 3, atol=0.12)
    assert "so the noise of neighbours is correlated" in model.evidence
    assert "the noise is not equally strong everywhere: its standard deviation goes from" in model.evidence[-1]


def test_a_bump_of_correlated_noise_is_found_in_an_image() -> None:
    shape = (1, 160, 160)
    clean, level = piecewise(2, 160, 160)[:1], 6 * bump(*shape)
    found = level_of(estimate_noise(correlated(clean, level)[0]), shape)
    assert np.abs(found / level - 1).mean() < 0.12


@pytest.mark.parametrize("seed", range(3))
def test_even_correlated_noise_has_no_variation(seed: int) -> None:
    model = estimate_noise(correlated(CLEAN, 8.0, seed))
    assert model.correlation is not None
    assert model.variation is None


@pytest.mark.parametrize(
    ("name", "where"), [("head_clean", np.s_[12:76, 14:94, 18:58]), ("thick_clean", np.s_[30:126, 40:152])]
)
def test_structure_that_is_stronger_than_correlated_noise_makes_no_variation(
    name: str, where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = sample(name)[where]
    given = torch.from_numpy(correlated(clean, 0.03 * clean.max(), 3))
    model = estimate_noise(given)
    assert model.variation is None
    assert model.correlation is not None
    whole, shape = [piece([slice(0, n) for n in clean.shape])], (clean.shape[0], clean.shape[1], clean.shape[2])
    monkeypatch.setattr(uneven, "MOST_SPREAD", 9.0)
    assert uneven.variation_of(given, None, shape, whole, False, model.correlation) is not None


def test_correlated_noise_in_air_that_a_scanner_has_filtered_makes_no_variation() -> None:
    clean = np.pad(CLEAN + 200, 8)
    assert estimate_noise(correlated(clean, np.where(clean > 0, 8.0, 1.0))).variation is None


def test_noise_that_waves_over_more_voxels_than_a_block_counts_as_even() -> None:
    kernel = np.exp(-np.square(np.fft.fftfreq(SHAPE[1])[:, None] * SHAPE[1]) / 2 / 4**2) * np.ones(SHAPE)
    white = np.random.default_rng(0).standard_normal(SHAPE)
    long = np.fft.ifftn(np.fft.fftn(white) * kernel).real
    model = estimate_noise(CLEAN + 3 * bump(*SHAPE) * long / long.std())
    assert model.correlation is not None
    assert model.variation is None


def test_blocks_of_pieces_say_what_those_of_the_whole_do() -> None:
    given = torch.from_numpy(correlated(CLEAN, 4 * bump(*SHAPE)))
    correlation = model_of_volume(given).correlation
    whole, pieces = (
        [piece([slice(first, last), slice(0, SHAPE[1]), slice(0, SHAPE[2])]) for first, last in ends]
        for ends in ([(0, 40)], [(0, 18), (20, 22), (24, 40)])  # of which one is thinner than a block
    )
    parts = torch.cat([given[where] for where in pieces])
    found, expected = (
        uneven.variation_of(values, None, SHAPE, places, False, correlation)
        for values, places in ((parts, pieces), (given, whole))
    )
    np.testing.assert_allclose(np.log(np.array(found)), np.log(np.array(expected)), atol=0.2)


def test_a_volume_thinner_than_a_block_has_none() -> None:
    found, _, _ = uneven.blocks_in_pieces(
        torch.zeros(2, 8, 8), None, (4, 8, 8), [piece([slice(0, 2), slice(0, 8), slice(0, 8)])], np.ones((1, 1, 1))
    )
    assert len(found.finest) == 0


def test_coefficients_of_noise_are_independent_and_begin_where_there_is_least_structure() -> None:
    lags, size = torch.tensor([[[0.2, 0.6, 1.0, 0.6, 0.2]]], dtype=torch.float64), (4, 4, 4)
    along = uneven.coefficients_of_blocks(lags, size)
    np.testing.assert_allclose(along.T @ covariance_over(lags, size).numpy() @ along, np.eye(along.shape[1]), atol=1e-9)
    places = np.indices(size).reshape(3, -1)
    wave = np.sin(places.sum(0) / 2)
    half = along.shape[1] // 2
    assert np.abs(wave @ along[:, :half]).max() < 0.2 * np.abs(wave @ along[:, half:]).max()


@pytest.mark.parametrize("method", ["classic", "bayes"])
def test_the_default_gains_more_than_with_one_level_in_correlated_noise(method: str) -> None:
    given = correlated(CLEAN, 4 * bump(*SHAPE))
    found, even = (denoise(given, method=method, **how) for how in ({}, {"variation": None}))
    assert psnr(CLEAN, found) > psnr(CLEAN, even) + 0.5


@pytest.mark.parametrize("method", ["classic", "bayes", "wiener"])
def test_the_default_gains_more_than_with_one_level(method: str) -> None:
    given = noisy()
    found, even = (denoise(given, method=method, **how) for how in ({}, {"variation": None}))
    told = denoise(given, LEVEL.astype(np.float32), method=method)
    assert psnr(CLEAN, found) > psnr(CLEAN, even) + 0.5
    assert psnr(CLEAN, found) > psnr(CLEAN, told) - 2.5


def test_the_model_that_was_found_gives_the_same_result_when_it_is_stated() -> None:
    given = noisy()
    stated = denoise(given, noise=estimate_noise(given), method="classic")
    np.testing.assert_allclose(stated, denoise(given, method="classic"), atol=1e-3)


def test_tiles_have_the_level_of_their_place() -> None:
    given = np.concatenate([noisy(), noisy(1)])
    whole, tiles = (denoise(given, method="classic", search_radius=1, memory=memory) for memory in (None, "20MB"))
    np.testing.assert_allclose(tiles, whole, atol=1e-3)


def test_the_noise_map_shows_it() -> None:
    with_maps = denoise_with_maps(noisy(), method="classic")
    assert np.abs(with_maps.noise_map / LEVEL - 1).mean() < 0.1


def test_a_stated_variation_scales_sigma() -> None:
    given, levels = noisy(), LEVEL[:1, :, :1] / 4
    stated = denoise(given, 4.0, variation=levels, method="classic", noise="gaussian", correlation=None)
    told = denoise(given, LEVEL.astype(np.float32), method="classic", noise="gaussian", correlation=None)
    np.testing.assert_allclose(stated, told, atol=1e-2)


def test_noise_of_the_model_varies_as_it_says() -> None:
    model = NoiseModel(sigma=2.0, variation=[[[0.5, 1.5]]])
    assert NoiseModel.from_json(model.to_json()) == model
    assert str(model) == "gaussian noise, sigma 2, in parts 1 to 3"
    drawn = with_noise(torch.zeros(60, 60, 3), model, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(drawn.std((0, 1)), [1, 2, 3], rtol=0.05)


def test_a_volume_that_is_read_in_parts_says_that_its_noise_counts_as_even() -> None:
    model = estimate_noise(noisy())
    even = model.without_variation()
    assert even.variation is None
    assert "the noise varies in space, from" in even.doubts[-1]
    assert "counts as equally strong everywhere" in even.doubts[-1]
    assert estimate_noise(noisy(level=8.0)).without_variation().doubts == ()


def test_chunks_of_dask_share_one_level() -> None:
    array = pytest.importorskip("dask.array").from_array(noisy().astype(np.float32), chunks=24)
    lazy = denoise(array, method="classic").compute(scheduler="sync")
    model = estimate_noise(noisy().astype(np.float32))
    even = denoise(noisy().astype(np.float32), model.sigma, method="classic")
    assert np.abs(lazy - even).mean() < 0.1


@pytest.mark.parametrize("how", [{}, {"sigma": "map"}, {"sigma": 3.0, "noise": "poisson"}])
def test_a_variation_without_a_sigma_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="variation is relative to sigma, but sigma="):
        denoise(noisy(), variation=[[[0.5, 1.5]]], **how)


def test_a_variation_is_read_on_the_device_of_the_volume() -> None:
    result = denoise(torch.from_numpy(noisy()).float(), 4.0, variation=[[[1.0, 2.0]]], method="classic")
    assert result.device.type == "cpu"


def test_an_ome_zarr_has_the_level_of_each_place(tmp_path: Path) -> None:
    given = noisy().astype(np.float32)
    zarrs.save(tmp_path / "in.zarr", given, "zyx", chunk=16)
    whole = zarrs.in_memory(given, "zyx", method="classic", search_radius=1)
    said = nlmeans.denoise_zarr(tmp_path / "in.zarr", tmp_path / "out.zarr", method="classic", search_radius=1)
    assert "in parts" in said
    np.testing.assert_allclose(zarrs.level(tmp_path / "out.zarr"), whole, atol=0.1)


def test_a_nifti_and_its_record_have_the_level_of_each_place(tmp_path: Path) -> None:
    source = save(scan(noisy(), "f4", RAS), tmp_path / "in.nii.gz")
    said = call("denoise", source, tmp_path / "out.nii.gz", "--method", "classic", "--noise-map", tmp_path / "map.nii")
    assert "in parts" in said.output
    record = json.loads((tmp_path / "out.json").read_text())
    assert np.shape(record["noise"]["variation"]) == (9, 9, 9)
    assert np.abs(nlmeans.load_image(tmp_path / "map.nii").get_fdata() / LEVEL - 1).mean() < 0.1
    even = call("denoise", source, tmp_path / "even.nii.gz", "--method", "classic", "--even")
    assert "in parts" not in even.output.splitlines()[0]


def test_facts_come_back_from_a_record_with_the_variation() -> None:
    model = estimate_noise(noisy())
    facts = Facts((8.0,), (127.5,), 31.9, model)
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
