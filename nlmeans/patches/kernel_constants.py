"""Constants that compiled kernels share with functions of torch, which are used where numba is not loaded.

The name of this file makes it part of `kernels.cache.SOURCES`: kernels are compiled anew after a change.
"""

from __future__ import annotations

EDGE = 4
"""Voxels along the edge of a patch of the sliding DCT."""

TINY = 1e-6
"""Lower limit of divisors in non-local Bayes, in squared sigma."""

LEAST_DETERMINANT = 1e-6
"""Lower limit of the determinant in non-local Bayes, relative to the product of the diagonal."""

ACROSS_FREEDOM = 0.7
"""Factor on the degrees of freedom that smoothing across patches saves, in Stein's estimate of what it is worth.

1 would suit a group by itself; the average with other groups smooths too.
"""
