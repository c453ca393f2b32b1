"""Plans: any box equals that box of the whole volume, and a device that runs out of memory is no obstacle."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import dask.array
import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans import Settings, denoise, usual_h
from nlmeans.core.layout import Layout
from nlmeans.core.metrics import psnr
from nlmeans.core.progress import Report
from nlmeans.core.tiles import Piece, piece
from nlmeans.engine import plan as engine_plan
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.methods.method import Options
from nlmeans.methods.registry import METHODS
from nlmeans.noise.kinds import FOLLOWING
from tests.nlmeans.volumes import noisy_piecewise

SIGMA = 10.0


def planned(volume: Any, index: int = 0, mask: Any = None, sigma_map: Any = None, **settings: Any) -> Plan:
    made = Settings(**{"sigma": SIGMA, "method": "classic", "search_radius": 2, **settings})
    layout = Layout.of(volume, made.channels, made.series)
    return Plan.of(volume, index, layout, Choices.of(made, layout), mask=mask, sigma_map=sigma_map)


BOX = piece([slice(3, 9), slice(0, 7), slice(10, 11)])


@pytest.mark.parametrize("method", ["classic", "wiener", "bayes"])
@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_a_box_equals_that_box_of_the_whole(noise: str, method: str) -> None:
    _, image = noisy_piecewise(14, 16, 18, sigma=SIGMA)
    plan = planned(np.abs(image), noise=noise, method=method)
    whole: Any = plan.run(plan.layout.everywhere)
    np.testing.assert_allclose(np.asarray(plan.run(BOX)), whole[BOX], atol=1e-4)
    expected = denoise(np.abs(image), SIGMA, noise=noise, method=method, search_radius=2)
    np.testing.assert_allclose(whole, expected, atol=1e-5)


@pytest.mark.parametrize("strength", [0.6, 1.8])
@pytest.mark.parametrize("noise", ["gaussian", "rician", "poisson", "curve"])
def test_a_box_has_the_strength_of_the_whole(noise: str, strength: float) -> None:
    _, image = noisy_piecewise(14, 16, 18, sigma=SIGMA)
    settings: dict[str, Any] = {"noise": noise, "method": "wiener", "strength": strength, "search_radius": 2}
    settings |= {"curve": [(0, SIGMA / 2), (200, SIGMA)]} if noise == "curve" else {}
    sigma = None if noise in FOLLOWING else SIGMA
    whole = denoise(np.abs(image), sigma, **settings)
    part: Any = planned(np.abs(image), sigma=sigma, **settings).run(BOX)
    np.testing.assert_allclose(part, whole[BOX], atol=1e-3)
    assert np.abs(whole - denoise(np.abs(image), sigma, **{**settings, "strength": 1.0})).max() > 0.1 * SIGMA


def test_the_log_names_a_strength_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nlmeans")
    image = np.abs(noisy_piecewise(6, 7, 8, sigma=SIGMA)[1])
    for strength in (1.0, 0.5):
        denoise(image, SIGMA, method="classic", strength=strength)
    messages = [record.getMessage() for record in caplog.records if " tiles" in record.getMessage()]
    assert ["at strength 0.5" in text for text in messages] == [False, True]


def test_a_box_of_one_volume_of_a_series_with_mask_and_map() -> None:
    _, image = noisy_piecewise(14, 16, 18, sigma=SIGMA)
    several = np.stack([image, 3 * image + 7])
    mask = image > 60
    sigma_map = np.linspace(5, 15, 18) * np.ones(image.shape)
    plan = planned(several, 1, mask, sigma_map, sigma=None, series=0)
    part = np.full((2, 6, 7, 1), -1.0, np.float32)
    assert plan.run(BOX, into=part) is part
    expected = denoise(several, sigma_map, series=0, mask=mask, method="classic", search_radius=2)
    np.testing.assert_allclose(part[1], expected[(1, *BOX)], atol=1e-4)
    assert (part[0] == -1).all()


def test_a_volume_without_noise_has_the_unit_one_and_comes_back() -> None:
    clean, _ = noisy_piecewise(8, 9, 10, sigma=SIGMA)
    plan = planned(clean, sigma=0.0, h=3.0)
    assert plan.facts.unit == 1
    assert plan.h == 3.0
    np.testing.assert_array_equal(np.asarray(plan.run(plan.layout.everywhere)), clean)


def test_h_is_in_units_of_sigma() -> None:
    _, image = noisy_piecewise(14, 16, 18, sigma=SIGMA)
    assert planned(image, h=25.0).h == pytest.approx(2.5)
    own = planned(image)
    assert own.h == own.choices.usual_h(own.facts.contrast)
    assert own.h * SIGMA == pytest.approx(usual_h(image, SIGMA, method="classic", search_radius=2))


def test_given_facts_save_the_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    _, image = noisy_piecewise(10, 11, 12, sigma=SIGMA)
    first = planned(image)
    monkeypatch.setattr(engine_plan, "survey_volume", None)
    monkeypatch.setattr(engine_plan, "noise_of", None)
    again = Plan.of(image, 0, first.layout, first.choices, facts=first.facts)
    np.testing.assert_array_equal(np.asarray(again.run(BOX)), np.asarray(first.run(BOX)))


def test_a_region_is_checked_for_values_that_are_not_finite_and_the_rest_is_not() -> None:
    _, image = noisy_piecewise(24, 11, 12, sigma=SIGMA)
    image[20, 3, 3] = np.inf
    settings = Settings(sigma=SIGMA, method="classic", search_radius=1, h=8.0)
    layout = Layout.of(image, None, None)
    choices = Choices.of(settings, layout)
    near, far = (piece([slice(a, a + 2), slice(0, 11), slice(0, 12)]) for a in (17, 2))
    assert np.isfinite(np.asarray(Plan.of(image, 0, layout, choices, region=far).run(far))).all()
    with pytest.raises(ValueError, match="volume contains infinite"):
        Plan.of(image, 0, layout, choices, region=near)


class Chunked:
    """An array with chunks of (4, 5, 6) voxels that counts how often each of them is written to."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype, self.chunks = shape, np.dtype("float32"), (4, 5, 6)
        self.values = np.empty(shape, "float32")
        self.writes = np.zeros([-(-n // c) for n, c in zip(shape, self.chunks, strict=True)])

    def __setitem__(self, key: tuple[slice, ...], values: Any) -> None:
        self.values[key] = values
        self.writes[tuple(slice(s.start // c, -(-s.stop // c)) for s, c in zip(key, self.chunks, strict=True))] += 1


def test_no_two_tiles_write_to_the_same_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    _, image = noisy_piecewise(19, 21, 26, sigma=SIGMA)
    plan = planned(image, search_radius=1)
    per_voxel = plan.choices.bytes_per_voxel(1)
    monkeypatch.setattr("nlmeans.engine.settings.MINIMUM_MEMORY", 0)
    small, into = planned(image, search_radius=1, memory=int(per_voxel * 16 * 17 * 18)), Chunked(*image.shape)
    small.run(small.layout.everywhere, into=into)
    assert len(small.work(small.layout.everywhere, into.chunks).tiles) > 4
    assert (into.writes == 1).all()
    np.testing.assert_allclose(into.values, np.asarray(plan.run(plan.layout.everywhere)), atol=1e-4)


# ---------------------------------------------------------------- out of memory


ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("can't start new thread"),
    MemoryError("Unable to allocate 20.0 GiB for an array"),
)


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def limited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let tiles fail that have more voxels than the first number of the list; append the sizes tried."""
    tried = [10**9]
    classic = METHODS["classic"]

    def run(noisy: Tensor, sigma: float | Tensor, wanted: Piece, options: Options, progress: Report) -> Tensor:
        tried.append(math.prod(noisy.shape))
        if tried[-1] > tried[0]:
            raise request.param
        return classic.run(noisy, sigma, wanted, options, progress)

    monkeypatch.setitem(METHODS, "classic", dataclasses.replace(classic, run=run))
    return tried


def noisy() -> Any:
    return np.random.default_rng(0).standard_normal((24, 26, 28)).astype(np.float32)


def test_halves_of_a_tile_give_the_same_result(limited: list[int]) -> None:
    expected = denoise(noisy(), 1.0, method="classic")
    limited[:] = [9000]
    fractions: list[float] = []
    assert denoise(noisy(), 1.0, method="classic", progress=fractions.append) == pytest.approx(expected, abs=1e-5)
    assert max(limited[1:]) > 9000 >= min(limited[1:])
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_the_error_says_what_to_do_when_the_smallest_tile_fails(limited: list[int]) -> None:
    limited[:] = [100]
    with pytest.raises(MemoryError, match=r"too little free memory .* smaller search_radius, or device='cpu'"):
        denoise(noisy(), 1.0, method="classic")


# ---------------------------------------------------------------- what is exactly constant


def sparse_counts() -> Any:
    """Few photons: most neighbourhoods in the left half have none, and the right half is empty."""
    counts = np.random.default_rng(0).poisson(0.02, (1, 60, 160)).astype(float)[0]
    counts[:, 80:] = 0
    return counts


def test_neighbourhoods_without_photons_are_not_taken_for_empty() -> None:
    counts = sparse_counts()
    result = denoise(counts, noise="poisson", method="classic")
    assert (result[:, :60] > 0).mean() > 0.5
    assert (result[:, 100:] == 0).all()


def test_volumes_that_are_denoised_together_keep_their_own_constants() -> None:
    rng = np.random.default_rng(0)
    noisy = 100 * np.exp(-np.arange(8) / 4) + 5 * rng.standard_normal((14, 16, 18, 8))
    noisy[:6] = 0
    noisy[6:, ..., 2] = 7.5
    result = denoise(noisy, 5.0, method="series", series=3)
    assert (result[:6] == 0).all()
    assert (result[6:, ..., 2] == 7.5).all()
    assert (result[6:, ..., :2] != noisy[6:, ..., :2]).all()


def test_complex_volumes_keep_a_background_of_zeros() -> None:
    rng = np.random.default_rng(0)
    noisy = 100 + 5 * (rng.standard_normal((14, 16, 18)) + 1j * rng.standard_normal((14, 16, 18)))
    noisy[:6] = 0
    result = denoise(noisy, 5.0)
    assert (result[:6] == 0).all()


def test_chunks_of_dask_keep_the_same_constants() -> None:
    rng = np.random.default_rng(0)
    noisy = 100 + 5 * rng.standard_normal((14, 16, 18))
    noisy[:6] = 0
    chunked = dask.array.from_array(noisy, chunks=(5, 7, 9))
    expected = denoise(noisy, 5.0, method="classic")
    result = denoise(chunked, 5.0, method="classic").compute()
    np.testing.assert_array_equal(result == 0, expected == 0)
    assert (expected[:6] == 0).all()


def few_photons() -> tuple[Any, Any]:
    """Return faint dots, and how they are counted, in grey values of 20 to a photon."""
    y, x = np.mgrid[:90, :96]
    clean = 6.0 + 20 * (0.1 + 1.5 * ((y % 15 < 4) & (x % 12 < 3)) * (x > 40))
    return clean, 6.0 + 20 * np.random.default_rng(0).poisson((clean - 6) / 20).astype(np.float32)


def test_faint_structure_in_an_image_of_few_photons_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, counts = few_photons()
    settings: dict[str, Any] = {"noise": "poisson", "gain": 20, "offset": 6}
    aware = denoise(counts, **settings)
    monkeypatch.setattr(Plan, "has_few_photons", False)
    assert psnr(clean, aware, peak=40) > psnr(clean, denoise(counts, **settings), peak=40) + 0.5


def test_a_box_of_few_photons_equals_that_box_of_the_whole() -> None:
    counts = few_photons()[1]
    plan = planned(counts, sigma=None, noise="poisson", gain=20, offset=6, method="dct")
    whole: Any = plan.run(plan.layout.everywhere)
    box: Any = plan.run(piece([slice(0, 1), slice(40, 44), slice(50, 56)]))
    np.testing.assert_allclose(box, whole[40:44, 50:56], atol=1e-3)


def test_a_background_far_below_the_offset_of_a_detector_stays() -> None:
    photons = np.random.default_rng(0).poisson(60.0, (16, 18, 20)).astype(np.float32)
    counts = 200 + 3 * photons
    counts[:6] = 0  # masked
    denoised = denoise(counts, method="bayes", noise="poisson", gain=3, offset=200)
    assert np.array_equal(denoised[:6], counts[:6])
    assert np.abs(denoised[6:] - 380).mean() < 0.5 * np.abs(counts[6:] - 380).mean()


def test_noise_below_half_a_step_of_whole_numbers_needs_nothing() -> None:
    noisy = np.rint(50 + 0.2 * np.random.default_rng(0).standard_normal((16, 16, 16)))
    for dtype, rounded in (("i2", True), ("f4", False)):
        plan = planned(noisy.astype(dtype), sigma=0.2)
        plan.run(plan.layout.everywhere)
        judgement = plan.judgement()
        assert judgement is not None
        assert judgement.rounded is rounded
        assert judgement.in_words.startswith("noise weaker than a grey step") is rounded


@pytest.mark.parametrize("noise", ["gaussian", "rician", "poisson"])
def test_voxels_of_nan_do_not_count_as_voxels_from_which_nothing_was_removed(noise: str) -> None:
    _, image = noisy_piecewise(14, 24, 24, sigma=SIGMA)
    holey = np.abs(image)
    holey[:, :17] = np.nan
    whole, rest = (planned(data, noise=noise, method="bayes") for data in (np.abs(image), holey))
    for plan in (whole, rest):
        plan.run(plan.layout.everywhere)
    assert rest.removed.voxels <= np.isfinite(holey).sum() < whole.removed.voxels
    shares = [judgement.share for plan in (whole, rest) if (judgement := plan.judgement()) is not None]
    assert shares[1] == pytest.approx(shares[0], rel=0.2)
