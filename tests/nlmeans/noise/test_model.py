"""The noise model: checked, printable, and stored as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import NoiseModel
from nlmeans.noise.drawn.noisy import with_noise
from nlmeans.noise.model import correlations_in_words

LAGS = [[[0.1, 0.3, 0.1], [0.5, 1.0, 0.5], [0.1, 0.3, 0.1]]]


@pytest.mark.parametrize(
    "model",
    [
        NoiseModel(),
        NoiseModel(kind="rician", sigma=4, evidence=("it is dark",)),
        NoiseModel(kind="poisson", sigma=3, gain=2.5, offset=100),
        NoiseModel(kind="chi", sigma=4, coils=2.5),
        NoiseModel(kind="curve", curve=np.array([[0, 3], [500, 8]])),
        NoiseModel(sigma=1.5, correlation=LAGS),
        NoiseModel(sigma=1.5, correlation=np.array(LAGS)),
    ],
)
def test_goes_to_json_and_back(model: NoiseModel) -> None:
    assert NoiseModel.from_json(model.to_json()) == model
    assert NoiseModel.from_dict(json.loads(json.dumps(model.to_dict()))) == model
    assert hash(model) == hash(NoiseModel.from_json(model.to_json()))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "pink"}, ValueError, "kind='pink' is not known"),
        ({"sigma": -1}, ValueError, "sigma=-1 must not be negative"),
        ({"coils": 0.5}, ValueError, "coils=0.5 must be a number from 1 to 64"),
        ({"gain": 0}, ValueError, "gain=0 must be greater than 0"),
        ({"kind": "curve", "curve": [(0, 3)]}, ValueError, "give 2 to 500 pairs of intensity and sigma"),
        ({"kind": "curve", "curve": "0:3,500:8", "sigma": 3.0}, ValueError, "whose level is the curve; leave it out"),
        ({"curve": "0:3,500:8"}, ValueError, "curve belongs to kind='curve', not to kind='gaussian'"),
        (
            {"kind": "curve", "curve": "0:3,500:8", "variation": [[[1.0]]]},
            ValueError,
            "a kind other than 'poisson' and 'curve', whose strength follows from the intensity",
        ),
        ({"correlation": "white"}, TypeError, "must be an array with three axes"),
        ({"correlation": [1.0]}, ValueError, r"correlation has shape \(1,\); give an odd number of lags"),
        ({"correlation": [[[0.5, 1.0]]]}, ValueError, "odd number of lags"),
        ({"correlation": [[[0.5, 0.9, 0.5]]]}, ValueError, "1 in the middle"),
        ({"correlation": [[[2.0, 1.0, 2.0]]]}, ValueError, "between -1 and 1"),
        ({"correlation": [[[0.2, 1.0, 0.5]]]}, ValueError, "symmetric"),
        ({"correlation": [[[float("nan"), 1.0, 0.5]]]}, ValueError, "1 in the middle"),
    ],
)
def test_refused_with_the_argument_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NoiseModel(**arguments)


def test_unknown_names_in_json_are_refused() -> None:
    with pytest.raises(ValueError, match="color: not part of a noise model, which has kind, sigma"):
        NoiseModel.from_json('{"color": "pink"}')


def test_is_described_in_words() -> None:
    assert str(NoiseModel(sigma=2)) == "gaussian noise, sigma 2"
    assert str(NoiseModel(kind="poisson", gain=2, sigma=3)) == "poisson noise, gain 2, offset 0, read noise 3"
    curve = NoiseModel(kind="curve", curve="10:3.1,100:8.2,900:5")
    assert str(curve) == "signal-dependent noise, sigma 3.1 to 8.2 over intensities 10 to 900"
    assert correlations_in_words(NoiseModel(correlation=LAGS).correlation) == (
        "0.30, 0.50 with the next voxel along each of 2 axes"
    )


CURVE = NoiseModel(kind="curve", curve=[(100, 3), (600, 28)])
COUNTS = NoiseModel(kind="poisson", gain=2.0, offset=10.0, sigma=3.0)


@pytest.mark.parametrize("model", [CURVE, COUNTS], ids=str)
def test_noise_that_follows_the_intensity_is_stabilised_and_restored(model: NoiseModel) -> None:
    assert model.follows_intensity
    generator = torch.Generator().manual_seed(0)
    for signal in (200.0, 400.0):
        clean = torch.full((400, 500), signal, dtype=torch.float64)
        noisy = with_noise(clean, model, generator)
        sigma = float(model.sigma_at(clean[:1, :1]))
        assert float(noisy.std()) == pytest.approx(sigma, rel=0.01)
        stabilised = model.stabilise(noisy)
        assert float(stabilised.std()) == pytest.approx(1, abs=0.02)
        assert float(model.restore(stabilised.mean()[None])[0]) == pytest.approx(signal, abs=0.01 * sigma)


@pytest.mark.parametrize("model", [CURVE, COUNTS], ids=str)
def test_so_many_times_the_noise_is_so_many_times_as_strong_everywhere(model: NoiseModel) -> None:
    intensity = torch.linspace(10, 700, 30)
    torch.testing.assert_close(model.times(2.0).sigma_at(intensity), 2 * model.sigma_at(intensity))


def test_noise_of_one_level_stays_as_it_is() -> None:
    image = torch.linspace(0, 9, 10)
    model = NoiseModel(kind="rician", sigma=3.0)
    assert not model.follows_intensity
    assert model.stabilise(image) is model.restore(image) is image
    assert model.sigma_at(image).tolist() == [3.0] * 10
    assert model.times(2.0).sigma == 6
    with pytest.raises(ValueError, match="gaussian noise, which does not say how strong the noise is; give sigma"):
        NoiseModel().sigma_at(image)


def test_a_curve_that_is_left_open_is_missed_where_it_is_needed() -> None:
    for use in (NoiseModel.stabilise, NoiseModel.restore, NoiseModel.sigma_at):
        with pytest.raises(ValueError, match="curve is missing: the noise model has none; give one, or find it"):
            use(NoiseModel(kind="curve"), torch.zeros(3))
