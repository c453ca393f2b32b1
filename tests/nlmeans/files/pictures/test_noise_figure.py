"""The figure shows what was measured beside what the model says, how neighbours share the noise, and where it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from nlmeans import NoiseModel, estimate_noise
from nlmeans.files.pictures import noise_figure as module
from nlmeans.files.pictures.figure import save_figure
from nlmeans.files.pictures.noise_figure import noise_figure
from nlmeans.noise.rician import rician_deviation
from tests.nlmeans.volumes import Floats, gaussian, rician

SIGMA = 10.0
LAGS = [[[0.5, 1.0, 0.5]]]


def steps(*shape: int, low: float = 100.0, high: float = 800.0) -> Floats:
    """Flat bands across the last axis, from dark to bright."""
    bands = np.repeat(np.linspace(low, high, 4), shape[-1] // 4)
    return np.array(np.broadcast_to(bands, (*shape[:-1], len(bands))))


def shared(*shape: int) -> Floats:
    """Noise of deviation 1 whose correlation with the next voxel along the last axis is 1/2."""
    white = np.random.default_rng(0).standard_normal((*shape[:-1], shape[-1] + 1))
    return np.asarray((white[..., 1:] + white[..., :-1]) / np.sqrt(2))


def agree(measured: Floats, expected: Floats | float) -> None:
    """Check the points as a whole, and each of them as far as the chance of its few voxels allows."""
    ratio = measured / expected
    assert np.median(ratio) == pytest.approx(1, abs=0.1)
    assert 0.6 < ratio.min() < ratio.max() < 1.6


def panels(drawing: Figure) -> tuple[Axes, Axes, Axes]:
    first, second, third = drawing.axes
    return first, second, third


def lines(axis: Axes) -> dict[str, tuple[Floats, Floats]]:
    """The lines of a panel that its legend names."""
    legend = axis.get_legend()
    named = [] if legend is None else [text.get_text() for text in legend.get_texts()]
    drawn = {str(line.get_label()): line for line in axis.lines}
    return {name: (np.asarray(drawn[name].get_xdata()), np.asarray(drawn[name].get_ydata())) for name in named}


def notes(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


def coloured(drawing: Figure) -> npt.NDArray[np.bool_]:
    """The voxels of the picture that are shown in colour."""
    _, overlay = panels(drawing)[2].images
    return ~np.ma.getmaskarray(np.ma.asarray(overlay.get_array()))


# ---------------------------------------------------------------- deviation against intensity


@pytest.mark.parametrize("shape", [(200, 200), (24, 40, 40), (1, 200, 200)])
def test_gaussian_noise_is_as_strong_at_every_intensity(shape: tuple[int, ...]) -> None:
    drawn = lines(panels(noise_figure(gaussian(steps(*shape), SIGMA), NoiseModel(sigma=SIGMA)))[0])
    intensity, deviation = drawn["measured in flat parts"]
    assert len(intensity) >= 5
    agree(deviation, SIGMA)
    along, line = drawn["model"]
    np.testing.assert_array_equal(line, SIGMA)
    assert (along[0], along[-1]) == (intensity[0], intensity[-1])


def test_rician_noise_is_weaker_in_the_dark() -> None:
    noisy = rician(steps(24, 40, 60, low=0, high=80), SIGMA)
    drawn = lines(panels(noise_figure(noisy, NoiseModel(kind="rician", sigma=SIGMA)))[0])
    intensity, deviation = drawn["measured in flat parts"]
    expected = SIGMA * rician_deviation(torch.from_numpy(intensity / SIGMA)).numpy()
    agree(deviation, expected)
    assert deviation[0] < 0.75 * deviation[-1]
    along, line = drawn["model"]
    np.testing.assert_allclose(line, SIGMA * rician_deviation(torch.from_numpy(along / SIGMA)).numpy())


def test_the_line_of_a_curve_is_the_curve() -> None:
    clean = steps(24, 40, 60)
    model = NoiseModel(kind="curve", curve=[(clean.min(), 5), (clean.max(), 40)])
    noisy = clean + model.sigma_at(torch.from_numpy(clean)).numpy() * gaussian(np.zeros(clean.shape), 1.0)
    drawing = noise_figure(noisy, model)
    drawn = lines(panels(drawing)[0])
    intensity, deviation = drawn["measured in flat parts"]
    agree(deviation, np.interp(intensity, [clean.min(), clean.max()], [5, 40]))
    along, line = drawn["model"]
    np.testing.assert_allclose(line, np.interp(along, [clean.min(), clean.max()], [5, 40]))
    assert drawing.get_suptitle().startswith("signal-dependent noise, sigma 5 to 40 over intensities")


def test_the_line_of_several_coils_is_that_of_so_many_coils() -> None:
    noisy = gaussian(steps(16, 30, 30), SIGMA)
    along, line = lines(panels(noise_figure(noisy, NoiseModel(kind="chi", sigma=90.0, coils=4)))[0])["model"]
    np.testing.assert_allclose(line, 90 * rician_deviation(torch.from_numpy(along / 90), 4).numpy())
    assert line[0] < 0.8 * line[-1]


@pytest.mark.parametrize("shape", [(200, 200), (24, 40, 40)])
def test_photon_counts_vary_more_where_it_is_bright(shape: tuple[int, ...]) -> None:
    photons = np.random.default_rng(0).poisson(steps(*shape) / 4).astype(np.float64)
    noisy = gaussian(50.0 + 4 * photons, 6.0)
    model = NoiseModel(kind="poisson", gain=4, offset=50, sigma=6)
    drawn = lines(panels(noise_figure(noisy, model))[0])
    intensity, deviation = drawn["measured in flat parts"]
    agree(deviation, np.sqrt(4 * (intensity - 50) + 36))
    along, line = drawn["model"]
    np.testing.assert_allclose(line, np.sqrt(4 * (along - 50) + 36))


def test_below_the_offset_there_are_no_photons_but_read_noise() -> None:
    model = NoiseModel(kind="poisson", offset=1e6, sigma=6)
    _, line = lines(panels(noise_figure(gaussian(steps(40, 40), SIGMA), model))[0])["model"]
    np.testing.assert_array_equal(line, 6)


def test_points_of_correlated_noise_are_at_the_level_of_the_whole_noise() -> None:
    clean = steps(24, 40, 40)
    noisy = clean + SIGMA * shared(*clean.shape)
    model = NoiseModel(sigma=SIGMA, correlation=LAGS)
    _, deviation = lines(panels(noise_figure(noisy, model))[0])["measured in flat parts"]
    agree(deviation, SIGMA)


def test_noise_without_any_finest_detail_cannot_be_compared() -> None:
    smooth = NoiseModel(sigma=SIGMA, correlation=np.ones((5, 5, 5)))
    deviation, *_ = panels(noise_figure(gaussian(steps(24, 40, 40), SIGMA), smooth))
    assert notes(deviation) == ["too little to see"]


def test_a_level_that_is_not_known_has_no_line() -> None:
    deviation, *_ = panels(noise_figure(gaussian(steps(40, 40), SIGMA), NoiseModel()))
    assert list(lines(deviation)) == ["measured in flat parts"]


def test_points_far_above_the_line_are_explained() -> None:
    noisy = gaussian(steps(40, 40), SIGMA)
    assert notes(panels(noise_figure(noisy, NoiseModel(sigma=SIGMA)))[0]) == []
    assert notes(panels(noise_figure(noisy, NoiseModel(sigma=SIGMA / 2)))[0]) == [
        "structure lifts points above the line"
    ]


def test_axes_start_at_no_noise_and_name_their_units() -> None:
    deviation, *_ = panels(noise_figure(gaussian(steps(40, 40), SIGMA), NoiseModel(sigma=SIGMA)))
    assert deviation.get_ylim()[0] == 0
    assert deviation.get_ylim()[1] > 1.2 * SIGMA
    assert "image units" in deviation.get_xlabel()
    assert "image units" in deviation.get_ylabel()


# ---------------------------------------------------------------- correlation with neighbours


def test_white_noise_has_nothing_in_common_with_its_neighbours() -> None:
    _, correlation, _ = panels(noise_figure(gaussian(steps(40, 40), SIGMA), NoiseModel(sigma=SIGMA)))
    assert "white" in correlation.get_title()
    ((lags, values),) = lines(correlation).values()
    assert lags.tolist() == list(range(len(lags)))
    assert values.tolist() == [1] + [0] * (len(lags) - 1)


def test_each_axis_with_lags_has_a_line() -> None:
    profiles = np.array([0.4, 1, 0.4]), np.array([1]), np.array([-0.3, 0.5, 1, 0.5, -0.3])
    model = NoiseModel(sigma=SIGMA, correlation=np.einsum("i,j,k->ijk", *profiles))
    _, correlation, _ = panels(noise_figure(gaussian(steps(24, 40, 40), SIGMA), model))
    drawn = {name: values.tolist() for name, (_, values) in lines(correlation).items()}
    assert drawn == {"axis 0": [1, 0.4], "axis 2": [1, 0.5, -0.3]}
    assert "white" not in correlation.get_title()
    assert correlation.get_ylim()[0] < -0.3


def test_the_axes_of_an_image_are_0_and_1() -> None:
    profile = np.array([0.4, 1, 0.4])
    model = NoiseModel(sigma=SIGMA, correlation=np.outer(profile, profile)[None])
    _, correlation, place = panels(noise_figure(gaussian(steps(40, 40), SIGMA), model))
    assert list(lines(correlation)) == ["axis 0", "axis 1"]
    assert (place.get_ylabel(), place.get_xlabel()) == ("axis 0", "axis 1")


def test_photon_counts_without_read_noise_are_white_too() -> None:
    model = NoiseModel(kind="poisson", sigma=0.0)
    _, correlation, _ = panels(noise_figure(gaussian(steps(40, 40), SIGMA), model))
    assert "white" in correlation.get_title()


def test_lags_of_nothing_are_white() -> None:
    model = NoiseModel(sigma=SIGMA, correlation=[[[1.0]]])
    _, correlation, _ = panels(noise_figure(gaussian(steps(40, 40), SIGMA), model))
    assert "white" in correlation.get_title()


# ---------------------------------------------------------------- where it was read


@pytest.mark.parametrize("shape", [(60, 80), (21, 40, 50)])
def test_the_middle_slice_is_shown_between_its_percentiles(shape: tuple[int, ...]) -> None:
    noisy = gaussian(steps(*shape), SIGMA)
    drawing = noise_figure(noisy, NoiseModel(sigma=SIGMA))
    picture, _ = panels(drawing)[2].images
    middle = noisy if noisy.ndim == 2 else noisy[10]
    peak = np.abs(noisy).max()
    np.testing.assert_allclose(np.asarray(picture.get_array()) * peak, middle, rtol=1e-12)
    np.testing.assert_allclose(np.array(picture.get_clim()) * peak, np.percentile(middle, (0.5, 99.5)))
    assert picture.get_cmap().name == "gray"


@pytest.mark.parametrize("shape", [(160, 200), (21, 60, 80)])
def test_flat_voxels_are_coloured_and_those_in_texture_are_not(shape: tuple[int, ...]) -> None:
    noisy = gaussian(np.full(shape, 500.0), SIGMA)
    half = shape[-2] // 2
    noisy[..., :half, :] += np.resize([200, -200, 0], shape[-1])  # as bright on average
    shown = coloured(noise_figure(noisy, NoiseModel(sigma=SIGMA)))
    assert shown[half + 4 :].any()
    assert shown[: half - 4].mean() < shown[half + 4 :].mean() / 3
    assert 0.03 < shown.mean() < 0.3


def test_coloured_voxels_are_those_that_the_points_were_measured_in() -> None:
    noisy = gaussian(steps(140, 160), 0.5)
    drawing = noise_figure(noisy, NoiseModel(sigma=0.5))
    intensity, _ = lines(panels(drawing)[0])["measured in flat parts"]
    np.testing.assert_allclose(intensity, np.linspace(100, 800, 4), rtol=0.01)
    for band, level in zip(np.split(coloured(drawing), 4, axis=1), intensity, strict=True):
        assert band.sum() == pytest.approx(0.1 * band.size, rel=0.1), level


def test_a_mask_says_what_is_measured() -> None:
    noisy = gaussian(np.full((20, 50, 60), 500.0), SIGMA)
    mask = np.zeros(noisy.shape, bool)
    mask[:, 10:40, 30:] = True
    noisy[mask] = 500 + 3 * (noisy[mask] - 500)
    drawing = noise_figure(noisy, NoiseModel(sigma=3 * SIGMA), mask)
    assert coloured(drawing).any()
    assert not (coloured(drawing) & ~mask[10]).any()
    _, deviation = lines(panels(drawing)[0])["measured in flat parts"]
    agree(deviation, 3 * SIGMA)


@pytest.mark.parametrize("shape", [(90, 90), (41, 30, 30), (20, 60, 60), (3, 200, 70)])
def test_of_a_large_volume_only_the_middle_is_measured(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOXELS_DRAWN", 2**12 if len(shape) == 2 else 2**14)
    noisy = gaussian(steps(*shape), SIGMA)
    mask = np.ones(noisy.shape, bool)
    drawing = noise_figure(noisy, NoiseModel(sigma=SIGMA), mask)
    picture, _ = panels(drawing)[2].images
    shown = np.asarray(picture.get_array())
    middle = noisy if noisy.ndim == 2 else noisy[shape[0] // 2]
    corner = [n // 2 - kept // 2 for n, kept in zip(middle.shape, shown.shape, strict=True)]
    expected = middle[tuple(slice(start, start + kept) for start, kept in zip(corner, shown.shape, strict=True))]
    np.testing.assert_allclose(shown / shown.max(), expected / expected.max())
    assert coloured(drawing).shape == shown.shape
    assert coloured(drawing).any()


@pytest.mark.parametrize("shape", [(4096, 4096), (300, 512, 512), (2000, 2000, 2000), (5, 8000, 4), (10**7, 2, 2)])
def test_the_middle_is_not_too_large(shape: tuple[int, ...]) -> None:
    part = module.middle_part(shape)
    kept = [piece.stop - piece.start for piece in part]
    assert 0 < np.prod(kept) <= module.VOXELS_DRAWN
    for piece, n in zip(part, shape, strict=True):
        assert 0 <= piece.start <= n // 2 < piece.stop <= n


# ---------------------------------------------------------------- the whole figure


@pytest.mark.parametrize("correlated", [False, True])
def test_the_title_is_the_model(correlated: bool) -> None:
    model = NoiseModel(sigma=SIGMA, correlation=LAGS if correlated else None)
    drawing = noise_figure(gaussian(steps(40, 40), SIGMA), model)
    assert drawing.get_suptitle() == str(model)
    titles = [axis.get_title() for axis in panels(drawing)]
    assert titles[0] == "deviation against intensity"
    assert titles[1].startswith("correlation with neighbours")
    assert titles[2] == "where it was read"


def test_a_model_that_was_found_can_be_drawn_and_saved(tmp_path: Path) -> None:
    noisy = rician(steps(24, 40, 60, low=0, high=200), SIGMA)
    model = estimate_noise(noisy)
    assert model.kind == "rician"
    save_figure(tmp_path / "noise.png", noise_figure(noisy, model))
    height, width, _ = imread(tmp_path / "noise.png").shape
    assert 400 < height < 700
    assert 1000 < width < 1700


NOTHING: dict[str, Any] = {
    "zeros": np.zeros((20, 20)),
    "constant": np.full((12, 14, 16), 7.0),
    "constant 0.1": np.full((30, 30), 0.1, np.float32),
    "negative": np.full((30, 30), -3),
    "3 x 3": np.eye(3),
    "3 x 3 x 3": np.arange(27.0).reshape(3, 3, 3),
    "1 x 1": np.ones((1, 1)),
    "2 x 2 x 2": np.arange(8.0).reshape(2, 2, 2),
    "row": np.arange(50.0)[None, None],
    "bool": np.zeros((20, 20), bool),
}
MODELS = [
    NoiseModel(sigma=0.0),
    NoiseModel(),
    NoiseModel(kind="rician", sigma=0.0),
    NoiseModel(kind="chi", coils=3),
    NoiseModel(kind="poisson"),
    NoiseModel(kind="curve"),
    NoiseModel(sigma=1.0, correlation=np.ones((3, 3, 3))),
]


@pytest.mark.parametrize("name", NOTHING)
def test_volumes_that_show_no_noise_leave_panels_empty(name: str) -> None:
    drawing = noise_figure(NOTHING[name], NoiseModel(sigma=0.0))
    for axis in panels(drawing):
        assert not axis.lines
        assert not axis.images
        assert notes(axis) == ["too little to see"]
    drawing.canvas.draw()


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("volume", [np.eye(3), gaussian(np.zeros((40, 40)), SIGMA)], ids=["nothing", "noise"])
def test_models_that_say_little_can_be_drawn(volume: Floats, model: NoiseModel) -> None:
    noise_figure(volume, model).canvas.draw()


def test_an_empty_mask_leaves_panels_empty() -> None:
    noisy = gaussian(steps(40, 40), SIGMA)
    deviation, _, place = panels(noise_figure(noisy, NoiseModel(sigma=SIGMA), np.zeros(noisy.shape, bool)))
    assert notes(deviation) == notes(place) == ["too little to see"]


@pytest.mark.parametrize("scale", [1e-300, 1e-35, 1e35, 1e300])
@pytest.mark.parametrize("kind", ["gaussian", "rician", "poisson"])
def test_units_do_not_matter(kind: str, scale: float) -> None:
    noisy = gaussian(steps(40, 40), SIGMA) * scale
    drawing = noise_figure(noisy, NoiseModel(kind=kind, sigma=SIGMA * scale, gain=scale))
    drawing.canvas.draw()
    _, deviation = lines(panels(drawing)[0])["measured in flat parts"]
    agree(deviation / scale, SIGMA)


@pytest.mark.parametrize("dtype", ["u1", ">i2", "i4", "f2", ">f4", "f8"])
def test_types_and_layouts_of_the_array_do_not_matter(dtype: str) -> None:
    noisy = np.clip(gaussian(steps(60, 60, low=40, high=160), SIGMA), 1, 254).round()
    model = NoiseModel(sigma=SIGMA)
    given = noisy.astype(dtype)[::-1].T
    given.flags.writeable = False
    expected, drawn = (
        lines(panels(noise_figure(volume, model))[0])["measured in flat parts"] for volume in (noisy[::-1].T, given)
    )
    np.testing.assert_allclose(drawn, expected, rtol=1e-4)
