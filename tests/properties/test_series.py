"""Properties of `denoise` for any series whose volumes are denoised together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlmeans import Settings, denoise
from nlmeans.core.layout import Layout
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from tests.properties.strategies import Floats, content, seeds, shapes
from tests.properties.test_denoise import SIGMA, tiles_of
from tests.properties.test_plans import boxes

AXIS = st.integers(-4, 3)
SHAPE = shapes(dimensions=3, voxels=400, longest=14)


@st.composite
def series(draw: Any, kinds: tuple[str, ...] = ("noise", "steps", "constant", "ramp", "zeros")) -> Floats:
    """Draw 4 to 7 volumes of the same kind, along the first axis."""
    shape, kind, seed = draw(SHAPE), draw(st.sampled_from(kinds)), draw(seeds)
    return np.stack([content(kind, shape, seed + n) for n in range(draw(st.integers(4, 7)))])


def together(volumes: Any, sigma: Any = SIGMA, **options: Any) -> Any:
    return denoise(volumes, sigma, method="series", series=0, **options)


@given(volumes=series(), power=st.integers(-60, 60))
def test_powers_of_two_come_through_bit_for_bit(volumes: Floats, power: int) -> None:
    scale = 2.0**power
    np.testing.assert_array_equal(together(scale * volumes, scale * SIGMA), scale * together(volumes))


@given(
    value=st.floats(-1e30, 1e30),
    shape=SHAPE,
    dtype=st.sampled_from(["f4", "f8", "i2"]),
    sigma=st.sampled_from([None, 0.0, 1.0, 1e20]),
)
def test_constants_come_back(value: float, shape: Any, dtype: str, sigma: Any) -> None:
    value = float(np.clip(round(value), -30000, 30000)) if dtype == "i2" else value
    volumes = np.full((5, *shape), value).astype(dtype)
    np.testing.assert_allclose(together(volumes, sigma), volumes, rtol=1e-6)


@given(volumes=series(), noise=st.sampled_from(["gaussian", "rician"]))
def test_without_noise_nothing_changes(volumes: Floats, noise: str) -> None:
    volumes = np.abs(volumes)
    np.testing.assert_array_equal(together(volumes, 0, noise=noise), volumes)
    np.testing.assert_array_equal(together(volumes, np.zeros(volumes.shape[1:]), noise=noise), volumes)


@given(
    volumes=series(),
    sigma=st.sampled_from([1e-300, 1e-30, 1e-9, 1e-3, 1.0, 1e3, 1e9, 1e30, 1e300]),
    noise=st.sampled_from(["gaussian", "rician"]),
)
def test_any_sigma_gives_finite_values_within_what_there_was(volumes: Floats, sigma: float, noise: str) -> None:
    volumes = np.abs(volumes)
    result = together(volumes, sigma, noise=noise)
    spread = np.ptp(volumes)
    assert np.isfinite(result).all()
    assert result.min() >= min(0.0, volumes.min()) - 0.5 * spread - 1e-6
    assert result.max() <= volumes.max() + 0.5 * spread + 1e-6


@given(volumes=series(), seed=seeds)
def test_the_mask_says_where_and_changes_nothing_there(volumes: Floats, seed: int) -> None:
    inside = np.random.default_rng(seed).random(volumes.shape[1:]) < 0.5
    result = together(volumes, mask=inside)
    np.testing.assert_array_equal(result[:, ~inside], volumes[:, ~inside])
    np.testing.assert_array_equal(result[:, inside], together(volumes)[:, inside])


@given(volumes=series(), seed=seeds)
def test_where_the_map_is_zero_nothing_changes(volumes: Floats, seed: int) -> None:
    random = np.random.default_rng(seed)
    sigma = 2 * SIGMA * random.random(volumes.shape[1:]) * (random.random(volumes.shape[1:]) < 0.7)
    result = together(volumes, sigma)
    np.testing.assert_array_equal(result[:, sigma == 0], volumes[:, sigma == 0])
    assert np.isfinite(result).all()


@given(volumes=series(), tile=st.tuples(*[st.integers(3, 24)] * 3), spikes=st.sampled_from([0, 0.01]), seed=seeds)
def test_tiles_change_nothing(volumes: Floats, tile: tuple[int, ...], spikes: float, seed: int) -> None:
    volumes = volumes + 100 * (np.random.default_rng(seed).random(volumes.shape) < spikes)
    whole = together(volumes)
    with tiles_of(tile):
        tiled = together(volumes)
    np.testing.assert_allclose(tiled, whole, atol=1e-3 * SIGMA)


@given(volumes=series(), axis=AXIS)
def test_any_axis_can_hold_the_volumes(volumes: Floats, axis: int) -> None:
    moved = np.moveaxis(volumes, 0, axis)
    result = denoise(moved, SIGMA, method="series", series=axis)
    np.testing.assert_array_equal(np.moveaxis(result, axis, 0), together(volumes))


@given(volumes=series())
def test_numpy_and_torch_give_the_same_bits(volumes: Floats) -> None:
    for values in (volumes, volumes.astype(np.float32)):
        np.testing.assert_array_equal(together(torch.from_numpy(values)).numpy(), together(values))


@given(volumes=series(kinds=("steps", "ramp")), seed=seeds)
def test_the_order_of_volumes_does_not_matter(volumes: Floats, seed: int) -> None:
    """Whether a voxel is hot is decided among a few volumes, so there are no voxels here that stand out."""
    order = np.random.default_rng(seed).permutation(len(volumes))
    np.testing.assert_allclose(together(volumes[order]), together(volumes)[order], atol=2e-2 * SIGMA)


@given(volumes=series(), noise=st.sampled_from(["gaussian", "rician"]), data=st.data())
def test_any_box_equals_that_box_of_the_whole(volumes: Floats, noise: str, data: st.DataObject) -> None:
    volumes = np.abs(volumes)
    settings = Settings(sigma=SIGMA, method="series", noise=noise, series=0)
    layout = Layout.of(volumes, None, 0)
    choices = Choices.of(settings, layout, volumes)
    plan = Plan.of(volumes, 0, choices.layout, choices)
    box = data.draw(boxes(plan.layout.shape))
    whole = np.asarray(plan.run(plan.layout.everywhere))
    np.testing.assert_allclose(np.asarray(plan.run(box)), whole[:, *box], atol=1e-3 * SIGMA)
    np.testing.assert_allclose(whole, together(volumes, noise=noise), atol=1e-6)
