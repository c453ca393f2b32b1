"""The form that estimates the noise of a layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image

from napari_nlm import noise_form
from napari_nlm.noise_form import estimate_layer_noise


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the notifications say."""
    messages: list[str] = []
    for name in ("show_info", "show_warning"):
        monkeypatch.setattr(noise_form, name, messages.append)
    return messages


def noisy(*shape: int, sigma: Any = 5.0) -> Any:
    return (100 + sigma * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


@pytest.mark.usefixtures("qtbot")
def test_a_number_is_said(said: list[str]) -> None:
    assert estimate_layer_noise()(Image(noisy(24, 25, 26), name="scan")) == []
    assert len(said) == 1
    assert said[0].startswith("scan: gaussian noise, sigma ")
    assert float(said[0].split()[4].rstrip(",")) == pytest.approx(5, rel=0.1)


@pytest.mark.usefixtures("qtbot")
def test_volumes_of_a_series_are_looked_at_one_by_one(said: list[str]) -> None:
    series = np.stack([noisy(20, 20, 20), noisy(20, 20, 20, sigma=20.0)])
    assert estimate_layer_noise()(Image(series, name="scan")) == []
    assert "over 2 volumes" in said[0]


@pytest.mark.usefixtures("qtbot")
def test_a_map_lies_where_the_image_lies() -> None:
    ramp = np.linspace(2, 10, 40)[:, None, None]
    image = Image(noisy(40, 40, 40, sigma=ramp), name="scan", scale=(3, 1, 1), translate=(5, 0, 0))
    ((values, looks, kind),) = estimate_layer_noise()(image, varies=True)
    assert kind == "image"
    assert looks["name"] == "scan sigma"
    assert tuple(looks["scale"]) == (3, 1, 1)
    assert tuple(looks["translate"]) == (5, 0, 0)
    assert values[-5:].mean() > 2 * values[:5].mean()


@pytest.mark.usefixtures("qtbot")
def test_without_a_layer_it_says_what_to_do(said: list[str]) -> None:
    assert estimate_layer_noise()(None) == []
    assert "Open Sample" in said[0]


@pytest.mark.usefixtures("qtbot")
def test_channels_have_no_common_map(said: list[str]) -> None:
    assert estimate_layer_noise()(Image(noisy(24, 25, 3), rgb=True), varies=True) == []
    assert "split it into layers" in said[0]
