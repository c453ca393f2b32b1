"""Tests of the argument list that the four non-local means transforms share."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any

import pytest

import nlmeans
from monai_transforms import NonLocalMeans, NonLocalMeansd, RandNonLocalMeans, RandNonLocalMeansd
from monai_transforms.arguments import RandomArguments, TransformArguments
from nlmeans.engine.arguments import CommonArguments

FIRST: dict[Any, tuple[str, ...]] = {
    NonLocalMeans: ("sigma",),
    NonLocalMeansd: ("keys", "sigma"),
    RandNonLocalMeans: ("prob", "strength", "sigma"),
    RandNonLocalMeansd: ("keys", "prob", "strength", "sigma"),
}
"""Each transform with its positional arguments."""

LAST: dict[Any, tuple[str, ...]] = {
    NonLocalMeansd: ("mask_key", "sigma_key", "maps", "allow_missing_keys"),
    RandNonLocalMeansd: ("mask_key", "sigma_key", "allow_missing_keys"),
}
"""Keywords of the dictionary transforms only."""

LISTED: dict[Any, type[Any]] = {
    NonLocalMeans: TransformArguments,
    NonLocalMeansd: TransformArguments,
    RandNonLocalMeans: RandomArguments,
    RandNonLocalMeansd: RandomArguments,
}
"""The keywords in between."""

every = pytest.mark.parametrize("transform", FIRST, ids=lambda transform: transform.__name__)


def parameters(transform: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(transform).parameters)


def made(transform: Any, **arguments: Any) -> Any:
    return transform(**({"keys": "image"} if "keys" in FIRST[transform] else {}), **arguments)


@every
def test_the_signature_shows_every_keyword_in_order(transform: Any) -> None:
    last = LAST.get(transform, ())
    assert list(parameters(transform)) == [*FIRST[transform], *LISTED[transform].__annotations__, *last]
    for name, parameter in parameters(transform).items():
        by_position = name in FIRST[transform]
        assert parameter.kind is (parameter.POSITIONAL_OR_KEYWORD if by_position else parameter.KEYWORD_ONLY)
        assert parameter.annotation is not parameter.empty


@every
def test_the_defaults_are_those_of_the_engine(transform: Any) -> None:
    engine = inspect.signature(nlmeans.denoise).parameters
    for name in (*CommonArguments.__annotations__, "sigma", "spacing"):
        assert parameters(transform)[name].default == engine[name].default
    assert parameters(transform)["channel_wise"].default is True


@every
def test_the_defaults_that_are_shown_are_those_that_are_used(transform: Any) -> None:
    def settings(made: Any) -> Any:
        return made.settings if isinstance(made, NonLocalMeans) else settings(made.converter)

    shown = {name: parameters(transform)[name].default for name in LISTED[transform].__annotations__}
    assert settings(made(transform)) == settings(made(transform, **shown))


@every
def test_help_lists_the_keywords(transform: Any) -> None:
    text = pydoc.plain(pydoc.render_doc(transform))
    assert "search_radius: 'Radius | None' = None" in text
    assert "channel_wise: 'bool' = True" in text
    assert "**arguments" not in text


@every
@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("metod", "did you mean 'method'"),
        ("search_radios", "did you mean 'search_radius'"),
        ("channelwise", "did you mean 'channel_wise'"),
        ("sigmas", "did you mean 'sigma'"),
        ("colour", "the arguments are .*method, noise"),
    ],
)
def test_an_unknown_keyword_is_refused_with_a_hint(transform: Any, wrong: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"there is no argument '{wrong}'; {hint}"):
        made(transform, **{wrong: 1})


@every
@pytest.mark.parametrize("axis", ["channels", "series"])
def test_the_axes_of_the_engine_are_no_arguments_here(transform: Any, axis: str) -> None:
    with pytest.raises(TypeError, match=f"there is no argument '{axis}'"):
        made(transform, **{axis: 0})


@pytest.mark.parametrize("transform", [NonLocalMeansd, RandNonLocalMeansd], ids=lambda transform: transform.__name__)
def test_the_hint_knows_the_arguments_of_the_dictionary_transform(transform: Any) -> None:
    with pytest.raises(TypeError, match="there is no argument 'maskkey'; did you mean 'mask_key'"):
        transform("image", maskkey="mask")
