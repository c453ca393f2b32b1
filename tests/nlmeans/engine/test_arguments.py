"""The list of keyword arguments: the signatures that show it, and the names that it refuses."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nlmeans
from nlmeans import Settings
from nlmeans.engine.arguments import ARGUMENT_DEFAULTS, Arguments, FilterArguments, check_names, spelled_out

FIELDS = {field.name: field.default for field in dataclasses.fields(Settings)}
FUNCTIONS: list[Callable[..., Any]] = [nlmeans.denoise, nlmeans.preview, nlmeans.usual_h]


def test_the_arguments_are_the_settings_without_sigma() -> None:
    assert list(Arguments.__annotations__) != []
    assert set(Arguments.__annotations__) == set(FIELDS) - {"sigma"}
    assert set(FilterArguments.__annotations__) == set(Arguments.__annotations__) - {"spacing", "channels", "series"}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_signature_shows_every_setting_with_its_default(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    for name, default in FIELDS.items():
        assert parameters[name].default == default
        if name != "sigma":
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    assert parameters["method"].annotation == "str"


def test_the_signature_of_denoise_accepts_what_denoise_accepts() -> None:
    bound = inspect.signature(nlmeans.denoise).bind(np.zeros((4, 4)), 3.0, mask=None, method="dct", seed=2)
    assert bound.arguments["method"] == "dct"
    with pytest.raises(TypeError):
        inspect.signature(nlmeans.denoise).bind(np.zeros((4, 4)), 3.0, "dct")


def test_defaults_are_those_of_the_settings() -> None:
    assert {name: FIELDS[name] for name in ARGUMENT_DEFAULTS} == ARGUMENT_DEFAULTS
    assert all(FIELDS[name] is None for name in set(Arguments.__annotations__) - set(ARGUMENT_DEFAULTS))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_an_unknown_keyword_is_refused_with_the_most_similar_one(function: Callable[..., Any]) -> None:
    arguments = (np.zeros((4, 5, 6)), *([0] if function is nlmeans.preview else []))
    with pytest.raises(TypeError, match="there is no argument 'serach_radius'; did you mean 'search_radius'"):
        function(*arguments, sigma=1.0, serach_radius=2)
    with pytest.raises(TypeError, match=r"there is no argument 'zzz'; the arguments are method, noise, gain, .*series"):
        function(*arguments, sigma=1.0, zzz=2)


def test_a_wrong_name_is_refused_before_a_wrong_value() -> None:
    with pytest.raises(TypeError, match="did you mean 'method'"):
        nlmeans.denoise(np.zeros((4, 5)), methods="dct", h=-1)


def test_keywords_of_the_function_itself_stay_and_come_first_or_last() -> None:
    @spelled_out(FilterArguments, defaults={"method": "dct", "seed": 3})
    def sharpen(image: Any, *, seed: int = 7, out: Any = None, **arguments: Any) -> None: ...

    parameters = inspect.signature(sharpen).parameters
    names = list(parameters)
    assert names[:2] == ["image", "method"]
    assert names[-2:] == ["seed", "out"]
    assert parameters["seed"].default == 7
    assert parameters["method"].default == "dct"
    assert parameters["h"].default is None
    assert sorted(names) == sorted({"image", "out", *FilterArguments.__annotations__})


def test_known_names_pass() -> None:
    check_names(["method", "noise"], Arguments.__annotations__)
    check_names([], [])
