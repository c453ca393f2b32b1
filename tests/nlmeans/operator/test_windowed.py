"""The backend `windowed`: its reference, the blending of windows, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import nonlocal_means
from nlmeans.operator.backends import choose
from tests.nlmeans.operator.cases import ANY_CENTER, TOLERANCE, largest_error
from tests.nlmeans.operator.requests import empty_request


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("blend", ["smooth", "plain"])
@pytest.mark.parametrize("case", sorted(set(ANY_CENTER) - {"far below the range"}))
def test_windowed_agrees_with_its_reference(case: str, blend: str, dtype: Any, rng: np.random.Generator) -> None:
    error = largest_error(ANY_CENTER[case], dtype, rng, "windowed", blend=blend)
    assert error < TOLERANCE[dtype]


def test_windowed_is_the_softmax_of_one_window_where_it_covers_the_image() -> None:
    """With a large window nothing is approximated: every voxel is compared with every other."""
    image = np.random.default_rng(0).random((1, 3))
    result = nonlocal_means(image, 0.5, patch_radius=0, search_radius=(0, 1), backend="windowed", blend="plain")
    middle = np.exp(-((image[0, 1] - image[0]) ** 2) / 0.25)
    windows = [[1, 0, 1], [1, 2, 1]]  # centred on the borders, which reflect; the middle voxel lies in both
    expected = np.mean([np.average(image[0, w], weights=middle[w]) for w in windows])
    assert result[0, 1] == pytest.approx(expected, rel=1e-12)


def test_batches_of_windows_change_nothing(rng: np.random.Generator) -> None:
    image = rng.random((5, 6, 7))
    whole, one_by_one = (
        nonlocal_means(image, 0.3, search_radius=2, backend="windowed", memory=memory) for memory in (2**30, 1)
    )
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-13)


def border_steps(blend: str) -> float:
    """Squared steps between voxels where a window begins or ends, relative to the steps elsewhere."""
    radius, image = 4, torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    result = nonlocal_means(image, 30.0, patch_radius=0, search_radius=radius, backend="windowed", blend=blend)
    steps = result.diff(dim=1).square().mean(0)
    first = torch.arange(0, 100, radius + 1) - radius  # windows are centred on every (radius + 1)th voxel
    edges = torch.cat([first - 1, first + 2 * radius])
    at_border = torch.zeros(len(steps), dtype=torch.bool)
    at_border[edges[(edges >= 0) & (edges < len(steps))]] = True
    inner = torch.zeros_like(at_border)
    inner[10:-10] = True
    return float(steps[at_border & inner].mean() / steps[~at_border & inner].mean())


def test_smooth_blending_leaves_no_steps_at_the_borders_of_windows() -> None:
    plain, smooth = border_steps("plain"), border_steps("smooth")
    assert plain > 1.5
    assert smooth < 1.1


@pytest.mark.parametrize("impossible", [{"sigma": 1.0}, {"center": "max"}, {"center": "zero"}])
def test_windowed_claims_neither_sigma_nor_center_rules(impossible: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"backend='windowed' cannot do this: .*; backend='\w+' can"):
        choose(empty_request((8, 8, 8), 1, **impossible), "windowed")  # type: ignore[arg-type]
