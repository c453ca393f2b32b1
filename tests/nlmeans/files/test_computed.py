"""Complex scans from file to file: what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlmeans
from nlmeans.core.progress import silent
from nlmeans.engine.settings import Settings
from nlmeans.files.computed import denoise_parts
from nlmeans.files.denoise import denoise_file
from nlmeans.files.formats.nifti import read_nifti
from nlmeans.files.phase import complex_scan
from tests.nlmeans.engine.test_phase import SIGMA, complex_series
from tests.nlmeans.scans import NIFTI, save, scan, values

CPU: dict[str, Any] = {"device": "cpu", "voxel_radii": True}


@pytest.fixture(scope="module")
def noisy() -> Any:
    return complex_series()[1].astype(np.complex64)


@pytest.fixture
def magnitude(noisy: Any, tmp_path: Path) -> Path:
    save(scan(np.angle(noisy), "f4"), tmp_path / "sub-01_part-phase_dwi.nii.gz")
    return save(scan(np.abs(noisy), "f4"), tmp_path / "sub-01_part-mag_dwi.nii.gz")


def test_a_complex_file_gives_the_numbers_of_python(noisy: Any, tmp_path: Path) -> None:
    source = save(scan(noisy), tmp_path / "in.nii.gz")
    maps = {name: tmp_path / f"{name}.nii.gz" for name in ("noise_map", "residual", "rank_map", "phase_out")}
    said = denoise_file(source, tmp_path / "out.nii.gz", **CPU, **maps)
    assert "series, complex, gaussian noise, sigma" in said
    expected = nlmeans.denoise_with_maps(noisy, series=3)
    out = NIFTI.load(tmp_path / "out.nii.gz")
    assert out.get_data_dtype() == np.complex64
    np.testing.assert_allclose(np.asarray(out.dataobj), expected.volume, atol=1e-3)
    for name in ("noise_map", "residual", "rank_map"):
        found = np.asarray(NIFTI.load(maps[name]).dataobj)
        np.testing.assert_allclose(found, getattr(expected, name), atol=1e-3)
    np.testing.assert_allclose(
        np.exp(1j * values(maps["phase_out"])), np.exp(1j * np.angle(expected.volume)), atol=1e-3
    )


@pytest.mark.parametrize("phase", ["beside", "given"])
def test_a_magnitude_is_denoised_with_its_phase(noisy: Any, magnitude: Path, tmp_path: Path, phase: str) -> None:
    given: dict[str, Any] = {}
    if phase == "given":
        given["phase_file"] = (magnitude.parent / "sub-01_part-phase_dwi.nii.gz").rename(tmp_path / "p.nii.gz")
    denoise_file(magnitude, tmp_path / "out.nii.gz", **CPU, **given)
    expected = nlmeans.denoise(noisy, series=3)
    np.testing.assert_allclose(values(tmp_path / "out.nii.gz"), np.abs(expected), atol=0.01)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["phase"] == ("p.nii.gz" if given else "sub-01_part-phase_dwi.nii.gz")
    assert "12 volumes were denoised together, as complex numbers, with nlmeans" in record["boilerplate"]


def test_the_real_part_has_no_bias_in_air(noisy: Any, magnitude: Path, tmp_path: Path) -> None:
    denoise_file(magnitude, tmp_path / "out.nii.gz", real_part=True, **CPU)
    air = values(tmp_path / "out.nii.gz")[:, :, :7]
    assert abs(air.mean()) < 0.05 * SIGMA
    assert air.min() < 0


def test_who_states_rician_noise_gets_the_magnitude_alone(magnitude: Path, tmp_path: Path) -> None:
    said = denoise_file(magnitude, tmp_path / "out.nii.gz", noise="rician", **CPU)
    assert "complex" not in said
    assert json.loads((tmp_path / "out.json").read_text())["phase"] is None


@pytest.mark.parametrize(("whole", "real"), [(True, False), (False, True), (False, False)])
def test_the_residual_is_input_minus_output(noisy: Any, tmp_path: Path, whole: bool, real: bool) -> None:
    turned = complex_scan(read_nifti(save(scan(noisy), tmp_path / "in.nii"), complex_too=True), None)
    assert turned is not None
    done = denoise_parts(turned, Settings(sigma=SIGMA, series=3), whole, real, progress=silent)
    before = noisy if whole else np.abs(noisy)
    np.testing.assert_array_equal(done.maps.residual(), before - done.result)


def test_what_does_not_fit_is_refused(magnitude: Path, tmp_path: Path) -> None:
    plain = save(scan(np.abs(values(magnitude)), "u2"), tmp_path / "plain.nii")
    out = tmp_path / "out.nii"
    with pytest.raises(ValueError, match="--real-part needs a complex image or a phase beside it"):
        denoise_file(plain, out, real_part=True)
    with pytest.raises(ValueError, match=r"--phase-out .*p.nii needs a complex image or a phase beside it"):
        denoise_file(plain, out, phase_out=tmp_path / "p.nii")
    phase = magnitude.with_name("sub-01_part-phase_dwi.nii.gz")
    with pytest.raises(ValueError, match=r"uint16 of .*plain.nii cannot hold; add --float"):
        denoise_file(plain, out, phase_file=phase, real_part=True)
    assert not out.exists()


@pytest.mark.parametrize("kind", ["magnitude", "complex"])
def test_volumes_of_noise_give_sigma_and_stay_as_they_are(noisy: Any, tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    alone = SIGMA * (rng.standard_normal((*noisy.shape[:3], 4)) + 1j * rng.standard_normal((*noisy.shape[:3], 4)))
    data = np.concatenate([noisy, alone.astype(np.complex64)], -1)
    data = np.abs(data) if kind == "magnitude" else data
    source, target = save(scan(data), tmp_path / "in.nii"), tmp_path / "out.nii"
    maps = {name: tmp_path / f"{name}.nii" for name in ("noise_map", "residual")}
    said = denoise_file(source, target, noise_volumes=4, **CPU, **maps)
    assert said.endswith("sigma from 4 volumes of noise")
    assert ("rician" in said) == (kind == "magnitude")
    out = np.asarray(NIFTI.load(target).dataobj)
    np.testing.assert_array_equal(out[..., -4:], data[..., -4:])
    np.testing.assert_array_equal(np.asarray(NIFTI.load(maps["residual"]).dataobj)[..., -4:], 0)
    levels = nlmeans.sigma_of_noise_volumes(data[..., -4:])
    np.testing.assert_allclose(values(maps["noise_map"]), levels, rtol=1e-6)
    noise = "rician" if kind == "magnitude" else "auto"
    expected = nlmeans.denoise(data[..., :-4], levels, series=3, method="series", noise=noise)
    np.testing.assert_allclose(out[..., :-4], expected, atol=0.01)


@pytest.mark.parametrize("count", [-1, 12, 40])
def test_there_must_be_other_volumes_than_those_of_noise(noisy: Any, tmp_path: Path, count: int) -> None:
    source = save(scan(np.abs(noisy)), tmp_path / "in.nii")
    with pytest.raises(ValueError, match=f"--noise-volumes {count} must be fewer than the volumes of"):
        denoise_file(source, tmp_path / "out.nii", noise_volumes=count)
    with pytest.raises(ValueError, match="--noise-volumes 2 gives sigma at every voxel; leave out --sigma"):
        denoise_file(source, tmp_path / "out.nii", noise_volumes=2, sigma=3.0)
