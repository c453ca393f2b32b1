"""Parameters: one description, whose defaults are the engine's."""

from __future__ import annotations

import dataclasses

import pytest

from napari_nlm.parameters import CONTROLS, Parameters
from nlmeans import METHODS, Settings
from nlmeans.noise.kinds import NOISES
from nlmeans.operator.backends import BACKENDS

AXES = {"spacing", "channels", "series"}
"""The settings of the engine that follow from the layer."""


def test_every_setting_of_the_engine_can_be_made() -> None:
    assert {f.name for f in dataclasses.fields(Settings)} - AXES <= set(CONTROLS)


def test_untouched_they_are_the_engines_defaults() -> None:
    assert Parameters().settings() == Settings()


def test_choices_are_the_engines() -> None:
    assert CONTROLS["method"].options == ("auto", *METHODS)
    assert CONTROLS["noise"].options == ("auto", *NOISES)
    assert CONTROLS["backend"].options == ("auto", *BACKENDS)


def test_the_voxel_size_can_be_left_out() -> None:
    assert Parameters().settings((1, 1, 5)).spacing == (1, 1, 5)
    assert Parameters(voxel_size=False).settings((1, 1, 5)).spacing is None


def test_a_map_of_sigma_is_for_noise_that_is_neither_given_nor_counted() -> None:
    assert Parameters(sigma_varies=True).settings().sigma == "map"
    assert Parameters(sigma_varies=True, sigma=3.0).settings().sigma == 3
    assert Parameters(sigma_varies=True, noise="poisson").settings().sigma is None
    assert Parameters(sigma_varies=True, noise="curve").settings().sigma is None


def test_what_belongs_to_an_image_does_not_outlive_it() -> None:
    kept = Parameters.from_json(Parameters(h=2.0, sigma=5.0, memory=2.0, noise="poisson", gain=3.0).to_json())
    assert kept == Parameters(h=2.0, memory=2.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"method": "of tomorrow"}', '{"device": "cuda:99"}', '{"h": -1}'])
def test_what_cannot_be_followed_is_dropped(text: str) -> None:
    assert Parameters.from_json(text) == Parameters()


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize(
    "value", ["true", "-1", "1e400", "NaN", "9" * 400, '"\\ud800"', "[]", "[1]", "{}", "[" * 10**5, "null"], ids=str
)
def test_what_no_user_could_have_chosen_is_dropped(name: str, value: str) -> None:
    kept = Parameters.from_json(f'{{"{name}": {value}}}')
    assert kept == Parameters() or (value == "true" and name in ("despeckle", "voxel_size"))
    kept.settings()


def test_a_method_that_is_registered_later_can_be_chosen(another_method: str) -> None:
    assert another_method in CONTROLS["method"].options
    assert f"{another_method}: classic by another name" in CONTROLS["method"].tooltip
    assert Parameters.from_json(f'{{"method": "{another_method}"}}').method == another_method
    assert Parameters(method=another_method).settings().method == another_method


def test_a_method_that_is_registered_no_more_is_dropped() -> None:
    assert Parameters.from_json('{"method": "of another package"}') == Parameters()


def test_parameters_apply_where_they_have_an_effect() -> None:
    applies = {name: control.applies for name, control in CONTROLS.items()}
    assert applies["gain"](Parameters(noise="poisson"))
    assert not applies["gain"](Parameters())
    assert applies["seed"](Parameters(method="stochastic"))
    assert not applies["seed"](Parameters())
    assert applies["sigma_varies"](Parameters())
    assert not applies["sigma_varies"](Parameters(sigma=3.0))


def test_what_made_the_image_limits_the_kinds_of_noise() -> None:
    assert Parameters(modality="CT").settings().modality == "CT"
    assert Parameters(modality="CT") != Parameters.from_json(Parameters(modality="CT").to_json())
    assert set(CONTROLS["modality"].options) <= {"MR", "CT", "PT", "NM", "GM"}


def test_gain_and_offset_are_for_counts_only() -> None:
    assert Parameters(gain=2.0, offset=5.0).settings() == Settings()
    counted = Parameters(noise="poisson", gain=2.0, offset=5.0).settings()
    assert (counted.gain, counted.offset) == (2, 5)


def test_memory_is_in_gigabytes() -> None:
    assert Parameters(memory=1.5).settings().memory == 1_500_000_000
