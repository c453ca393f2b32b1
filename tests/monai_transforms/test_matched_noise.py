"""Scans that are brought to a level, or to the noise of another scan."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nlmeans
from monai_transforms import EstimateNoised, RandMatchNoise, RandMatchNoised
from monai_transforms.matched_noise import warn_of_more_noise
from nlmeans import NoiseModel
from tests.nlmeans.volumes import piecewise, rician

CLEAN = torch.from_numpy(piecewise(30, 44, 44)).float() * 4
QUIET = (CLEAN + 4 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(0)))[None]


CURVE = NoiseModel(kind="curve", curve=[(100, 5), (500, 25)])


def deviation(image: Any) -> float:
    return float((image.as_tensor() - CLEAN).std())


@pytest.mark.parametrize("noise", ["auto", "gaussian", "meta", NoiseModel(sigma=4.0), {"sigma": 4.0}], ids=str)
def test_a_scan_comes_to_the_target(noise: Any) -> None:
    data = EstimateNoised("i")({"i": QUIET})
    matched = RandMatchNoised("i", target=15.0, noise=noise).set_random_state(seed=0)(data)["i"]
    assert deviation(matched) == pytest.approx(15, rel=0.04)
    assert nlmeans.estimate_sigma(matched.as_tensor()[0]) == pytest.approx(15, rel=0.06)
    assert "noise_model" not in matched.meta


def test_a_scan_comes_to_the_noise_of_another() -> None:
    other = rician(CLEAN.numpy(), 20.0)
    own = torch.from_numpy(rician(CLEAN.numpy(), 5.0, 1)).float()
    target = nlmeans.estimate_noise(other, modality="MR")
    matched = RandMatchNoise(target=target, noise="rician").set_random_state(seed=0)(own[None]).as_tensor()[0]
    assert nlmeans.estimate_noise(matched, kind="rician").sigma == pytest.approx(target.sigma, rel=0.08)
    dark = CLEAN.numpy() < 1
    if dark.sum() > 200:
        assert float(matched.numpy()[dark].mean()) == pytest.approx(float(other[dark].mean()), rel=0.05)


def test_the_noise_of_a_curve_is_matched_at_each_intensity() -> None:
    steps = torch.linspace(100, 500, 5).repeat_interleave(8)[:, None, None].expand(40, 40, 40)
    quiet = steps + 2 * torch.randn(steps.shape, generator=torch.Generator().manual_seed(0))
    matched = RandMatchNoise(target=CURVE, noise=NoiseModel(sigma=2.0)).set_random_state(seed=0)(quiet[None])
    levels = (matched.as_tensor()[0] - steps)[::8].std((1, 2))
    torch.testing.assert_close(levels, CURVE.sigma_at(steps[::8, 0, 0]), rtol=0.08, atol=0)


def test_each_channel_is_matched_by_itself() -> None:
    two = torch.cat([QUIET, 2 * QUIET])
    matched = RandMatchNoise(target=15.0).set_random_state(seed=0)(two).as_tensor()
    assert float((matched[0] - CLEAN).std()) == pytest.approx(15, rel=0.06)
    assert float((matched[1] - 2 * CLEAN).std()) == pytest.approx(15, rel=0.06)


def test_a_target_is_drawn_between_two() -> None:
    transform = RandMatchNoise(target=(8.0, 30.0), noise=NoiseModel(sigma=4.0)).set_random_state(seed=0)
    found = [deviation(transform(QUIET)) for _ in range(6)]
    assert 7.5 < min(found) < 15 < max(found) < 31


def test_a_scan_with_more_noise_stays_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_more_noise.cache_clear()
    for _ in range(2):
        assert torch.equal(RandMatchNoise(target=2.0)(QUIET).as_tensor(), QUIET)
    assert caplog.text.count("leaves images unchanged that have as much noise as the target or more") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.0}, r"target=0\.0 must be greater than 0"),
        ({"target": (1.0, 2.0, 3.0)}, "must be two numbers, the smallest and the largest"),
        ({"target": NoiseModel(kind="poisson")}, "the target noise is poisson noise"),
        ({"target": NoiseModel()}, "the target noise is gaussian noise"),
        ({"target": 3.0, "noise": CURVE}, r"target=3\.0 is one level, but the image has signal-dependent noise"),
        ({"target": 3.0, "noise": "poisson"}, "noise='poisson' is not known; choose one of 'meta', 'auto', 'gaussian'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandMatchNoise(**arguments)
