"""What speaks against a noise model that was found in a volume."""

from __future__ import annotations

import numpy.typing as npt

from nlmeans.noise.model import NoiseModel, with_next_voxel


def doubts_about(model: NoiseModel, weakest: float | None, blocks: int | None) -> tuple[str, ...]:
    """Say what speaks against noise of one level, or against correlated noise, each with a remedy.

    Structure adds to noise and never takes from it, so that the weakest part counts.

    Args:
        model: the model found.
        weakest: standard deviation of the finest detail where it is least, in image units; None if it is not known.
        blocks: flat blocks that the correlation was read from; None if it was read elsewhere.

    >>> doubts_about(NoiseModel(sigma=10.0), 9.0, None)
    ()
    """
    sigma, doubts = model.sigma or 0.0, []
    if model.correlation is None and model.kind == "gaussian" and weakest is not None and weakest < UNEVENLY * sigma:
        doubts.append(
            f"in parts the noise is much weaker, {weakest:.3g}, than the {sigma:.3g} that was found: it varies, or "
            "structure is among it; try sigma='map', or noise='curve' if it follows the intensity, or give sigma"
        )
    smooth = largest_with_next(model.correlation)
    if smooth > AS_TEXTURE:
        doubts.append(
            f"the noise that was found is as smooth as texture: neighbours correlate by {smooth:.2f}; if it is "
            "texture, give sigma, and correlation=None"
        )
    if blocks is not None and blocks < FEWEST_CHOSEN:
        doubts.append(
            f"only {blocks} flat blocks show the noise and that it is correlated: if what was removed shows "
            "structure, give sigma, and correlation=None"
        )
    return tuple(doubts)


def largest_with_next(correlation: npt.ArrayLike | None) -> float:
    """Return the largest correlation with the next voxel along an axis; 0 for white noise."""
    return max(value or 0.0 for value in with_next_voxel(correlation))


UNEVENLY = 0.3
"""Deviation in the weakest part, relative to sigma, from which noise is hardly the same everywhere."""

AS_TEXTURE = 0.74
"""Correlation with the next voxel beyond that of usual filters, whose noise has up to 0.7."""

FEWEST_CHOSEN = 25
"""Flat blocks that are believed without a doubt. Fewer may be structure."""
