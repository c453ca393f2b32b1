"""The samples are found by their names, and agree with truth.json."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nlmeans.files import samples
from nlmeans.files.formats import nifti

HEADS = ("head", "thick", "slice")
NOISY = (*HEADS, "confocal", "ct", "pet")


def test_truth_tells_of_every_noisy_sample() -> None:
    assert set(samples.truth()) == {f"{name}.nii.gz" for name in NOISY}


@pytest.mark.parametrize("name", NOISY)
def test_a_sample_lies_on_its_truth(name: str) -> None:
    facts = samples.truth()[f"{name}.nii.gz"]
    noisy, clean = nifti.read_nifti(samples.path(name)), nifti.read_nifti(samples.path(facts["clean"]))
    assert noisy.data.shape == clean.data.shape
    np.testing.assert_array_equal(noisy.image.affine, clean.image.affine)
    assert noisy.spacing == pytest.approx(facts["voxel_mm"])


@pytest.mark.parametrize("name", HEADS)
def test_the_noise_is_as_strong_as_truth_says(name: str) -> None:
    facts = samples.truth()[f"{name}.nii.gz"]
    noisy, clean = (nifti.read_nifti(samples.path(n)).data.astype(float) for n in (name, facts["clean"]))
    assert facts["noise"] == "rician"
    bright = clean > 5 * facts["sigma"]  # where Rician noise is nearly Gaussian
    assert (noisy - clean)[bright].std() == pytest.approx(facts["sigma"], rel=0.03)


def test_a_name_does_with_and_without_its_ending() -> None:
    assert samples.path("head") == samples.path("head.nii.gz")


@pytest.mark.parametrize("name", ["foot", "", "../sample_data/foot"])
def test_an_unknown_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a sample; choose one of confocal, .*, head, head_clean, pet"):
        samples.path(name)


def test_installed_samples_come_before_those_of_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text("{}")
    monkeypatch.setattr(samples, "INSTALLED", tmp_path)
    assert samples.folder() == tmp_path
    assert samples.truth() == {}


def test_samples_that_are_nowhere_are_missed_clearly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(samples, "INSTALLED", tmp_path / "a")
    monkeypatch.setattr(samples, "IN_REPOSITORY", tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="install nlmeans again"):
        samples.path("head")
