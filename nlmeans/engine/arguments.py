"""The keyword arguments of denoising, listed once for every function and class that takes them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar

import numpy.typing as npt
import torch

from nlmeans.core.checks import Radius
from nlmeans.noise.model import NoiseModel

CallableT = TypeVar("CallableT", bound=Callable[..., Any])


class CommonArguments(TypedDict, total=False):
    """Arguments of everything that denoises. `nlmeans.denoise` explains each of them."""

    method: str
    noise: str | NoiseModel
    gain: float | Literal["auto"]
    offset: float
    coils: float | None
    curve: npt.ArrayLike | None
    correlation: npt.ArrayLike | Literal["auto"] | None
    variation: npt.ArrayLike | Literal["auto"] | None
    modality: str | None
    h: float | None
    patch_radius: Radius | None
    search_radius: Radius | None
    despeckle: bool
    seed: int
    backend: str
    device: str | torch.device | None
    memory: int | str | None
    dtype: npt.DTypeLike | torch.dtype | None


class FilterArguments(CommonArguments, total=False):
    """Arguments that say how to denoise, without those that describe axes."""

    strength: float


class Arguments(FilterArguments, total=False):
    """All keyword arguments of `nlmeans.denoise` that become `Settings`."""

    spacing: Sequence[float] | None
    channels: int | None
    series: int | None


ARGUMENT_DEFAULTS: dict[str, Any] = {
    "method": "auto",
    "noise": "auto",
    "gain": 1.0,
    "offset": 0.0,
    "correlation": "auto",
    "variation": "auto",
    "strength": 1.0,
    "despeckle": False,
    "seed": 0,
    "backend": "auto",
}
"""Default values other than ``None``."""


def spelled_out(
    *listed: type[Any], defaults: Mapping[str, Any] = ARGUMENT_DEFAULTS
) -> Callable[[CallableT], CallableT]:
    """Show the keywords of ``**arguments: Unpack[...]`` one by one, with their defaults, in ``help()`` and the docs.

    Args:
        listed: the typed dictionaries whose keys the function accepts.
        defaults: default values; ``None`` for keywords that are not in it.

    Example:
        >>> @spelled_out(FilterArguments)
        ... def sharpen(image, **arguments): ...
        >>> list(inspect.signature(sharpen).parameters)[:3]
        ['image', 'method', 'noise']
    """
    keywords = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(name),
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
        for one in listed
        for name, annotation in one.__annotations__.items()
    ]

    def decorate(function: CallableT) -> CallableT:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        before = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        after = [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        taken = {p.name for p in own}
        added = [keyword for keyword in keywords if keyword.name not in taken]
        function.__signature__ = signature.replace(parameters=[*before, *added, *after])  # type: ignore[attr-defined]
        return function

    return decorate


def check_names(given: Collection[str], known: Collection[str]) -> None:
    """Raise ``TypeError`` for a keyword that does not exist, naming the most similar one.

    >>> check_names(["methd"], ["method", "noise"])
    Traceback (most recent call last):
    TypeError: there is no argument 'methd'; did you mean 'method'?
    """
    for name in given:
        if name not in known:
            similar = difflib.get_close_matches(name, known, 1)
            remedy = f"did you mean {similar[0]!r}?" if similar else f"the arguments are {', '.join(known)}"
            raise TypeError(f"there is no argument {name!r}; {remedy}")
