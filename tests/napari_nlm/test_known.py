"""What is known before a run, as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from napari_nlm.known import Known, MemoryNeed
from napari_nlm.parameters import Parameters
from nlmeans import NoiseModel
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.engine.choices import Choices
from nlmeans.engine.survey import Facts

GIB = float(2**30)


def known(
    facts: Facts | None = None,
    h: float | None = None,
    spacing: tuple[float, ...] | None = None,
    channels: int | None = None,
    **chosen: Any,
) -> Known:
    """What is known of a volume of 20³ voxels, or of 3 of them as channels."""
    parameters = Parameters(**{"method": "classic", **chosen})
    shape = (20, 20, 20) if channels is None else (3, 20, 20, 20)
    choices = Choices.of(parameters.settings(spacing, channels), Layout(shape, channels, None))
    return Known(parameters, choices, facts, h, spacing, "millimeter")


def facts_with(*sigma: float, noise: str = "gaussian") -> Facts:
    read_noise = 3.0 if noise == "poisson" else sigma[0]
    return Facts(sigma, (0.0,) * len(sigma), 30.0, NoiseModel(kind=noise, sigma=read_noise))


def test_sigma_is_given_or_estimated_or_not_known_yet() -> None:
    assert known().sigma is None
    assert known(facts_with(8.0)).sigma == 8
    assert known(facts_with(8.0), sigma=5.0).sigma == 5
    assert known(facts_with(8.0, 4.0, 6.0), channels=0).sigma == (8, 4, 6)
    assert known(facts_with(8.0, 8.0, 8.0), channels=0).sigma == 8
    assert known(facts_with(1.0, noise="poisson"), noise="poisson").sigma is None
    assert known(facts_with(1.0, noise="poisson")).sigma == 3  # found
    assert known(facts_with(1.0), noise="poisson", sigma=2.0).sigma == 2


def test_a_curve_is_given_or_found_in_place_of_sigma() -> None:
    facts = Facts((1.0,), (0.0,), 30.0, NoiseModel(kind="curve", curve="0:3,500:8"))
    found = known(facts, noise="curve", h=1.0)
    assert (found.sigma, found.automatic["curve"], found.h_in_image_units) == (None, "0:3,500:8", None)
    assert "sigma" not in found.automatic
    assert known(noise="curve").curve is known(facts_with(8.0)).curve is None


def test_counts_without_a_given_read_noise_have_none() -> None:
    assert known(facts_with(1.0, noise="poisson"), noise="poisson").automatic["sigma"] == 0
    assert known(noise="poisson").automatic["sigma"] == 0


def test_the_memory_on_auto_is_what_the_engine_takes() -> None:
    assert known().automatic["memory"] == pytest.approx(allowed(torch.device("cpu"), None) / 1e9, rel=0.2)


def test_units_without_a_name_are_not_told() -> None:
    thick = known(spacing=(3.0, 1.0, 1.0))
    assert dataclasses.replace(thick, unit="pixel").window_in_world((1, 3, 3)) is None
    assert thick.window_in_world((1, 3, 3)) == [9, 7, 7]


def test_parameters_on_auto_show_what_the_engine_takes() -> None:
    taken = known(facts_with(8.0), h=0.9).automatic
    del taken["memory"]
    assert taken == {"sigma": 8, "h": 0.9, "patch_radius": 1, "search_radius": 3}
    assert "sigma" not in known().automatic
    assert "h" not in known().automatic
    assert known(facts_with(8.0, 4.0, 6.0), channels=0).automatic["sigma"] == 6


def test_h_is_told_in_image_units_where_they_mean_something() -> None:
    assert known(facts_with(8.0), h=1.5).h_in_image_units == 12
    assert known(facts_with(8.0, 0.0, 4.0), h=1.5, channels=0).h_in_image_units == 9  # the mean of those with noise
    assert known().h_in_image_units is None
    assert known(facts_with(0.0), h=1.5).h_in_image_units is None
    assert known(facts_with(1.0, noise="poisson"), h=1.5).h_in_image_units is None


def test_windows_in_voxels_and_in_the_world() -> None:
    thick = known(spacing=(3.0, 1.0, 1.0), search_radius=3)
    assert thick.window(thick.choices.search_radius) == [3, 7, 7]
    assert thick.window_in_world(thick.choices.search_radius) == [9, 7, 7]
    assert known(spacing=(1.0, 1.0, 1.0)).window_in_world((1, 1, 1)) is None
    assert known().window_in_world((1, 1, 1)) is None


@pytest.mark.parametrize(
    ("device", "free", "free_here", "enough"),
    [
        ("cpu", 4 * GIB, 4 * GIB, True),
        ("cpu", 2.5 * GIB, 2.5 * GIB, False),
        ("cuda:0", 2.5 * GIB, 1.5 * GIB, True),
        ("cuda:0", 1.5 * GIB, 9 * GIB, False),
        ("cuda:0", 9 * GIB, 0.5 * GIB, False),
    ],
)
def test_memory_is_enough_on_the_device_and_in_the_computer(
    device: str, free: float, free_here: float, enough: bool
) -> None:
    need = MemoryNeed(device, working=2 * GIB, result=GIB, free=free, free_here=free_here)
    assert need.on_cpu == (device == "cpu")
    assert need.enough == enough
