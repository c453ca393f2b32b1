"""Methods in the DCT domain: dct, wiener and pri."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nlmeans.core.progress import silent
from nlmeans.methods.means import classic
from nlmeans.methods.method import Options
from nlmeans.methods.registry import METHODS
from nlmeans.methods.transform import DCT, PRI, WIENER, dct, neighbour_mean, pri, wiener
from nlmeans.patches.dct.sliding import hard_threshold, wiener_filter

OPTIONS = Options(0.9, (1, 1, 1), (1, 1, 1), "loop", 2**30)


def random_tile(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(0))


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 6)])
def test_means_of_neighbours_reflect_the_border(shape: tuple[int, int, int]) -> None:
    volume = random_tile(*shape)
    reach = tuple(int(n > 1) for n in shape)
    padded = np.pad(volume.numpy(), [(r, r) for r in reach], mode="reflect")
    means = neighbour_mean(volume)
    for place in np.ndindex(*shape):
        box = tuple(slice(p, p + 2 * r + 1) for p, r in zip(place, reach, strict=True))
        assert float(means[place]) == pytest.approx(padded[box].mean())


def test_dct_is_a_hard_threshold_at_every_voxel() -> None:
    noisy = random_tile(2, 5, 6, 7)
    expected = hard_threshold(noisy, 1.0, patch=4, stride=1, threshold=2.7)
    torch.testing.assert_close(dct(noisy, 1.0, OPTIONS, silent), expected)


def test_wiener_takes_classic_as_its_pilot() -> None:
    noisy = random_tile(2, 5, 6, 7)
    expected = wiener_filter(noisy, classic(noisy, 1.0, OPTIONS, silent), 1.0, patch=4, stride=1)
    torch.testing.assert_close(wiener(noisy, 1.0, OPTIONS, silent), expected)


def test_pri_compares_values_and_means_of_a_dct_pilot() -> None:
    noisy = random_tile(1, 4, 5, 6)
    pilot = dct(noisy, 1.0, OPTIONS, silent)[0]
    value, mean, image = (np.pad(z.numpy(), 1, mode="reflect") for z in (pilot, neighbour_mean(pilot), noisy[0]))
    result = pri(noisy, 1.0, OPTIONS, silent)[0]
    for place in np.ndindex(4, 5, 6):
        here = tuple(p + 1 for p in place)
        weights = values = 0.0
        for offset in itertools.product((-1, 0, 1), repeat=3):
            there = tuple(h + o for h, o in zip(here, offset, strict=True))
            distance = (value[here] - value[there]) ** 2 / 0.8 + (mean[here] - mean[there]) ** 2 / 0.4
            weight = np.exp(-distance / 0.9**2)
            weights, values = weights + weight, values + weight * image[there]
        assert float(result[place]) == pytest.approx(values / weights, abs=1e-9)


def test_halos_reach_over_two_patches_the_window_and_the_patch() -> None:
    assert DCT.halo((1, 1, 1), (3, 3, 3)) == (6, 6, 6)
    assert WIENER.halo((1, 0, 2), (3, 4, 0)) == (10, 10, 8)
    assert PRI.halo((1, 1, 1), (3, 4, 0)) == (10, 11, 7)


@pytest.mark.parametrize("name", ["dct", "wiener", "pri", "bayes", "subspace"])
def test_the_progress_of_a_method_covers_all_of_its_parts(name: str) -> None:
    """A bar that ends with the first part would stand still at 100 % for the rest."""
    done: list[float] = []
    noisy = torch.randn(1, 16, 40, 40, generator=torch.Generator().manual_seed(0))
    method = METHODS[name]
    options = Options(1.0, (1, 1, 1), (2, 2, 2), "auto", 2**30)
    method.run(noisy, 1.0, (slice(0, 16), slice(0, 40), slice(0, 40)), options, done.append)
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0)
    assert len({round(fraction, 2) for fraction in done}) >= 3
