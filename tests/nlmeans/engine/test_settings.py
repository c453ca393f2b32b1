"""Settings are frozen, checked, and the same after a way through JSON."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import numpy as np
import pytest

from nlmeans import Settings, denoise

ALL: dict[str, Any] = {
    "sigma": (20.0, 30.0),
    "method": "classic",
    "noise": "poisson",
    "gain": 2.0,
    "offset": 100.0,
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
}


@pytest.mark.parametrize("settings", [Settings(), Settings(**ALL), Settings(sigma=3)])
def test_json_brings_back_the_same(settings: Settings) -> None:
    assert Settings.from_json(settings.to_json()) == settings
    assert Settings.from_dict(json.loads(settings.to_json())) == settings


def test_every_setting_is_tried_here() -> None:
    assert set(ALL) == {field.name for field in dataclasses.fields(Settings)}


def test_denoise_takes_every_setting_by_the_same_name_and_default() -> None:
    parameters = inspect.signature(denoise).parameters
    for field in dataclasses.fields(Settings):
        assert parameters[field.name].default == field.default


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
        ({"memory": 1.5e9}, {"memory": 1_500_000_000}),
        ({"memory": np.int64(2**30)}, {"memory": 2**30}),
        ({"channels": np.int64(-1)}, {"channels": -1}),
        ({"series": np.uint8(3)}, {"series": 3}),
    ],
)
def test_values_become_plain(given: dict[str, Any], kept: dict[str, Any]) -> None:
    settings = Settings(**given)
    assert settings == Settings(**kept)
    (name,) = kept
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
        ({"h": 0.0}, ValueError, "h=0.0 must be greater than 0"),
        ({"h": float("inf")}, ValueError, "h=inf must be finite"),
        ({"patch_radius": "1"}, TypeError, "patch_radius='1' must be a whole number"),
        ({"search_radius": 2.5}, ValueError, "search_radius=2.5 must be whole: .*never 6"),
        ({"search_radius": (1, -1, 1)}, ValueError, "search_radius=-1 must not be negative"),
        ({"spacing": (1.0, -1.0)}, ValueError, "spacing=-1.0 must be greater than 0"),
        ({"spacing": 2.0}, TypeError, "spacing=2.0 must have one number per spatial axis"),
        ({"device": "tpu9"}, ValueError, "device='tpu9' is not here or not known"),
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
        ('{"sigma": 1, "h": 2, "sigma": 3}', "'sigma' stands there twice"),
        ('{"sigma": NaN}', "sigma=nan must be finite"),
        ('{"sigma": %s}' % ("9" * 400), "sigma is a number of 400 digits, which is too large"),
        ('{"sigma": %s}' % ("9" * 5000), "settings cannot be read as JSON: Exceeds the limit"),
        ('{"seed": %s}' % ("9" * 400), "seed is a number of 400 digits"),
        ('{"search_radius": %s}' % ("9" * 400), "search_radius is a number of 400 digits"),
        ('{"memory": "%sGB"}' % ("9" * 400), "memory is a number of 409 digits"),
        ('{"sigma": {"a": 1}}', "sigma=.* must be a number"),
        ('{"device": []}', "device=.* is not here or not known to torch"),
        ('{"channels": "x"}', "channels='x' must be the number of an axis"),
        ('{"series": true}', "series=True must be the number of an axis"),
        ('{"spacing": [[1], [1, 2]]}', "spacing=.* must be a number"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_json_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Settings.from_json(text)
