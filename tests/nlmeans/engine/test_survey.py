"""The facts of a volume, against numpy on the whole volume."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import dask.array
import numpy as np
import pytest
import torch

from nlmeans import NoiseModel, Settings, denoise, preview
from nlmeans.core.layout import Layout
from nlmeans.core.metrics import Removed
from nlmeans.core.tiles import piece
from nlmeans.engine import survey
from nlmeans.engine.noise import Noise
from nlmeans.engine.survey import (
    Facts,
    Judgement,
    facts_of,
    judgement_of,
    levels_of,
    look_at,
    merge_seen,
    noise_in_words,
    robust_span,
    settled,
    survey_volume,
)
from nlmeans.noise.poisson import stabilise_counts
from tests.nlmeans.volumes import gaussian, noisy_piecewise, piecewise

IMAGE = gaussian(piecewise(12, 14, 16), 5.0)


def facts(volume: Any, sigma: tuple[float, ...], channels: int | None = None, **settings: Any) -> Facts:
    layout = Layout.of(volume, channels, None)
    model = NoiseModel(kind=settings.get("noise", "gaussian"), sigma=settings.pop("read_noise", sigma[0]))
    model = dataclasses.replace(model, **{name: settings[name] for name in ("gain", "offset") if name in settings})
    noise = Noise(model, sigma, None)
    return survey_volume(volume, 0, layout, Settings(channels=channels, **settings), noise, layout.everywhere)


def test_facts_are_range_and_span_of_each_channel() -> None:
    several = np.stack([IMAGE, 40 - 3 * IMAGE])
    found = facts(several, (5.0, 15.0), channels=0)
    assert found.sigma == (5.0, 15.0)
    assert found.shift == pytest.approx([(z.min() + z.max()) / 2 for z in several])
    spans = [np.subtract(*np.quantile(z, [0.995, 0.005])) / s for z, s in zip(several, (5.0, 15.0), strict=True)]
    assert found.contrast == pytest.approx(np.mean(spans))
    assert found.unit == 10.0


def test_a_large_volume_is_sampled_evenly_for_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = facts(IMAGE, (5.0,))
    monkeypatch.setattr(survey, "SPAN_VOXELS", IMAGE.size // 8)
    sampled = facts(IMAGE, (5.0,))
    every_other = IMAGE[::2, ::2, ::2]
    assert sampled.contrast == pytest.approx(np.subtract(*np.quantile(every_other, [0.995, 0.005])) / 5.0)
    assert sampled.contrast == pytest.approx(whole.contrast, rel=0.15)
    assert sampled.shift == whole.shift


def test_without_noise_the_unit_is_one_and_there_is_no_contrast() -> None:
    found = facts(IMAGE, (0.0,))
    assert found.unit == 1.0
    assert found.contrast == 0.0
    assert facts(np.stack([IMAGE, IMAGE]), (0.0, 4.0), channels=0).unit == 4.0


def test_noise_far_below_the_values_counts_as_none() -> None:
    assert facts(IMAGE, (1e-13 * IMAGE.max(),)).sigma == (0.0,)
    assert facts(IMAGE, (1e-11 * IMAGE.max(),)).sigma != (0.0,)
    assert facts(np.zeros((4, 5)), (3.0,)).sigma == (0.0,)


def test_facts_of_counts_are_those_of_the_stabilised_counts() -> None:
    counts = np.random.default_rng(0).poisson(20, (12, 13, 14)).astype(np.float64)
    found = facts(2 * counts + 7, (1.0,), noise="poisson", gain=2.0, offset=7.0, read_noise=3.0)
    stabilised = stabilise_counts(torch.from_numpy(2 * counts + 7), 2.0, 7.0, 3.0).numpy()
    assert found.shift == pytest.approx(((stabilised.min() + stabilised.max()) / 2,))
    assert found.contrast == pytest.approx(np.subtract(*np.quantile(stabilised, [0.995, 0.005])))
    assert found.noise.detector == (2.0, 7.0, 3.0)


def test_a_given_h_needs_no_sampled_values() -> None:
    layout = Layout.of(IMAGE, None, None)
    (seen,) = look_at(IMAGE, layout.everywhere, layout, layout.everywhere, strided=False)
    assert len(seen.values) == 0
    assert seen.range == (IMAGE.min(), IMAGE.max())
    assert facts(IMAGE, (5.0,), h=3.0).contrast == 0.0


def test_boxes_together_show_what_the_whole_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "SPAN_VOXELS", IMAGE.size // 8)
    layout = Layout.of(IMAGE, None, None)
    region = piece([slice(2, 9), slice(0, 14), slice(3, 4)])
    (whole,) = look_at(IMAGE, layout.everywhere, layout, region, strided=True)
    cuts = [piece([slice(a, min(a + 5, 12)), slice(0, 14), slice(b, b + 8)]) for a in (0, 5, 10) for b in (0, 8)]
    (together,) = merge_seen([look_at(IMAGE[box], box, layout, region, strided=True) for box in cuts])
    assert together.range == whole.range == (IMAGE[region].min(), IMAGE[region].max())
    assert sorted(together.values.tolist()) == sorted(whole.values.tolist())


def test_a_box_outside_the_region_has_an_empty_range() -> None:
    layout = Layout.of(IMAGE, None, None)
    box = piece([slice(0, 3), slice(0, 14), slice(0, 16)])
    (seen,) = look_at(IMAGE[box], box, layout, piece([slice(5, 9), slice(0, 14), slice(0, 16)]), strided=True)
    assert seen.range == (math.inf, -math.inf)
    assert len(seen.values) > 0


def test_facts_come_back_from_json() -> None:
    found = Facts((3.0, 4.0), (0.1, 0.2), 31.9, NoiseModel(sigma=3.0, correlation=[[[0.5, 1.0, 0.5]]]))
    assert Facts.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_settled_settings_state_what_was_found() -> None:
    lags = [[[0.5, 1.0, 0.5]]]
    chi = Facts((3.0,), (0.0,), 30.0, NoiseModel(kind="chi", sigma=3.0, coils=4, correlation=lags))
    found = settled(Settings(), chi)
    assert (found.noise, found.sigma, found.coils, found.finds_noise) == ("chi", 3.0, 4.0, False)
    assert found.correlation == chi.noise.correlation
    counts = Facts((1.0,), (0.0,), 30.0, NoiseModel(kind="poisson", sigma=2.0, gain=3.0, offset=4.0))
    found = settled(Settings(noise="poisson", gain="auto"), counts)
    assert (found.gain, found.offset, found.sigma) == (3.0, 4.0, 2.0)
    curve = Facts((1.0,), (0.0,), 30.0, NoiseModel(kind="curve", curve=((0.0, 3.0), (500.0, 8.0))))
    found = settled(Settings(noise="curve"), curve)
    assert (found.curve, found.sigma, found.finds_noise) == (curve.noise.curve, None, False)
    assert settled(Settings(noise="curve"), Facts((0.0,), (0.0,), 1.0, NoiseModel(sigma=0.0))).noise == "gaussian"
    several = Facts((3.0, 4.0), (0.0, 0.0), 30.0, NoiseModel(sigma=3.0))
    assert settled(Settings(channels=0), several).sigma == (3.0, 4.0)
    assert settled(Settings(sigma="map"), chi).sigma == "map"


def test_the_noise_of_several_volumes_in_words() -> None:
    quiet, loud = (Facts((s,), (0.0,), 30.0, NoiseModel(kind="rician", sigma=s)) for s in (4.0, 16.0))
    counts = Facts((1.0,), (0.0,), 30.0, NoiseModel(kind="poisson", sigma=3.0))
    assert noise_in_words([quiet]) == "rician noise, sigma 4"
    assert noise_in_words([quiet, loud]) == "rician noise, sigma 4 to 16 over 2 volumes"
    assert noise_in_words([quiet], "from a map") == "rician noise, sigma from a map"
    assert noise_in_words([counts]) == "poisson noise, gain 1, offset 0, read noise 3"
    assert (levels_of([quiet, loud]), levels_of([counts])) == ((4.0, 16.0), None)
    curve = Facts((1.0,), (0.0,), 30.0, NoiseModel(kind="curve", curve="0:3,500:8"))
    assert noise_in_words([curve, curve]) == "signal-dependent noise, sigma 3 to 8 over intensities 0 to 500"


def test_the_span_leaves_out_half_a_per_cent_at_both_ends() -> None:
    values = torch.arange(1001, dtype=torch.float64)
    assert robust_span(values) == pytest.approx(990)
    values[:3], values[-3:] = -1e9, 1e9
    assert robust_span(values) == pytest.approx(990)


def test_facts_need_values_that_the_result_type_holds() -> None:
    layout = Layout.of(IMAGE, None, None)
    seen = look_at(1e6 * IMAGE, layout.everywhere, layout, layout.everywhere, strided=True)
    with pytest.raises(ValueError, match="dtype='float16' holds numbers from"):
        facts_of(seen, Settings(dtype="float16"), Noise(NoiseModel(sigma=5.0), (5.0,), None))


# ---------------------------------------------------------------- values that the stated noise cannot have

NEGATIVE = noisy_piecewise(14, 16, 18, sigma=5.0)[1] - 60


@pytest.mark.parametrize("noise", ["rician", "chi"])
@pytest.mark.parametrize("sigma", [5.0, None, "map"])
def test_negative_values_are_no_magnitudes_so_the_noise_counts_as_gaussian(
    noise: str, sigma: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"method": "classic", **({"coils": 4} if noise == "chi" else {})}
    result = denoise(NEGATIVE, sigma, noise=noise, **settings)
    expected = denoise(NEGATIVE, sigma, noise="gaussian", method="classic")
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert (result < 0).mean() == pytest.approx((NEGATIVE < 0).mean(), abs=0.1)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match(rf"noise='{noise}' does not fit: there are values down to -7\d\.\d+, which magnitudes do", warning)


def test_a_series_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    denoise(np.stack([NEGATIVE] * 3), 5.0, noise="rician", method="classic", series=0)
    assert caplog.text.count("does not fit") == 1


def test_previews_and_dask_take_negative_values_for_gaussian_noise_too(caplog: pytest.LogCaptureFixture) -> None:
    image = NEGATIVE.copy()
    image[3:] = np.abs(image[3:])  # the slices of the preview and its surroundings are not negative
    image[:3] = -np.abs(image[:3])
    whole = denoise(image, 5.0, noise="rician", method="classic")
    one = preview(image, 12, sigma=5.0, noise="rician", method="classic", h=5.0)
    same = denoise(image, 5.0, noise="rician", method="classic", h=5.0)
    np.testing.assert_allclose(one, same[12], atol=1e-4)
    caplog.clear()
    lazy = denoise(dask.array.from_array(image, chunks=7), 5.0, noise="rician", method="classic")
    np.testing.assert_allclose(lazy.compute(), whole, atol=1e-4)
    assert "noise='rician' does not fit" in caplog.text


@pytest.mark.parametrize("detector", [{}, {"gain": 0.1, "offset": 3.0}, {"sigma": 1.0}])
def test_negative_values_are_no_counts(detector: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"there are values down to -7\d.*; denoise before intensities are shifted"):
        denoise(NEGATIVE, noise="poisson", method="classic", **detector)
    assert denoise(NEGATIVE, 8.0, noise="poisson", method="classic").min() == 0  # what the read noise explains


def test_dead_pixels_of_a_detector_with_an_offset_are_no_mistake() -> None:
    counts = 100 + np.random.default_rng(0).poisson(20, (30, 30)).astype(float)
    counts[3, 4] = 0
    assert denoise(counts, noise="poisson", offset=100.0, method="classic").shape == (30, 30)


# ---------------------------------------------------------------- what was removed


@pytest.mark.parametrize(
    ("share", "surplus", "words", "doubt"),
    [
        (0.9, 0.02, "looks like noise alone", ""),
        (0.5, 0.02, "noise left", ""),
        (0.2, 0.02, "noise left", "hardly any noise was removed: 20%"),
        (1.3, 0.02, "structure removed", ""),
        (0.9, 0.15, "structure removed", "structure may have been removed: neighbours correlate by 0.15 more"),
    ],
)
def test_words_and_warnings_rest_on_the_same_measures(share: float, surplus: float, words: str, doubt: str) -> None:
    found = Judgement(share, surplus)
    assert found.in_words.startswith(words)
    assert found.doubt.startswith(doubt)
    assert bool(found.doubt) == bool(doubt)
    few = Judgement(share, surplus, enough=False)
    assert (few.in_words, few.doubt) == ("", "")


def test_what_was_removed_is_compared_with_the_correlation_of_the_noise() -> None:
    removed = Removed(voxels=5000, squares=5000.0, pairs=[4000] * 3, products=[0.0, 1600.0, 1600.0])
    white = judgement_of(removed, NoiseModel(sigma=5.0))
    assert white is not None
    assert white.surplus == pytest.approx(0.4)
    lags = np.array([[[0.0, 0.4, 0.0], [0.4, 1.0, 0.4], [0.0, 0.4, 0.0]]])
    correlated = judgement_of(removed, NoiseModel(sigma=5.0, correlation=lags))
    assert correlated is not None
    assert correlated.surplus == pytest.approx(0)
    assert judgement_of(Removed(), NoiseModel(sigma=5.0)) is None
