"""Settings are frozen, checked, and come back from JSON unchanged."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import Settings
from nlmeans.engine.settings import device_or_gpu, settings_from

ALL: dict[str, Any] = {
    "sigma": (20.0, 30.0),
    "method": "classic",
    "noise": "poisson",
    "gain": 2.0,
    "offset": 100.0,
    "strength": 0.5,
    "h": 12.5,
    "patch_radius": (0, 1, 1),
    "search_radius": 4,
    "spacing": (5.0, 0.8, 0.8),
    "channels": -1,
    "series": 0,
    "despeckle": True,
    "seed": 7,
    "backend": "loop",
    "device": "cpu",
    "memory": 2**30,
    "dtype": "float32",
    "correlation": (((0.5, 1.0, 0.5),),),
    "variation": None,
    "coils": None,
    "curve": None,
    "modality": "MR",
}


CURVE = [(0, 3), (500, 8)]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(**ALL),
        Settings(sigma=3, variation=[[[0.5, 1]]]),  # type: ignore[arg-type]
        Settings(noise="curve", curve=CURVE),  # type: ignore[arg-type]
    ],
)
def test_json_brings_back_the_same(settings: Settings) -> None:
    assert Settings.from_json(settings.to_json()) == settings
    assert Settings.from_dict(json.loads(settings.to_json())) == settings


def test_every_setting_is_tried_here() -> None:
    assert set(ALL) == {field.name for field in dataclasses.fields(Settings)}


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().sigma = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"sigma": 20}, {"sigma": 20.0}),
        ({"sigma": [1, np.float32(2)]}, {"sigma": (1.0, 2.0)}),
        ({"search_radius": np.int64(3)}, {"search_radius": 3}),
        ({"search_radius": 3.0}, {"search_radius": 3}),
        ({"patch_radius": [0, 1, 1]}, {"patch_radius": (0, 1, 1)}),
        ({"spacing": np.array([1, 2, 3])}, {"spacing": (1.0, 2.0, 3.0)}),
        ({"memory": "1GiB"}, {"memory": 2**30}),
        ({"noise": "curve", "curve": "0:3,500:8"}, {"noise": "curve", "curve": ((0.0, 3.0), (500.0, 8.0))}),
        ({"memory": 1.5e9}, {"memory": 1_500_000_000}),
        ({"memory": np.int64(2**30)}, {"memory": 2**30}),
        ({"channels": np.int64(-1)}, {"channels": -1}),
        ({"series": np.uint8(3)}, {"series": 3}),
    ],
)
def test_values_become_plain(given: dict[str, Any], kept: dict[str, Any]) -> None:
    settings = Settings(**given)
    assert settings == Settings(**kept)
    *_, name = kept
    assert type(getattr(settings, name)) is type(kept[name])
    json.loads(settings.to_json())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "method='magic' is not known; choose one of 'auto'"),
        ({"noise": None}, ValueError, "noise=None is not known"),
        ({"backend": "cuda"}, ValueError, "backend='cuda' is not known"),
        ({"sigma": -1}, ValueError, "sigma=-1 must not be negative"),
        ({"sigma": (1.0, -2.0)}, ValueError, "sigma=-2.0 must not be negative"),
        ({"sigma": "20"}, TypeError, "sigma='20' must be a number"),
        ({"sigma": 10**400}, ValueError, "sigma is a number of 401 digits, which is too large"),
        ({"series": 1.0}, TypeError, "series=1.0 must be the number of an axis"),
        ({"channels": True}, TypeError, "channels=True must be the number of an axis"),
        ({"strength": 0}, ValueError, "strength=0 must be from 0.01 to 100; 1 is the method's own, 0.5 keeps more"),
        ({"strength": 1e9}, ValueError, "strength=1000000000.0 must be from 0.01 to 100; .* 2 removes more"),
        ({"strength": "strong"}, TypeError, "strength='strong' must be a number"),
        ({"h": 0.0}, ValueError, "h=0.0 must be greater than 0"),
        ({"h": float("inf")}, ValueError, "h=inf must be finite"),
        ({"patch_radius": "1"}, TypeError, "patch_radius='1' must be a whole number"),
        ({"search_radius": 2.5}, ValueError, "search_radius=2.5 must be whole: .*never 6"),
        ({"search_radius": (1, -1, 1)}, ValueError, "search_radius=-1 must not be negative"),
        ({"spacing": (1.0, -1.0)}, ValueError, "spacing=-1.0 must be greater than 0"),
        ({"spacing": 2.0}, TypeError, "spacing=2.0 must have one number per spatial axis"),
        ({"device": "tpu9"}, ValueError, "device='tpu9' is not available or not known"),
        ({"memory": 5}, ValueError, "memory=5 bytes is too little"),
        ({"memory": "much"}, ValueError, "memory='much' is not an amount"),
        ({"dtype": "int8"}, ValueError, "dtype='int8' is not known; choose one of 'float16'"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Settings(**given)


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ValueError, match="colour, zeal: no such setting; the settings are sigma, method"):
        Settings.from_dict({"zeal": 1, "colour": 2, "sigma": 3})


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"sigma"'])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(TypeError, match="settings must be a JSON object, not"):
        Settings.from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "settings cannot be read as JSON: Expecting value"),
        ("[" * 10**5, "settings cannot be read as JSON: maximum recursion depth"),
        ('{"x":' * 10**5, "settings cannot be read as JSON: maximum recursion depth"),
        ("[1]", "settings must be a JSON object, not '\\[1\\]'"),
        ('{"sigma": 1, "h": 2, "sigma": 3}', "'sigma' is given twice"),
        ('{"sigma": NaN}', "sigma=nan must be finite"),
        ('{"sigma": %s}' % ("9" * 400), "sigma is a number of 400 digits, which is too large"),
        ('{"sigma": %s}' % ("9" * 5000), "settings cannot be read as JSON: Exceeds the limit"),
        ('{"seed": %s}' % ("9" * 400), "seed is a number of 400 digits"),
        ('{"search_radius": %s}' % ("9" * 400), "search_radius is a number of 400 digits"),
        ('{"memory": "%sGB"}' % ("9" * 400), "memory is a number of 409 digits"),
        ('{"sigma": {"a": 1}}', "sigma=.* must be a number"),
        ('{"device": []}', "device=.* is not available or not known to torch"),
        ('{"channels": "x"}', "channels='x' must be the number of an axis"),
        ('{"series": true}', "series=True must be the number of an axis"),
        ('{"spacing": [[1], [1, 2]]}', "spacing=.* must be a number"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_json_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Settings.from_json(text)


@pytest.mark.parametrize("sigma", [3, np.float32(3), np.array(3.0), torch.tensor(3.0)])
def test_one_number_for_sigma_may_have_any_type(sigma: Any) -> None:
    assert settings_from(sigma, {}) == (Settings(sigma=3.0), None)


@pytest.mark.parametrize("sigma", [(1, 2), [1.0, 2.0], np.array([1, 2]), torch.tensor([1.0, 2.0])])
def test_several_numbers_for_sigma_may_have_any_type(sigma: Any) -> None:
    assert settings_from(sigma, {}) == (Settings(sigma=(1.0, 2.0)), None)


def test_an_array_for_sigma_is_a_map() -> None:
    for sigma in (np.ones((4, 5)), torch.ones(3, 4, 5)):
        settings, sigma_map = settings_from(sigma, {"h": 2.0})
        assert settings == Settings(h=2.0)
        assert sigma_map is sigma
    assert settings_from("map", {}) == (Settings(sigma="map"), None)
    assert settings_from(None, {}) == (Settings(), None)


def test_arguments_become_plain() -> None:
    settings, _ = settings_from(None, {"spacing": np.array([1, 2, 3]), "device": torch.device("cpu")})
    assert settings == Settings(spacing=(1.0, 2.0, 3.0), device="cpu")
    with pytest.raises(TypeError, match="there is no argument 'spacings'; did you mean 'spacing'"):
        settings_from(None, {"spacings": (1, 1, 1)})


def test_the_gpu_is_the_default_of_the_doors_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert device_or_gpu(None) == device
        assert device_or_gpu("cuda:3") == "cuda:3"
