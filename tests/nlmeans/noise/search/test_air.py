"""What the air of a magnitude image says of the noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans import denoise, estimate_noise
from nlmeans.core.metrics import psnr
from nlmeans.noise.model import with_next_voxel
from nlmeans.noise.search.air import TABULATED, air_of, of_magnitudes
from nlmeans.noise.search.finest import finest_detail
from tests.nlmeans.noise.search.test_found import filtered
from tests.nlmeans.volumes import Floats, rician, sample


def magnitudes(kind: str, sigma: float) -> tuple[Floats, Floats]:
    """Half a head with texture, and with Rician noise as scanners save it."""
    clean = sample("head_clean")[..., 20:60]
    real, imaginary = (sigma * filtered(kind, clean.shape, seed) for seed in (0, 1))
    return clean, np.hypot(clean + real, imaginary)


@pytest.mark.parametrize(("kind", "next_voxel"), [("zero-filled", 0.41), ("apodised", 0.67)])
@pytest.mark.parametrize("sigma", [40.0, 100.0])
def test_the_air_shows_correlated_noise_where_the_object_is_texture(kind: str, next_voxel: float, sigma: float) -> None:
    clean, noisy = magnitudes(kind, sigma)
    model = estimate_noise(noisy)
    assert model.kind == "rician"
    assert model.sigma == pytest.approx(sigma, rel=0.06)
    assert with_next_voxel(model.correlation)[2] == pytest.approx(next_voxel, abs=0.12)
    assert "the air has the mean of magnitudes" in str(model.evidence)
    plain = denoise(noisy, noise="rician", correlation=None, method="bayes")
    assert psnr(clean, denoise(noisy, method="bayes")) > psnr(clean, plain) + 2


def test_white_noise_in_the_air_stays_white() -> None:
    clean = sample("head_clean")[:, :, 20:60]
    real, imaginary = (40 * np.random.default_rng(seed).standard_normal(clean.shape) for seed in (0, 1))
    model = estimate_noise(np.hypot(clean + real, imaginary))
    assert (model.kind, model.correlation) == ("rician", None)
    assert model.sigma == pytest.approx(40, rel=0.03)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7, 0.95])
def test_magnitudes_correlate_as_measured(correlation: float) -> None:
    random = np.random.default_rng(0)
    here = random.standard_normal((2, 400_000))
    there = correlation * here + np.sqrt(1 - correlation**2) * random.standard_normal(here.shape)
    measured = np.corrcoef(np.hypot(*here), np.hypot(*there))[0, 1]
    assert np.interp(correlation, TABULATED, of_magnitudes(TABULATED)) == pytest.approx(measured, abs=0.01)


def test_air_beside_dark_tissue_shows_several_coils() -> None:
    clean = np.zeros((24, 40, 60))
    clean[:, :, 30:] = 300
    clean[:, :, 24:30] = 60  # the bias of several coils hides that it is no air
    halves = [rician(clean / 2, 20.0, seed) ** 2 for seed in range(4)]
    values = torch.from_numpy(np.sqrt(sum(halves)))
    around = finest_detail(values, None)
    coils = air_of(values, around, around.usable).coils
    assert coils == pytest.approx(4, abs=0.4)
