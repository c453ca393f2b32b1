"""The correlation of the noise of a series, from what its volumes do not share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from nlmeans.noise.search.unshared import unshared_correlation
from tests.nlmeans.volumes import Floats, decaying_series, piecewise

VOLUMES = 24


def series(noise: Floats) -> torch.Tensor:
    """A decay over the volumes of an object full of edges, (V, D, H, W), with noise of 10."""
    decay = np.exp(-np.linspace(0, 1, VOLUMES))[:, None, None, None]
    return torch.from_numpy(decay * piecewise(14, 40, 44) + 10 * noise).float()


def smooth(width: float) -> Floats:
    noise = np.random.default_rng(0).standard_normal((VOLUMES, 14, 40, 44))
    for axis in (2, 3):
        noise = gaussian_filter1d(noise, width, axis=axis, mode="wrap")
    return noise / noise.std()


def test_white_noise_is_white_whatever_the_object_is() -> None:
    white = np.random.default_rng(0).standard_normal((VOLUMES, 14, 40, 44))
    assert unshared_correlation([series(white)]) is None
    assert unshared_correlation([torch.from_numpy(decaying_series(8, 10.0)[1]).movedim(-1, 0)]) is None


@pytest.mark.parametrize("width", [0.5, 0.8])
def test_neighbours_correlate_as_in_the_noise_and_not_as_in_the_object(width: float) -> None:
    noise = smooth(width)
    found = unshared_correlation([series(noise)])
    assert found is not None
    assert found[3, 3, 3] == 1
    for lag in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (0, 0, 2)):
        shifted = np.roll(noise, [-step for step in lag], (1, 2, 3))
        at, opposite = (tuple(3 + sign * step for step in lag) for sign in (1, -1))
        assert float(found[at]) == pytest.approx(float((noise * shifted).mean()), abs=0.03)
        assert found[at] == found[opposite]


def test_parts_of_a_series_show_what_the_whole_shows() -> None:
    whole = series(smooth(0.8))
    parts = [whole[:, :, :20], whole[:, :, 20:]]
    one, two = unshared_correlation([whole]), unshared_correlation(parts)
    assert one is not None
    assert two is not None
    torch.testing.assert_close(two, one, atol=0.03, rtol=0)


def test_an_image_has_no_lags_along_its_depth() -> None:
    found = unshared_correlation([series(smooth(0.8))[:, 7:8]])
    assert found is not None
    assert found.shape == (1, 11, 11)


@pytest.mark.parametrize("values", [0.0, 5.0])
def test_a_series_without_noise_shows_no_correlation(values: float) -> None:
    assert unshared_correlation([torch.full((8, 6, 6, 6), values)]) is None


@pytest.mark.parametrize("shape", [(8, 24, 24), (3, 40, 9)])
def test_structure_that_volumes_do_not_share_is_no_noise_of_neighbours(shape: tuple[int, ...]) -> None:
    """Four volumes of four structures have no direction with noise alone: the weakest is as smooth as the others."""
    random = np.random.default_rng(0)
    structures = gaussian_filter(random.standard_normal((4, *shape)), (0, 2, 2, 2))
    mixed = np.tensordot(random.uniform(-1, 1, (4, 4)), structures / structures.std(), 1)
    noisy = 100 + 20 * mixed + random.standard_normal(mixed.shape)
    assert unshared_correlation([torch.from_numpy(noisy)]) is None


def test_structure_among_the_noise_of_few_volumes_does_not_count() -> None:
    """Three structures in four volumes leave one direction with noise, beside which all others are far stronger."""
    random = np.random.default_rng(1)
    structures = gaussian_filter(random.standard_normal((3, 10, 30, 30)), (0, 2, 2, 2))
    mixed = np.tensordot(random.uniform(-1, 1, (4, 3)), structures / structures.std(), 1)
    white = random.standard_normal((4, 10, 30, 31))
    assert unshared_correlation([torch.from_numpy(100 + 20 * mixed + white[..., 1:])]) is None
    found = unshared_correlation([torch.from_numpy(100 + 20 * mixed + white[..., 1:] + white[..., :-1])])
    assert found is not None
    assert float(found[3, 3, 4]) == pytest.approx(0.5, abs=0.05)
