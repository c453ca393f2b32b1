"""The compiled sliding DCT on single patches, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from nlmeans.core.lags import dct_matrix
from nlmeans.kernels.vector import LANES
from nlmeans.patches.dct.cpu_kernel import Slide, filter_rows
from nlmeans.patches.kernel_constants import EDGE

Floats = NDArray[np.float32]


def uneven(shape: tuple[int, ...]) -> Floats:
    """Variance of the noise in each coefficient of a patch, as correlated noise has it."""
    return np.random.default_rng(1).uniform(0.2, 2, shape).astype(np.float32)


def filtered(
    noisy: Floats, pilot: Floats | None, variance: float, strength: float, spectrum: Floats
) -> tuple[Floats, Floats]:
    """Sums and weights that the kernel makes of one patch, (D, H, W), at the start of a row of zeros."""
    depth, height, width = noisy.shape
    rows = np.zeros((2, depth, height, width + LANES - 1), np.float32)
    rows[0, ..., :width] = noisy
    rows[1, ..., :width] = noisy if pilot is None else pilot
    slide = Slide((1, 1, 1), (depth, height, width), (depth, height, width + LANES - 1), LANES, 0, strength)
    total, weights = np.zeros(rows[0].size, np.float32), np.zeros(LANES, np.float32)
    levels = np.full(LANES, variance, np.float32)
    constants = np.concatenate([dct_matrix(EDGE).float().numpy().ravel(), spectrum.ravel()])
    filter_rows(
        rows[0].ravel(), rows[1].ravel(), levels, constants, slide, pilot is not None, 0, 1, 0, 1, total, weights
    )
    return total.reshape(rows[0].shape)[..., :width], weights


@pytest.mark.parametrize("shape", [(4, 4, 4), (1, 4, 4), (1, 1, 4)])
def test_a_hard_threshold_keeps_large_coefficients_and_the_mean(shape: tuple[int, ...]) -> None:
    noisy = (3 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    coefficients = dctn(noisy.astype(np.float64), norm="ortho")
    spectrum = uneven(shape)
    kept = np.square(coefficients) > 2.7**2 * 1.5 * spectrum
    kept.flat[0] = True
    total, weights = filtered(noisy, None, 1.5, 2.7**2, spectrum)
    weight = 1 / ((kept * spectrum).sum() * 1.5)
    np.testing.assert_allclose(total, weight * idctn(kept * coefficients, norm="ortho"), atol=1e-5)
    assert weights[0] == pytest.approx(weight, rel=1e-5)
    assert not weights[1:].any()  # lanes beyond the end of the row


@pytest.mark.parametrize("shape", [(4, 4, 4), (1, 4, 4), (1, 1, 4)])
def test_a_wiener_filter_shrinks_by_the_coefficients_of_the_pilot(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    noisy, pilot = (3 * rng.standard_normal((2, *shape))).astype(np.float32)
    energy = np.square(dctn(pilot.astype(np.float64), norm="ortho"))
    spectrum = uneven(shape)
    gain = energy / (energy + 2.0 * 1.5 * spectrum)
    gain.flat[0] = 1
    total, weights = filtered(noisy, pilot, 1.5, 2.0, spectrum)
    weight = 1 / ((np.square(gain) * spectrum).sum() * 1.5)
    expected = weight * idctn(gain * dctn(noisy.astype(np.float64), norm="ortho"), norm="ortho")
    np.testing.assert_allclose(total, expected, atol=1e-5)
    assert weights[0] == pytest.approx(weight, rel=1e-5)
