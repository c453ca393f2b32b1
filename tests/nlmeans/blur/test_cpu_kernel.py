"""The functions that the CPU kernels of the local blur share."""

from __future__ import annotations

import numpy as np
import torch

from nlmeans.blur.cpu_kernel import exponential, set_mean


def test_the_exponential_is_accurate_and_ends_where_float32_sees_no_more() -> None:
    values = torch.linspace(-19.9, 0, 1001)
    result = torch.tensor([exponential(value) for value in values.numpy()])
    assert float((result / values.double().exp() - 1).abs().max()) < 1e-6
    assert exponential(values.numpy()[-1]) == 1
    assert exponential(values.numpy()[0] - 1) == 0


def test_the_mean_of_a_row_sums_what_the_blur_changed(rng: np.random.Generator) -> None:
    padded, radius = rng.random((2, 4, 7, 9), np.float32), (1, 2, 1)
    scaled, result = rng.random((2, 2, 3, 7), np.float32), rng.random((2, 2, 3, 7), np.float32)
    mean = np.full(7, np.nan, np.float32)
    set_mean(padded, radius, scaled, result, 1, 2, mean)
    changed = result.astype(np.float64) - padded[:, 1:-1, 2:-2, 1:-1]
    np.testing.assert_allclose(mean, (scaled * changed).sum(0)[1, 2], rtol=1e-5, atol=1e-6)
