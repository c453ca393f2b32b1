"""The operator: every backend compared with the float64 reference, for all requests that it serves."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernel is defined

from nlmeans import nonlocal_means
from tests.nlmeans import reference
from tests.properties.strategies import Evaluation, evaluations

EXACT = [("cpu", np.float32), ("loop", np.float32), ("full", np.float32), ("loop", np.float64), ("full", np.float64)]
TOLERANCE: dict[Any, float] = {np.float32: 1e-5, np.float64: 1e-12}


def error(of: Evaluation, backend: str, dtype: Any) -> float:
    """The largest error at the voxels that are compared, relative to the largest value of the image."""
    keywords = of.keywords(dtype)
    result = nonlocal_means(of.image.astype(dtype), **keywords, backend=backend)
    assert result.dtype == dtype
    arguments = {k: v for k, v in of.arguments.items() if k not in ("samples", "seed")}
    expected = reference.nonlocal_means(of.image, **arguments, factors=of.factors, voxels=of.voxels)
    z, y, x = np.array(of.voxels).T
    difference = np.abs(of.at_voxels(result) - expected[:, z, y, x].T)
    return float(difference.max() / (np.abs(of.image).max() or 1.0))


@pytest.mark.parametrize(("backend", "dtype"), EXACT)
@given(data=st.data())
def test_agrees_with_the_reference(backend: str, dtype: Any, data: Any) -> None:
    assert error(data.draw(evaluations(backend)), backend, dtype) < TOLERANCE[dtype]


@settings(max_examples=max(3, settings.default.max_examples // 10))  # an interpreter takes a second for each
@given(of=evaluations("gpu", voxels=30, window=9, looked_at=5))
def test_the_kernel_for_gpus_agrees_with_the_reference(of: Evaluation) -> None:
    pytest.importorskip("triton")
    assert error(of, "gpu", np.float32) < TOLERANCE[np.float32]


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(of=evaluations("windowed", voxels=120, window=75), blend=st.sampled_from(["smooth", "plain"]))
def test_windowed_agrees_with_its_reference(dtype: Any, of: Evaluation, blend: str) -> None:
    result = nonlocal_means(of.image.astype(dtype), **of.keywords(dtype), blend=blend, backend="windowed")
    expected = reference.windowed(of.image, **of.arguments, blend=blend)
    # squares are expanded, so rounding grows with (range of the window / h)²
    spread = max(np.ptp(of.image), np.ptp(of.arguments.get("guide", of.image)))
    scale = sum(of.arguments.get("guide_scale", (1.0,)))
    amplified = max(1.0, scale * (spread / np.min(of.arguments["h"])) ** 2)
    assert np.abs(result - expected).max() < TOLERANCE[dtype] * amplified * (np.abs(of.image).max() or 1.0)
