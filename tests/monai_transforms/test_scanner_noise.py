"""Noise for training: of the level, kind and covariance wanted, drawn anew for each image, and repeated by a seed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, ConcatItemsd

import nlmeans
from monai_transforms import EstimateNoised, NonLocalMeansd, RandScannerNoise, RandScannerNoised
from nlmeans import NoiseModel
from nlmeans.noise.drawn.fields import CORRELATIONS, scanner_correlation
from tests.monai_transforms.scans import image
from tests.nlmeans.volumes import piecewise, rician

FLAT = torch.full((1, 120, 130), 200.0)
CLEAN = torch.from_numpy(piecewise(24, 40, 40)).float()[None] * 4


def added(transform: Any, given: Any = FLAT, seed: int = 0) -> Any:
    return transform.set_random_state(seed=seed)(given).as_tensor().double()


@pytest.mark.parametrize(
    ("arguments", "deviation"),
    [
        ({"noise": "gaussian", "sigma": 5.0}, 5.0),
        ({"noise": "rician", "sigma": 5.0}, 5.0),
        ({"noise": "chi", "sigma": 5.0, "coils": 3.0}, 5.0),
        ({"noise": "poisson", "gain": 2.0}, 20.0),
        ({"noise": "poisson", "gain": 2.0, "offset": 150.0, "sigma": 7.0}, 149**0.5),
        ({"noise": NoiseModel(sigma=5.0)}, 5.0),
        ({"noise": {"kind": "rician", "sigma": 5.0}}, 5.0),
        ({"noise": NoiseModel(sigma=5.0), "strength": (3.0, 3.0)}, 15.0),
        ({"noise": "poisson", "gain": 2.0, "strength": (3.0, 3.0)}, 60.0),
        ({"noise": "curve", "curve": [(0, 1), (400, 9)]}, 5.0),
        ({"noise": {"kind": "curve", "curve": "0:1,400:9"}, "strength": (3.0, 3.0)}, 15.0),
    ],
    ids=str,
)
def test_the_noise_has_the_level_of_the_model(arguments: dict[str, Any], deviation: float) -> None:
    found = added(RandScannerNoise(1.0, **arguments))
    assert float(found.std()) == pytest.approx(deviation, rel=0.03)
    assert float(found.mean()) == pytest.approx(200, abs=1)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_the_noise_is_correlated_as_by_a_filter_of_scanners(name: str) -> None:
    for given in (FLAT, torch.full((1, 40, 42, 44), 200.0)):
        found = added(RandScannerNoise(1.0, sigma=5.0, correlation=name), given)[0] - 200
        lags = np.array(scanner_correlation(name, found.ndim))
        middle = [n // 2 for n in lags.shape]
        near = float((found[..., 1:] * found[..., :-1]).mean() / found.square().mean())
        assert near == pytest.approx(lags[middle[0], middle[1], middle[2] + 1], abs=0.06)
        assert float(found.std()) == pytest.approx(5, rel=0.06)


def test_the_noise_varies_in_space_as_told() -> None:
    varying = added(RandScannerNoise(1.0, sigma=5.0, varying=0.6))[0] - 200
    blocks = torch.nn.functional.avg_pool2d(varying.square()[None], 30).sqrt()
    assert float(blocks.max() / blocks.min()) > 1.6
    sigma = torch.linspace(1, 20, 130).expand(120, 130)
    transform = RandScannerNoised("i", 1.0, sigma_key="s").set_random_state(seed=0)
    found = transform({"i": FLAT, "s": sigma})["i"].as_tensor()
    np.testing.assert_allclose(found[0].std(0), sigma[0], rtol=0.35)


def test_noise_like_this_scans_is_one_call() -> None:
    scan = torch.from_numpy(rician(CLEAN[0].numpy(), 12.0)).float()
    model = nlmeans.estimate_noise(scan, modality="MR")
    noisy = added(RandScannerNoise(1.0, model), CLEAN)[0].float()
    assert nlmeans.estimate_noise(noisy, modality="MR").sigma == pytest.approx(model.sigma, rel=0.08)


def test_what_was_estimated_is_drawn_again_for_each_channel() -> None:
    two = torch.cat([CLEAN + 5 * torch.randn(CLEAN.shape), CLEAN + 25 * torch.randn(CLEAN.shape)])
    with_model = EstimateNoised("i")({"i": two})["i"]
    assert [one["kind"] for one in json.loads(with_model.meta["noise_model"])] == ["gaussian", "gaussian"]
    sigmas = with_model.meta["noise_sigma"]
    noisy = RandScannerNoise(1.0, "meta").set_random_state(seed=0)(with_model)
    for channel, sigma in enumerate(sigmas):
        assert float((noisy - two)[channel].std()) == pytest.approx(sigma, rel=0.03)
    assert "noise_sigma" not in noisy.meta  # it is no longer true
    assert "noise_sigma" in with_model.meta
    with pytest.raises(ValueError, match=r"for 2 channel.*, but the image has 1; put EstimateNoise"):
        RandScannerNoise(1.0, "meta")(MetaTensor(two[:1], meta=with_model.meta))
    with pytest.raises(ValueError, match="noise='meta' needs what EstimateNoise"):
        RandScannerNoise(1.0, "meta")(two)


def test_a_joined_image_does_not_take_the_model_of_its_first_item() -> None:
    data = {"a": CLEAN + torch.randn(CLEAN.shape), "b": CLEAN + 9 * torch.randn(CLEAN.shape)}
    pipeline = Compose([EstimateNoised(["a", "b"]), ConcatItemsd(["a", "b"], "i"), RandScannerNoised("i", 1.0, "meta")])
    with pytest.raises(RuntimeError) as caught:
        pipeline(data)
    assert "for 1 channel(s), but the image has 2" in str(caught.value.__cause__)


def test_a_seed_repeats_the_noise_and_each_image_has_its_own() -> None:
    transform = RandScannerNoised(["a", "b"], 0.5, sigma=5.0, strength=(0.5, 2.0))

    def run(seed: int) -> list[Any]:
        transform.set_random_state(seed=seed)
        results = [transform({"a": FLAT, "b": FLAT}) for _ in range(12)]
        return [one[key].as_tensor() for one in results for key in ("a", "b")]

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    noisy = [x for x in first if not torch.equal(x, FLAT)]
    assert 2 < len(noisy) < 24
    assert len({float(x.sum()) for x in noisy}) == len(noisy)
    assert len({round(float(x.std()), 1) for x in noisy}) > 1
    assert not torch.equal(*RandScannerNoise(1.0, sigma=5.0).set_random_state(0)(torch.cat([FLAT, FLAT])).as_tensor())


def test_workers_draw_noise_of_their_own() -> None:
    transform = RandScannerNoised("i", 1.0, sigma=5.0).set_random_state(seed=0)
    loader = DataLoader(Dataset([{"i": FLAT}] * 4, transform), batch_size=1, num_workers=2)
    assert len({float(batch["i"].sum()) for batch in loader}) == 4


def test_a_bundle_makes_it_from_json() -> None:
    model = NoiseModel(kind="rician", sigma=3.0, correlation=[[[0.3, 1.0, 0.3]]])
    config = {"_target_": "monai_transforms.RandScannerNoised", "keys": "i", "noise": json.loads(model.to_json())}
    made = ConfigParser({"t": json.loads(json.dumps(config))}).get_parsed_content("t")
    assert made.converter.model == dataclasses.replace(model)


def test_integers_are_rounded_and_metadata_stay() -> None:
    given = image(24, 22)
    transform = RandScannerNoise(1.0, sigma=2.0).set_random_state(seed=0)
    result = transform(given)
    assert torch.equal(result.affine, given.affine)
    whole = transform(torch.full((1, 24, 22), 100, dtype=torch.int16))
    assert whole.dtype == torch.int16
    assert float(whole.float().std()) == pytest.approx(2, rel=0.2)


def test_it_can_be_removed_again() -> None:
    noisy = RandScannerNoised("i", 1.0, "rician", sigma=10.0).set_random_state(seed=0)({"i": CLEAN})
    denoised = NonLocalMeansd("i", 10.0, noise="rician", method="wiener")(noisy)["i"]
    assert (denoised - CLEAN).std() < 0.5 * (noisy["i"] - CLEAN).std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": "laplace"}, "kind='laplace' is not known; choose one of 'gaussian', 'rician', 'chi', 'poisson'"),
        ({"sigma": -1.0}, r"sigma=-1\.0 must not be negative"),
        ({"strength": 1.0}, "strength=1.0 must be two numbers"),
        ({"strength": (2.0, 1.0)}, "must be the smallest and the largest, in this order"),
        ({"correlation": "blur"}, "correlation='blur' is not known; choose one of 'zero-filled', 'apodised', 'ct'"),
        ({"varying": 1.0}, r"varying=1\.0 must be from 0 to less than 1"),
        ({"noise": "poisson", "varying": 0.5}, r"varying=0\.5 does not fit noise='poisson'"),
        ({"noise": "curve", "curve": "0:1,9:2", "varying": 0.5}, r"varying=0\.5 does not fit noise='curve'"),
        ({"noise": "curve"}, "curve is missing"),
        ({"curve": "0:1,9:2"}, "curve belongs to kind='curve', not to kind='gaussian'"),
        ({"noise": {"kind": "rician", "level": 3}}, "level: not part of a noise model"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandScannerNoise(1.0, **arguments)


def test_a_model_without_a_level_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"sigma=None, and the noise model, rician noise.*, has none; give sigma, or a"
    ):
        RandScannerNoise(1.0, "rician")(FLAT)
    with pytest.raises(ValueError, match="noise='rician' is for magnitudes, but the image has values down to -1"):
        RandScannerNoise(1.0, "rician", sigma=1.0)(FLAT - 201)
