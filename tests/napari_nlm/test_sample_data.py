"""The sample data of the plugin."""

from __future__ import annotations

import numpy as np
import pytest

from napari_nlm import sample_data
from nlmeans import estimate_sigma


@pytest.mark.parametrize(
    ("make", "sigma", "dimensions"),
    [(sample_data.head, 60, 3), (sample_data.thick, 40, 3), (sample_data.image, 90, 2), (sample_data.series, None, 4)],
)
def test_samples_are_layers_with_their_noise(make, sigma, dimensions) -> None:  # type: ignore[no-untyped-def]
    ((data, looks, kind),) = make()
    assert kind == "image"
    assert data.ndim == dimensions == len(looks["scale"])
    if sigma is not None:
        assert estimate_sigma(data, noise="rician") == pytest.approx(sigma, rel=0.1)


def test_the_head_stands_upright() -> None:
    """Its top comes first: the skull is closed there, and the last slice cuts through it."""
    ((data, _, _),) = sample_data.head()
    assert (data[0] > 300).mean() < (data[-1] > 300).mean() or data[5].mean() < data[data.shape[0] // 2].mean()


def test_samples_do_not_repeat_their_noise() -> None:
    ((data, _, _),) = sample_data.series()
    assert not np.array_equal(data[0], data[1])
