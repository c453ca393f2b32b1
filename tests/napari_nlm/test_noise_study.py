"""The noise of a layer: where it is looked for, what it states, and its pictures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.stats
from napari.layers import Image, Labels, Shapes

from napari_nlm.layer_source import LayerSource
from napari_nlm.noise_study import (
    NoiseStudy,
    inside,
    level_figure,
    regions_for,
    relative_levels,
    removed_values,
    study_noise,
)
from napari_nlm.parameters import Parameters
from nlmeans import NoiseModel
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import SIGMA, series, volume


def test_the_noise_of_a_volume_is_found_and_drawn() -> None:
    study = study_noise(LayerSource.of(Image(volume(32, 32, 32))), (), None, Parameters(), None)
    assert study.parameters == {"noise": "gaussian", "sigma": pytest.approx(SIGMA, rel=0.1)}
    assert study.text.startswith("gaussian noise, sigma ")
    (picture,) = study.pictures
    assert picture.shape[2] == 4
    assert picture.std() > 5


def test_a_volume_of_a_series_has_its_own_noise() -> None:
    source = LayerSource.of(Image(series()))
    found = [study_noise(source, (number,), None, Parameters(noise="gaussian"), None) for number in (0, 2)]
    levels = [study.parameters["sigma"] for study in found]
    assert levels[1] == pytest.approx(3 * levels[0], rel=0.1)


def test_the_selected_label_says_where_to_look() -> None:
    data, labels = volume(24, 32, 32), np.zeros((24, 32, 32), int)
    data[:, :, 16:] = 60 + 3 * (data[:, :, 16:] - 60)
    labels[:, :, :14], labels[:, :, 18:] = 1, 2
    source, layer = LayerSource.of(Image(data)), Labels(labels)
    found = {}
    for label in (1, 2):
        layer.selected_label = label
        study = study_noise(source, (), layer, Parameters(noise="gaussian"), None)
        found[label] = study.parameters["sigma"]
    assert found[2] > 2 * found[1]


def test_a_drawn_shape_says_where_to_look_in_the_world_of_the_image() -> None:
    source = LayerSource.of(Image(np.zeros((20, 20)), scale=(2, 2), translate=(10, 0)))
    drawn = Shapes([np.array([[14, 4], [14, 20], [30, 20], [30, 4]])], shape_type="rectangle")
    places = np.argwhere(inside(drawn, source))
    np.testing.assert_allclose(places.min(0), (2, 2), atol=1)
    np.testing.assert_allclose(places.max(0), (10, 10), atol=1)
    with pytest.raises(ValueError, match="there is nothing in empty; draw a region"):
        inside(Labels(np.zeros((20, 20), int), name="empty"), source)


def test_layers_of_another_shape_are_no_regions() -> None:
    image = Image(np.zeros((20, 20)))
    layers: list[Any] = [image, Labels(np.zeros((20, 20), int)), Labels(np.zeros((5, 5), int)), Shapes(ndim=2)]
    assert regions_for(layers, image) == [layers[1], layers[3]]


def test_every_estimate_is_stated_whole() -> None:
    models = [
        NoiseModel(sigma=3.0, correlation=[[[0.5, 1.0, 0.5]]]),
        NoiseModel(sigma=3.0, variation=[[[0.5, 1.5]]]),
        NoiseModel(kind="chi", sigma=3.0, coils=4.0),
        NoiseModel(kind="poisson", gain=2.0, offset=5.0, sigma=1.0),
        NoiseModel(kind="curve", curve=[(0.0, 3.25), (500.0, 8.0)], correlation=[[[0.5, 1.0, 0.5]]]),
    ]
    for model in models:
        settings = Parameters(**NoiseStudy(model, []).parameters).settings()
        stated = dataclasses.replace(settings.stated, sigma=settings.sigma)
        assert stated == dataclasses.replace(model, sigma=model.sigma)


def test_what_was_removed_from_magnitudes_is_drawn_where_it_is_no_bias(bench: Bench) -> None:
    """In air all of it is above zero, which looked like structure."""
    rng = np.random.default_rng(0)
    clean = np.pad(np.full((16, 16, 16), 300.0), 8)
    noisy = np.hypot(clean + 20 * rng.standard_normal(clean.shape), 20 * rng.standard_normal(clean.shape))
    bench.session.next_run.set(noise="rician", sigma=20.0)
    bench.add(noisy.astype("f4"))
    picture = bench.session.preview.picture
    assert picture is not None
    values = removed_values(picture, NoiseModel(kind="rician", sigma=20.0))
    assert abs(values.mean()) < 3
    assert values.size < picture.after.size
    assert removed_values(picture, NoiseModel(sigma=20.0)).mean() > 5


def test_what_was_removed_is_drawn_relative_to_the_level_there(bench: Bench) -> None:
    level = np.linspace(1, 5, 30, dtype="f4")[:, None]
    data = 100 + 4 * level * np.random.default_rng(0).standard_normal((20, 30, 26), dtype="f4")
    model = NoiseModel(sigma=12.0, variation=(np.linspace(1, 5, 30) / 3)[None, :, None])
    layer = bench.add(data)
    picture = bench.session.preview.picture
    assert picture is not None
    levels = relative_levels(LayerSource.of(layer), picture, model)
    assert levels.shape == (1, 30, 26)
    all_removed = dataclasses.replace(picture, after=np.full_like(picture.before, 100))
    removed = removed_values(all_removed, model, levels)
    assert np.std(removed) == pytest.approx(12, rel=0.05)
    assert scipy.stats.kurtosis(removed) == pytest.approx(0, abs=0.3)
    assert relative_levels(LayerSource.of(layer), picture, NoiseModel(sigma=12.0)).ndim == 0


def test_what_was_removed_is_drawn_beside_the_noise(bench: Bench) -> None:
    layer = bench.add(volume(20, 24, 26))
    study = study_noise(LayerSource.of(layer), (), None, Parameters(), bench.session.preview.picture)
    assert len(study.pictures) == 2


def test_where_the_noise_is_stronger_is_drawn() -> None:
    level = np.linspace(1, 5, 48, dtype="f4")[:, None]
    data = 100 + 4 * level * np.random.default_rng(0).standard_normal((40, 48, 44), dtype="f4")
    source = LayerSource.of(Image(data))
    study = study_noise(source, (), None, Parameters(), None)
    assert study.model.variation is not None
    assert len(study.pictures) == 2
    (axis, bar) = level_figure(source, study.model).axes
    drawn = np.asarray(axis.images[0].get_array())
    assert drawn.shape == (48, 44)
    np.testing.assert_allclose(drawn[[4, -5]].mean(1), 4 * level[[4, -5], 0], rtol=0.3)
    assert bar.get_ylabel() == "image units"
