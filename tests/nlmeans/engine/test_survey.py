"""The facts of a volume, against numpy on the whole volume."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import Settings, estimate_sigma
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.tiles import piece
from nlmeans.engine import survey
from nlmeans.engine.survey import (
    Facts,
    Noise,
    facts_of,
    given_sigma,
    look_at,
    merge_seen,
    noise_of,
    pieces_to_read,
    robust_span,
    survey_volume,
)
from nlmeans.noise.poisson import stabilise_counts
from tests.nlmeans.volumes import gaussian, piecewise

IMAGE = gaussian(piecewise(12, 14, 16), 5.0)


def facts(volume: Any, sigma: tuple[float, ...], channels: int | None = None, **settings: Any) -> Facts:
    layout = Layout.of(volume, channels, None)
    noise = Noise(sigma, settings.pop("read_noise", 0.0), None)
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
    assert found.read_noise == 3.0


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


def test_arrays_that_are_sliced_are_read_in_pieces_that_cover_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "LARGEST_PIECE", 500)
    source, layout = arrays.Sliced(IMAGE), Layout.of(IMAGE, None, None)
    read = np.zeros(IMAGE.shape, int)
    for box in pieces_to_read(source, layout, Settings(), layout.everywhere):
        assert math.prod(side.stop - side.start for side in box) <= 500
        read[box] += 1
    assert (read == 1).all()
    assert list(pieces_to_read(IMAGE, layout, Settings(), layout.everywhere)) == [layout.everywhere]
    assert facts(source, (5.0,)) == facts(IMAGE, (5.0,))


def test_facts_come_back_from_json() -> None:
    found = Facts((3.0, 4.0), (0.1, 0.2), 31.9, 0.5)
    assert Facts.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_span_leaves_out_half_a_per_cent_at_both_ends() -> None:
    values = torch.arange(1001, dtype=torch.float64)
    assert robust_span(values) == pytest.approx(990)
    values[:3], values[-3:] = -1e9, 1e9
    assert robust_span(values) == pytest.approx(990)


def noise(settings: Settings, volume: Any = IMAGE, sigma_map: Any = None, index: int = 0) -> Noise:
    return noise_of(volume, index, Layout.of(volume, settings.channels, settings.series), settings, None, sigma_map)


def test_sigma_is_estimated_unless_it_is_given() -> None:
    assert noise(Settings()) == Noise((estimate_sigma(IMAGE),), 0.0, None)
    assert noise(Settings(sigma=3.0)) == Noise((3.0,), 0.0, None)


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


def test_the_read_noise_of_counts_is_sigma_and_none_means_none() -> None:
    assert noise(Settings(noise="poisson", gain=2.0, sigma=3.0)) == Noise((1.0,), 3.0, None)
    assert noise(Settings(noise="poisson")) == Noise((1.0,), 0.0, None)


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


def test_facts_need_values_that_the_result_type_holds() -> None:
    layout = Layout.of(IMAGE, None, None)
    seen = look_at(1e6 * IMAGE, layout.everywhere, layout, layout.everywhere, strided=True)
    with pytest.raises(ValueError, match="dtype='float16' holds numbers from"):
        facts_of(seen, Settings(dtype="float16"), Noise((5.0,), 0.0, None))
