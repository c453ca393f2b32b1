"""The method and the radii that the engine chooses by shape and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlmeans import METHODS, Settings, denoise
from nlmeans.core.layout import Layout
from nlmeans.engine.choices import CONVERSION_BYTES, COUNTS_REACH, Choices
from nlmeans.methods.coarser import COARSER_REACH
from nlmeans.noise.outliers import DESPECKLE_REACH
from tests.nlmeans.volumes import noisy_piecewise


def chosen(shape: tuple[int, ...] = (20, 22, 24), **settings: Any) -> Choices:
    made = Settings(**settings)
    return Choices.of(made, Layout.of(np.empty(shape, np.float32), made.channels, made.series))


ANY: list[dict[str, Any]] = [
    {},
    {"shape": (30, 32)},
    {"spacing": (1.0, 1.0, 5.0)},
    {"spacing": (5.0, 1.0, 1.0), "search_radius": (4, 2, 2)},
    {"shape": (3, 20, 22, 24), "series": 0, "method": "stochastic"},
    {"shape": (12, 30, 32), "channels": 0, "search_radius": 5, "patch_radius": (0, 2)},
    {"shape": (2, 3, 40), "search_radius": 9},
    {"backend": "windowed", "search_radius": (3, 2, 1)},
    {"noise": "rician", "despeckle": True, "sigma": 3.0, "h": 2.0},
]


@pytest.mark.parametrize("arguments", ANY, ids=str)
def test_the_record_leads_to_the_same_choices_and_record(arguments: dict[str, Any]) -> None:
    arguments = dict(arguments)
    shape = arguments.pop("shape", (20, 22, 24))
    first = chosen(shape, **arguments)
    layout = Layout.of(np.empty(shape, np.float32), first.settings.channels, first.settings.series)
    again = Choices.of(first.record, layout)
    assert again.name == first.name
    assert (again.patch_radius, again.search_radius) == (first.patch_radius, first.search_radius)
    assert again.record == first.record
    assert (again.halo, again.grain) == (first.halo, first.grain)
    assert Settings.from_json(first.record.to_json()) == first.record


def test_the_record_repeats_the_result() -> None:
    _, image = noisy_piecewise(10, 12, 14, sigma=5.0)
    record = chosen(image.shape, spacing=(2.0, 1.0, 1.0), sigma=5.0).record
    expected = denoise(image, 5.0, spacing=(2.0, 1.0, 1.0))
    repeated = denoise(image, **{name: value for name, value in record.to_dict().items() if value is not None})
    np.testing.assert_array_equal(repeated, expected)


def test_radii_come_from_the_method_unless_they_are_given() -> None:
    stochastic = chosen(method="stochastic")
    assert stochastic.search_radius == (METHODS["stochastic"].search_radius,) * 3
    assert stochastic.patch_radius == (1, 1, 1)
    assert chosen(method="stochastic", search_radius=2, patch_radius=(0, 1, 2)).search_radius == (2, 2, 2)
    assert chosen((30, 32), method="classic").search_radius == (0, 3, 3)
    assert chosen(method="bayes").search_radius == (4, 4, 4)
    assert chosen((30, 32), method="bayes").search_radius == (0, 20, 20)
    assert chosen((30, 32), method="bayes", search_radius=4).search_radius == (0, 4, 4)


def test_a_radius_ends_at_the_opposite_border() -> None:
    choices = chosen((2, 4, 40), method="classic", search_radius=9, patch_radius=3)
    assert choices.search_radius == (1, 3, 9)
    assert choices.patch_radius == (1, 3, 3)


def test_windows_of_groups_hold_enough_patches_across_thick_slices() -> None:
    settings: dict[str, Any] = {"method": "bayes", "spacing": (5.0, 1.0, 1.0)}
    assert chosen(**settings).search_radius == (3, 5, 5)
    assert chosen(**settings, search_radius=2).search_radius == (2, 3, 3)
    assert chosen(**settings, search_radius=(4, 2, 2)).search_radius == (4, 2, 2)


@pytest.mark.parametrize("method", ["classic", "bayes"])
def test_slices_of_a_microscope_are_not_thick(method: str) -> None:
    alike, spaced = (chosen(method=method, modality="GM", spacing=s).search_radius for s in (None, (3.0, 1.0, 1.0)))
    assert spaced == alike


@pytest.mark.parametrize(
    ("spacing", "radius", "expected"),
    [((1.0, 1.0, 5.0), 3, (3, 3, 1)), ((5.0, 0.8, 0.8), 3, (0, 3, 3)), ((2.0, 1.0, 1.0), (1, 2, 3), (1, 2, 3))],
)
def test_one_radius_spans_the_same_distance_along_all_axes(
    spacing: tuple[float, ...], radius: Any, expected: tuple[int, ...]
) -> None:
    assert chosen(method="classic", spacing=spacing, search_radius=radius).search_radius == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing": (1.0, 1.0)}, r"spacing=\(1.0, 1.0\) must have one number per spatial axis: 3"),
        ({"search_radius": (1, 1)}, r"search_radius=\(1, 1\) must have one number per spatial axis: 3"),
        ({"patch_radius": (1, 1)}, r"patch_radius=\(1, 1\) must have one number per spatial axis: 3"),
    ],
)
def test_settings_that_do_not_fit_the_axes_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(**arguments)


def test_halos_of_all_steps_add_up() -> None:
    radii = (1, 1, 1), (3, 3, 3)
    classic, wiener = (METHODS[name].halo(*radii) for name in ("classic", "wiener"))
    assert chosen(method="classic").halo == chosen(method="classic", noise="rician").halo == classic
    both = tuple(a + b for a, b in zip(METHODS["classic"].halo((1, 1, 1), (2, 2, 2)), wiener, strict=True))
    assert chosen(method="wiener", noise="rician").halo_for(False) == both
    despeckled = chosen(method="wiener", noise="rician", despeckle=True)
    assert despeckled.halo_for(False) == tuple(n + DESPECKLE_REACH for n in both)
    assert chosen(method="classic", backend="windowed").halo == tuple(n + 3 for n in classic)


def test_the_level_of_few_photons_in_an_image_is_found_from_a_halo_of_its_own() -> None:
    def reach(noise: str, *shape: int) -> int:
        return chosen(shape, method="wiener", noise=noise, search_radius=3).halo_for(False)[1]

    assert reach("poisson", 40, 42) == reach("gaussian", 40, 42) + COUNTS_REACH
    assert reach("poisson", 38, 40, 42) == reach("gaussian", 38, 40, 42)


def test_a_method_that_whitens_reaches_farther_if_the_noise_may_be_correlated() -> None:
    white = chosen(method="bayes", sigma=2.0)
    found, stated = chosen(method="bayes", noise="gaussian"), chosen(method="bayes", sigma=2.0, correlation=[[[1.0]]])
    assert white.halo == white.halo_for(False) == found.halo_for(False)
    assert found.halo == stated.halo == white.halo_for(True) == tuple(n + COARSER_REACH for n in white.halo)
    assert chosen(method="classic").halo_for(True) == chosen(method="classic").halo_for(False)


def test_grids_of_patches_and_windows_decide_where_tiles_start() -> None:
    assert chosen(method="classic").grain == 1
    assert chosen(method="bayes").grain == METHODS["bayes"].grain
    assert chosen(method="classic", backend="windowed", search_radius=3).grain % 4 == 0
    assert chosen(method="bayes", backend="windowed", search_radius=4).grain % (5 * METHODS["bayes"].grain) == 0


def test_working_memory_is_that_of_the_method_and_of_the_copies() -> None:
    own = METHODS["dct"].bytes_per_voxel("auto", 3, (1, 1, 1), (3, 3, 3))
    assert chosen(method="dct").bytes_per_voxel(3) == own + 3 * CONVERSION_BYTES


def test_auto_becomes_the_name_of_a_method_and_the_log_says_which(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nlmeans")
    choices = chosen(method="auto")
    assert choices.name == choices.record.method == "best"
    assert choices.method is METHODS["best"]
    assert choices.settings.method == "auto"
    assert "method auto picked best" in caplog.text
    small = chosen((1024, 1024, 1024), memory=2**26)
    assert small.name in ("wiener", "classic")


def test_the_spacing_has_one_number_for_each_axis_of_the_engine() -> None:
    assert chosen(spacing=(1.0, 2.0, 5.0)).spacing == (1.0, 2.0, 5.0)
    assert chosen((30, 32), spacing=(3.0, 2.0)).spacing == (2.0, 3.0, 2.0)
    assert chosen().spacing == (1.0, 1.0, 1.0)
