"""Zero-filling, seen in the frequencies of a volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans import estimate_noise
from nlmeans.noise.search.acquired import acquired_shares
from tests.nlmeans.volumes import gaussian, piecewise

CLEAN = piecewise(40, 48, 64)


def zero_filled(volume: np.ndarray, axes: tuple[int, ...], share: float) -> np.ndarray:
    """Leave out the frequencies above a share of those that the grid holds."""
    spectrum = np.fft.fftn(volume)
    for axis in axes:
        frequency = np.abs(np.fft.fftfreq(volume.shape[axis])).reshape([-1 if a == axis else 1 for a in range(3)])
        spectrum = spectrum * (frequency <= share / 2)
    return np.fft.ifftn(spectrum).real


@pytest.mark.parametrize("share", [0.5, 2 / 3])
@pytest.mark.parametrize("sigma", [2.0, 15.0])
def test_the_axes_and_the_share_are_found(share: float, sigma: float) -> None:
    filled = zero_filled(gaussian(CLEAN, sigma), (1, 2), share)
    found = acquired_shares(torch.from_numpy(filled))
    assert set(found) == {1, 2}
    assert list(found.values()) == pytest.approx([share, share], abs=0.12)


def test_grey_steps_do_not_hide_it() -> None:
    filled = np.round(zero_filled(gaussian(CLEAN, 15.0), (2,), 0.5))
    assert set(acquired_shares(torch.from_numpy(filled))) == {2}


@pytest.mark.parametrize("sigma", [0.0, 2.0, 15.0])
def test_volumes_as_they_were_measured_show_nothing(sigma: float) -> None:
    assert acquired_shares(torch.from_numpy(gaussian(CLEAN, sigma))) == {}
    assert acquired_shares(torch.zeros(40, 40, 40)) == {}
    assert acquired_shares(torch.rand(5, 6, 7)) == {}


def test_a_smoothing_filter_is_not_taken_for_it() -> None:
    smooth = torch.from_numpy(gaussian(CLEAN, 15.0))
    for axis in range(3):
        smooth = (smooth + smooth.roll(1, axis)) / 2
    assert acquired_shares(smooth) == {}


def test_the_noise_model_says_it() -> None:
    flat = gaussian(np.full((40, 64, 64), 100.0), 10.0)
    model = estimate_noise(zero_filled(flat, (1, 2), 2 / 3))
    assert model.correlation is not None
    said = [sentence for sentence in model.evidence if "zero-filled" in sentence]
    assert [sentence[: len("along axis 1")] for sentence in said] == ["along axis 1", "along axis 2"]
