"""What the removed noise says about a result, in words."""

from __future__ import annotations

import math

import torch

from napari_nlm.volume_view import LayerArray
from nlmeans.core.metrics import Removed

GREY_STEP = 1.0
"""Distance between two grey values of an integer image."""

FEELABLE = 0.35
"""Sigma in grey steps below which rounding, 0.29 of a step, hides the noise."""

MUCH, LITTLE = 1.25, 0.6
"""Deviation of what was removed, in units of sigma, above which structure must be among it, and below which noise must
be left."""

SHARED = 0.25
"""Correlation of neighbours in what was removed, beyond that of the noise itself, above which it has structure."""


def verdict(removed: LayerArray, inside: LayerArray, sigma: float, whole: bool, correlated: bool) -> str:
    """Judge a slice by what was removed from it, as the engine measures it.

    Args:
        removed: image minus result, a slice of two or three axes.
        inside: which pixels count, of the same shape.
        sigma: of the noise, in image units; 0 if it is not one number.
        whole: whether the image holds whole numbers.
        correlated: whether the noise of neighbours is correlated, so that correlation says nothing.

    Returns:
        A few words, or none where nothing can be said.

    >>> import numpy as np
    >>> noise = 5 * np.random.default_rng(0).standard_normal((64, 64))
    >>> everywhere = np.ones_like(noise, bool)
    >>> verdict(noise, everywhere, 5.0, False, False), verdict(noise / 2, everywhere, 5.0, False, False)
    ('looks like noise alone', 'noise left: raise the strength')
    """
    if whole and 0 < sigma < FEELABLE * GREY_STEP:
        return "noise weaker than a grey step: nothing to do"
    if not sigma or not inside.any():
        return ""
    shape = (math.prod(inside.shape[:-2]), *inside.shape[-2:])
    seen = Removed()
    seen.add(torch.from_numpy(removed / sigma).reshape(1, *shape), torch.from_numpy(inside).reshape(shape))
    deviation = seen.deviation
    if deviation > MUCH or (not correlated and deviation > LITTLE and max(seen.in_common) > SHARED):
        return "structure removed: lower the strength"
    if deviation < LITTLE:
        return "noise left: raise the strength"
    return "looks like noise alone"
