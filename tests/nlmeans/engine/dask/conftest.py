"""What tests of dask arrays share: volumes, a quick method, and one thread unless a test is about others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

from tests.nlmeans.volumes import gaussian, piecewise

SIGMA = 10.0

QUICK: dict[str, Any] = {"method": "classic", "search_radius": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def volume(*shape: int, dtype: str = "float32") -> Any:
    return np.clip(gaussian(piecewise(*shape), SIGMA), 0, None).astype(dtype)


def assert_same(result: da.Array, expected: Any) -> None:
    assert isinstance(result, da.Array)
    assert result.dtype == expected.dtype
    values = result.compute()
    assert values.dtype == expected.dtype
    atol = 1.0 if expected.dtype.kind in "iu" else 1.5e-6 * np.ptp(expected)
    np.testing.assert_allclose(values, expected, rtol=0, atol=atol)
    assert np.mean(values != expected) < 0.02 or expected.dtype.kind == "f"
