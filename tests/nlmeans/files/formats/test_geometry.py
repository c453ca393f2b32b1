"""Geometry goes from LPS to RAS and back without loss."""

from __future__ import annotations

import numpy as np
import pytest

from nlmeans.files.formats.geometry import affine_of, spacing_direction_origin, storable


def test_lps_to_ras_and_back() -> None:
    direction = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    affine = affine_of([1, 2, 3], direction, [4, 5, 6])
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-4, -5, 6, 1])
    for found, given in zip(spacing_direction_origin(affine), ([1, 2, 3], direction, [4, 5, 6]), strict=True):
        np.testing.assert_allclose(found, given, atol=1e-12)


def test_values_keep_their_type_or_get_one_that_holds_them() -> None:
    assert storable(np.ones(3, "u2"), ("uint8", "uint16", "float32"), "x").dtype == "u2"
    assert storable(np.ones(3, "i1"), ("uint8", "int16", "float32"), "x").dtype == "i2"
    with pytest.raises(TypeError, match="complex"):
        storable(np.ones(3, "c8"), ("uint8", "float32"), "x")
