"""The sample data of the plugin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_nlm import sample_data
from nlmeans import estimate_noise, estimate_sigma
from nlmeans.files import samples


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


@pytest.mark.parametrize(
    ("make", "modality", "kind", "unit"),
    [(sample_data.confocal, "GM", "poisson", "um"), (sample_data.ct, "CT", "gaussian", "mm"),
     (sample_data.pet, "PT", "poisson", "mm")],
)  # fmt: skip
def test_the_noise_of_other_modalities_is_found(make, modality, kind, unit) -> None:  # type: ignore[no-untyped-def]
    ((data, looks, _),) = make()
    assert estimate_noise(data, modality=modality).kind == kind
    assert looks["units"] == unit
    assert 0.1 < min(looks["scale"]) <= max(looks["scale"]) < 5
    low, high = looks["contrast_limits"]
    assert data.min() <= low < high < data.max()


def test_every_noisy_sample_can_be_opened() -> None:
    manifest = PluginManifest.from_file(Path(sample_data.__file__).with_name("napari.yaml"))
    keys = {sample.key for sample in manifest.contributions.sample_data}
    assert {name.removesuffix(".nii.gz") for name in samples.truth()} <= keys
