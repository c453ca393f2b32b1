"""Padding by reflection compared with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans.core.padding import reflect


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 6), (1, 1, 1), (2, 3, 2), (2, 4, 5, 6)])
@pytest.mark.parametrize("margin", [(0, 0, 0), (1, 2, 0), (3, 4, 5), (9, 0, 7)])
def test_reflects_as_numpy_does_however_short_the_axis(
    shape: tuple[int, ...], margin: tuple[int, int, int], rng: np.random.Generator
) -> None:
    volume = rng.random(shape)
    widths = [(0, 0)] * (len(shape) - 3) + [(m, m) for m in margin]
    np.testing.assert_array_equal(reflect(torch.from_numpy(volume), margin), np.pad(volume, widths, mode="reflect"))


def test_gradients_come_back_from_the_margin() -> None:
    volume = torch.zeros(1, 1, 3, requires_grad=True)
    reflect(volume, (0, 0, 2)).sum().backward()  # type: ignore[no-untyped-call]
    assert volume.grad is not None
    assert volume.grad.tolist() == [[[2.0, 3.0, 2.0]]]  # c b | a b c | b a
