"""Properties of plans: any box of any plan equals that box of the whole, and the verdict does not depend on how."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlmeans import Settings
from nlmeans.core.layout import Layout
from nlmeans.core.tiles import Piece
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.noise.kinds import FOLLOWING, NOISES
from tests.properties.strategies import Floats, content, seeds
from tests.properties.test_denoise import SIGMA, tiles_of
from tests.properties.test_noise_models import correlation_of

METHOD = st.sampled_from(["classic", "linear", "dct", "wiener", "pri", "bayes", "subspace"])
TOLERANCE = {"linear": 2e-2}
"""Largest difference in units of sigma; 1e-3 for the other methods."""


@st.composite
def plans(draw: Any) -> Plan:
    """Draw the plan of a volume: any kind of noise and method, with a mask, a map or a correlation, or without."""
    shape = tuple(draw(st.integers(5, 16)) for _ in range(3))
    seed, kind = draw(seeds), draw(st.sampled_from(["noise", "steps", "ramp", "zeros"]))
    volume, random = np.abs(content(kind, shape, seed)), np.random.default_rng(seed)
    noise = draw(st.sampled_from(NOISES))
    how: dict[str, Any] = {"method": draw(METHOD), "noise": noise, "sigma": SIGMA, "search_radius": 2}
    how |= {
        "chi": {"coils": 4.0},
        "poisson": {"gain": 0.02},
        "curve": {"sigma": None, "curve": [(0, SIGMA / 2), (10 * SIGMA, SIGMA)]},
    }.get(noise, {})
    if draw(st.booleans()):
        how |= {"correlation": correlation_of((0.5, 0.3, 0.0))}
    mask = random.random(shape) < 0.8 if draw(st.booleans()) else None
    varies = noise not in FOLLOWING and "correlation" not in how and draw(st.booleans())
    sigma_map = (SIGMA * random.random(shape)).astype(np.float32) if varies else None
    settings = Settings(**how)
    layout = Layout.of(volume, None, None)
    return Plan.of(volume, 0, layout, Choices.of(settings, layout, volume), mask=mask, sigma_map=sigma_map)


@st.composite
def boxes(draw: Any, shape: tuple[int, ...]) -> Piece:
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    z, y, x = (slice(a, draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True))
    return z, y, x


@given(plan=plans(), tile=st.tuples(*[st.integers(3, 16)] * 3), data=st.data())
def test_any_box_equals_that_box_of_the_whole_in_any_tiles(plan: Plan, tile: tuple[int, ...], data: Any) -> None:
    box = data.draw(boxes(plan.layout.shape))
    whole: Any = plan.run(plan.layout.everywhere)
    tolerance = TOLERANCE.get(plan.choices.name, 1e-3) * SIGMA
    np.testing.assert_allclose(np.asarray(plan.run(box)), whole[box], atol=tolerance)
    with tiles_of(tile):
        np.testing.assert_allclose(np.asarray(plan.run(plan.layout.everywhere)), whole, atol=tolerance)


def judged(volume: Floats, sigma: float, tile: tuple[int, ...] | None = None, **how: Any) -> tuple[Plan, list[str]]:
    settings = Settings(sigma=sigma, **{"method": "wiener", **how})
    layout = Layout.of(volume, None, None)
    plan = Plan.of(volume, 0, layout, Choices.of(settings, layout, volume))
    if tile is None:
        plan.run(layout.everywhere)
    else:
        with tiles_of(tile):
            plan.run(layout.everywhere)
    return plan, plan.verdict()


@given(
    kind=st.sampled_from(["noise", "steps", "ramp"]),
    level=st.sampled_from([0.1, 1.0, 20.0]),
    power=st.integers(-40, 40),
    tile=st.tuples(*[st.integers(6, 20)] * 3),
    seed=seeds,
)
def test_the_verdict_knows_neither_scale_nor_tiles(
    kind: str, level: float, power: int, tile: tuple[int, ...], seed: int
) -> None:
    volume, scale = content(kind, (18, 17, 16), seed), 2.0**power
    plan, doubts = judged(volume, level * SIGMA)
    scaled, same = judged(scale * volume, scale * level * SIGMA)
    assert same == doubts
    assert scaled.removed.deviation == plan.removed.deviation
    tiled, _ = judged(volume, level * SIGMA, tile)
    assert tiled.removed.voxels == plan.removed.voxels
    np.testing.assert_allclose(tiled.removed.deviation, plan.removed.deviation, rtol=1e-3, atol=1e-4)


@given(seed=seeds, level=st.sampled_from([0.1, 0.03]))
def test_noise_that_stays_is_said(seed: int, level: float) -> None:
    volume = 0.5 + SIGMA * np.random.default_rng(seed).standard_normal((18, 17, 16))
    plan, doubts = judged(volume, level * SIGMA)
    assert plan.removed.voxels == volume.size
    assert len(doubts) == 1
    assert doubts[0].startswith("hardly any noise was removed")
    assert judged(volume, SIGMA)[1] == []


@given(seed=seeds)
def test_structure_that_goes_is_said(seed: int) -> None:
    waves = np.sin(np.indices((24, 24, 24)).sum(0) / 2.0)
    volume = waves + SIGMA * np.random.default_rng(seed).standard_normal(waves.shape)
    _, doubts = judged(volume, 10 * SIGMA)
    assert len(doubts) == 1
    assert doubts[0].startswith("structure may have been removed")


def test_a_plan_that_has_removed_nothing_yet_has_no_doubts() -> None:
    volume = np.random.default_rng(0).random((6, 7, 8))
    settings, layout = Settings(sigma=SIGMA), Layout.of(volume, None, None)
    plan = Plan.of(torch.from_numpy(volume), 0, layout, Choices.of(settings, layout))
    assert plan.verdict() == []
