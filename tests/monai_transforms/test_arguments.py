"""Tests of the argument list that the four non-local means transforms share."""

from __future__ import annotations

import inspect
import pydoc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

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
    other = {"method": "classic"} if "prob" in FIRST[transform] else {}  # what an augmentation can afford
    for name in (*CommonArguments.__annotations__, "sigma", "spacing"):
        assert parameters(transform)[name].default == other.get(name, engine[name].default)
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


@every
@pytest.mark.parametrize("dtype", [torch.float32, np.float32, np.dtype("f4"), "float32"], ids=str)
def test_a_dtype_may_be_that_of_numpy_or_torch(transform: Any, dtype: Any) -> None:
    image = torch.full((1, 12, 12), 7, dtype=torch.int16)
    result = made(
        transform, dtype=dtype, sigma=2.0, method="classic", **({"prob": 1.0} if "prob" in FIRST[transform] else {})
    )
    data = {"image": image} if "keys" in FIRST[transform] else image
    found = result(data)
    assert (found["image"] if isinstance(found, dict) else found).dtype == torch.float32
    with pytest.raises(ValueError, match="dtype='int16' is not known; choose one of 'float16', 'float32'"):
        made(transform, dtype=torch.int16)


@pytest.mark.parametrize("transform", [RandNonLocalMeans, RandNonLocalMeansd])
@pytest.mark.parametrize("strength", [1.0, (1.0,), (0.5, 1.0, 1.5)])
def test_one_strength_is_told_how_to_become_two(transform: Any, strength: Any) -> None:
    with pytest.raises(ValueError, match=r"must be two numbers, .* such as \(0.5, 1.5\); give the same number twice"):
        made(transform, strength=strength)


def test_a_channel_first_file_is_told_how_to_keep_its_channels(tmp_path: Path) -> None:
    colours = (100 + 5 * np.random.default_rng(0).standard_normal((3, 24, 24))).astype("f4")
    np.save(tmp_path / "rgb.npy", colours)
    data, denoise = {"image": tmp_path / "rgb.npy"}, NonLocalMeansd("image", sigma=5.0, method="classic")
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadImaged("image"), denoise])(data)
    assert "with channel_dim=0 if the 3 along its first axis are channels" in str(caught.value.__cause__)
    kept = Compose([LoadImaged("image"), EnsureChannelFirstd("image", channel_dim=0), denoise])(data)["image"]
    expected = np.stack([nlmeans.denoise(colour, 5.0, method="classic") for colour in colours])
    np.testing.assert_allclose(kept.numpy(), expected, atol=1e-4)


def test_a_method_for_series_is_refused_in_the_words_of_the_transform() -> None:
    with pytest.raises(ValueError, match=r"method='series' is for 4 channels or more.* has 2; use another method"):
        NonLocalMeans(method="series")(torch.rand(2, 12, 12, 12))


def test_a_batch_is_told_of_the_module_for_batches() -> None:
    with pytest.raises(ValueError, match=r"in a network, nlmeans\.nn.NonLocalMeansFilter takes batches"):
        NonLocalMeans()(torch.rand(2, 1, 8, 8, 8))
