"""The noise model: checked, printable, and stored as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nlmeans import NoiseModel
from nlmeans.noise.model import correlations_in_words

LAGS = [[[0.1, 0.3, 0.1], [0.5, 1.0, 0.5], [0.1, 0.3, 0.1]]]


@pytest.mark.parametrize(
    "model",
    [
        NoiseModel(),
        NoiseModel(kind="rician", sigma=4, evidence=("it is dark",)),
        NoiseModel(kind="poisson", sigma=3, gain=2.5, offset=100),
        NoiseModel(kind="chi", sigma=4, coils=2.5),
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
    assert correlations_in_words(NoiseModel(correlation=LAGS).correlation) == (
        "0.30, 0.50 with the next voxel along each of 2 axes"
    )
