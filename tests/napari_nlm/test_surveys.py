"""Surveys: what the engine finds in a volume, once, and what needs no look at it."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image

import nlmeans
from napari_nlm.denoising import Denoising
from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import AxisRoles, LayerSource
from napari_nlm.parameters import Parameters
from napari_nlm.surveys import Surveys, choices_for
from nlmeans.core.layout import Layout
from nlmeans.core.progress import silent
from nlmeans.core.tiles import piece
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from tests.napari_nlm.images import SIGMA, Watched, decay, series, volume

CLASSIC = Parameters(method="classic")


def surveys_of(data: Any) -> Surveys:
    return Surveys(LayerSource.of(Image(data, contrast_limits=(0, 255))), None)


def engine_facts(data: Any, **settings: Any) -> Any:
    """What the engine itself finds in the same numbers."""
    layout = Layout.of(data, None, None)
    return Plan.of(data, 0, layout, Choices.of(nlmeans.Settings(method="classic", **settings), layout)).facts


def test_a_survey_has_the_facts_of_the_engine() -> None:
    found = surveys_of(volume()).of((), CLASSIC)
    assert found.facts == engine_facts(volume())
    assert found.sigma_map is None
    assert not found.stated


def test_a_volume_without_noise_has_unit_1_as_in_the_engine() -> None:
    constant = np.full((12, 14, 16), 7.0, np.float32)
    facts = surveys_of(constant).of((), CLASSIC).facts
    assert facts.sigma == (0.0,)
    assert facts.unit == 1.0 == engine_facts(constant).unit


def test_a_sigma_of_zero_that_is_given_has_unit_1_too() -> None:
    found = surveys_of(volume()).peek((), Parameters(sigma=0.0, h=1.0))
    assert found is not None
    assert found.facts.unit == 1.0


def test_a_volume_is_read_once() -> None:
    data = Watched(volume())
    surveys = surveys_of(data)
    data.asked.clear()
    first = surveys.of((), CLASSIC)
    assert sum(data.asked) == data.size
    assert surveys.of((), Parameters(method="wiener", h=2.0, search_radius=2)) is first
    assert sum(data.asked) == data.size


@pytest.mark.parametrize(
    "changed",
    [
        {"noise": "rician"},
        {"modality": "CT"},
        {"sigma": 3.0},
        {"sigma_varies": True},
        {"despeckle": True},
        {"dtype": "float32"},
    ],
)
def test_what_a_survey_depends_on_needs_another_look(changed: dict[str, Any]) -> None:
    surveys = surveys_of(volume())
    surveys.of((), CLASSIC)
    assert surveys.peek((), CLASSIC) is not None
    assert surveys.peek((), Parameters(method="classic", **changed)) is None


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_a_hole_outside_of_the_parts_that_were_looked_at_counts_as_outside_unless_it_is_infinite(
    monkeypatch: pytest.MonkeyPatch, hole: float
) -> None:
    monkeypatch.setattr("napari_nlm.surveys.MANY_VOXELS", 2**14)
    data = volume(64, 64, 64)
    data[40:44] = hole
    source = LayerSource.of(Image(da.from_array(data, chunks=16), contrast_limits=(0, 255)))
    surveys = Surveys(source, None)
    monkeypatch.setattr("napari_nlm.surveys.sampled_boxes", lambda *_: [piece([slice(0, 32)] * 3)])
    assert surveys.of((), CLASSIC).sampled
    denoising = Denoising(source, CLASSIC, None, surveys)
    if np.isinf(hole):
        with pytest.raises(ValueError, match="infinite"):
            denoising.denoised((), None, silent)
    else:
        np.testing.assert_array_equal(np.isnan(denoising.denoised((), None, silent)), np.isnan(data))


def test_a_mask_is_sampled_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_nlm.surveys.MANY_VOXELS", 2**14)
    data, inside = volume(64, 64, 64), np.zeros((64, 64, 64), np.uint8)
    data[:, :32] *= 3
    inside[:, 32:] = 1
    source = LayerSource.of(Image(da.from_array(data, chunks=16), contrast_limits=(0, 255)))
    surveys = Surveys(source, LayerMask.of(Image(inside), source))
    found = surveys.of((), Parameters(method="classic", noise="gaussian"))
    assert found.sampled
    assert found.facts.sigma[0] == pytest.approx(SIGMA, rel=0.2)


def test_given_sigma_and_h_need_no_look() -> None:
    data = Watched(volume())
    surveys = surveys_of(data)
    data.asked.clear()
    found = surveys.of((), Parameters(sigma=SIGMA, h=1.0))
    assert found.stated
    assert found.facts.unit == SIGMA
    assert data.asked == []


def test_counts_are_looked_at_even_with_a_given_read_noise() -> None:
    counts = np.random.default_rng(0).poisson(20, (8, 12, 12)).astype(np.float32)
    parameters = Parameters(noise="poisson", sigma=2.0, h=1.0)
    surveys = surveys_of(counts)
    assert surveys.peek((), parameters) is None
    found = surveys.of((), parameters)
    assert not found.stated
    assert found.facts.noise.detector[2] == 2
    assert found.facts.unit == 1


def test_every_volume_of_a_series_has_its_own_survey() -> None:
    surveys = surveys_of(series())
    levels = [surveys.of((number,), CLASSIC).facts.sigma[0] for number in range(3)]
    assert levels == [pytest.approx(nlmeans.estimate_sigma(one)) for one in series()]


def test_a_map_of_sigma_is_kept() -> None:
    ramp = np.linspace(2, 10, 32, dtype=np.float32)[:, None, None]
    data = 100 + ramp * np.random.default_rng(0).standard_normal((32, 32, 32), dtype=np.float32)
    found = surveys_of(data).of((), Parameters(method="classic", sigma_varies=True))
    assert found.sigma_map is not None
    assert found.sigma_map.shape == data.shape
    assert found.facts.sigma[0] == pytest.approx(found.sigma_map.max())


def test_the_mask_decides_where_sigma_is_estimated() -> None:
    data = volume(24, 24, 24)
    data[:, 12:] += 40 * np.random.default_rng(1).standard_normal((24, 12, 24)).astype(np.float32)
    inside = np.zeros(data.shape, int)
    inside[:, :12] = 1
    source = LayerSource.of(Image(data))
    mask = LayerMask(inside, "inside", source)
    assert Surveys(source, mask).of((), CLASSIC).facts.sigma[0] == pytest.approx(
        nlmeans.estimate_sigma(data, mask=inside)
    )


def test_errors_of_the_engine_come_through() -> None:
    data = volume()
    data[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="infinite"):
        surveys_of(data).of((), CLASSIC)
    plain = LayerSource.of(Image(volume()))
    waves = LayerSource(plain.layer, volume().astype(np.complex64), plain.axes)
    with pytest.raises(TypeError, match="complex64"):
        Surveys(waves, None).of((), CLASSIC)


def test_the_choices_are_those_of_the_engine_for_the_layer() -> None:
    source = LayerSource.of(Image(volume(), scale=(3, 1, 1)))
    choices = choices_for(source, Parameters(method="classic", search_radius=3))
    assert choices.name == "classic"
    assert choices.search_radius == (1, 3, 3)
    assert choices.settings.h is None
    assert choices.settings.device is not None


AUTO, SERIES = Parameters(), Parameters(method="series")


def test_auto_looks_once_whether_volumes_belong_together() -> None:
    surveys = surveys_of(decay())
    assert surveys.peek_joint(AUTO) is None
    assert surveys.are_joint(AUTO)
    assert surveys.peek_joint(AUTO) is True
    assert surveys.peek_joint(Parameters(h=2.0, search_radius=2, memory=1.0)) is True
    assert surveys.peek_joint(Parameters(backend="loop")) is None


@pytest.mark.parametrize("data", [volume(), series(), da.from_array(decay())], ids=["volume", "few volumes", "lazy"])
def test_auto_takes_what_it_need_not_look_at_one_by_one(data: Any) -> None:
    assert surveys_of(data).peek_joint(AUTO) is False


def test_a_method_decides_without_a_look() -> None:
    surveys = surveys_of(decay())
    assert surveys.peek_joint(SERIES) is True
    assert surveys.peek_joint(CLASSIC) is False
    assert surveys_of(volume()).peek_joint(SERIES) is False


def test_volumes_with_a_mask_each_are_no_series() -> None:
    source = LayerSource.of(Image(decay()))
    one = LayerMask(np.ones(source.spatial_shape, int), "one", source)
    each = LayerMask(np.ones(source.shape, int), "each", source)
    assert Surveys(source, one).peek_joint(SERIES) is True
    assert Surveys(source, each).peek_joint(SERIES) is False


@pytest.mark.parametrize(
    ("data", "axes"),
    [(volume(), None), (series(), AxisRoles((1, 2, 3), 0)), (decay(), None)],
    ids=["no series", "too few", "one by one"],
)
def test_series_without_a_series_is_refused_with_a_remedy(data: Any, axes: AxisRoles | None) -> None:
    source = LayerSource.of(Image(data), axes)
    with pytest.raises(ValueError, match="series takes 4 volumes or more along one axis together"):
        choices_for(source, SERIES)


def test_the_survey_of_a_series_is_kept_with_what_its_volumes_have_in_common() -> None:
    joined = surveys_of(decay()).joined
    assert joined is not None
    parameters = Parameters(method="series", noise="gaussian", sigma=SIGMA, h=1.0)
    found = joined.of((), parameters)
    assert not found.stated
    assert found.basis is not None
    assert joined.of((), Parameters(method="series", noise="gaussian", sigma=SIGMA)) is found
    assert joined.peek((), Parameters(method="classic", noise="gaussian", sigma=SIGMA)) is None
