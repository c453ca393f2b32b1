"""What the removed noise says about a result, in words."""

from __future__ import annotations

import numpy as np

from napari_nlm.volume_view import LayerArray

GREY_STEP = 1.0
"""Distance between two grey values of an integer image."""

FEELABLE = 0.35
"""Sigma in grey steps below which rounding, 0.29 of a step, hides the noise."""

MUCH, LITTLE = 1.25, 0.6
"""Deviation of what was removed, in units of sigma, above which structure must be among it, and below which noise must
be left."""

SHARED = 0.25
"""Correlation of neighbours in what was removed, beyond that of the noise itself, above which it has structure."""


def verdict(removed: LayerArray, sigma: float, whole: bool, correlated: bool) -> str:
    """Judge a slice by what was removed from it.

    Args:
        removed: image minus result where the image is bright, (N,), or a slice of it.
        sigma: of the noise, in image units; 0 if it is not one number.
        whole: whether the image holds whole numbers.
        correlated: whether the noise of neighbours is correlated, so that correlation says nothing.

    Returns:
        A few words, or none where nothing can be said.

    >>> noise = 5 * np.random.default_rng(0).standard_normal((64, 64))
    >>> verdict(noise, 5.0, False, False), verdict(noise / 2, 5.0, False, False)
    ('looks like noise alone', 'noise left: raise the strength')
    """
    if whole and 0 < sigma < FEELABLE * GREY_STEP:
        return "noise weaker than a grey step: nothing to do"
    if not sigma or not removed.size:
        return ""
    deviation = float(removed.std()) / sigma
    if deviation > MUCH or (not correlated and deviation > LITTLE and neighbours_alike(removed) > SHARED):
        return "structure removed: lower the strength"
    if deviation < LITTLE:
        return "noise left: raise the strength"
    return "looks like noise alone"


def neighbours_alike(removed: LayerArray) -> float:
    """The largest correlation of neighbouring pixels along the axes of an array; 0 for a vector."""
    found = [0.0]
    for axis in range(removed.ndim if removed.ndim > 1 else 0):
        if removed.shape[axis] > 1:
            first = np.take(removed, range(removed.shape[axis] - 1), axis).ravel().astype(np.float64)
            second = np.take(removed, range(1, removed.shape[axis]), axis).ravel().astype(np.float64)
            size = float(np.sqrt((first @ first) * (second @ second)))
            found.append(float(first @ second) / size if size else 0.0)
    return max(found)
