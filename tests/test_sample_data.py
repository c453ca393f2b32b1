"""The sample data are what their headers, truth.json and make.py say they are."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

SAMPLE_DATA = Path(__file__).parents[1] / "sample_data"

NIFTI: Any = nib.nifti1  # nibabel's calls carry no types

SHAPES = {"head": (86, 108, 76), "thick": (156, 194, 14), "slice": (256, 256)}
NOISE_FRACTIONS = {"head": 0.06, "thick": 0.04, "slice": 0.09}
CLEAN_MAXIMUM = 1000
TOTAL_BYTES = 4_600_000
FILE_BYTES = 1_000_000
NAMES = tuple(SHAPES)
OTHERS = ("confocal", "ct", "pet")
"""Phantoms of other modalities."""


def load(file_name: str) -> Any:
    """Open an image of the sample data."""
    return NIFTI.load(SAMPLE_DATA / file_name)


def voxels(file_name: str) -> npt.NDArray[np.int16]:
    """Stored integers of a file, which has no scaling."""
    return np.asarray(load(file_name).dataobj)


def truth_of(name: str) -> dict[str, Any]:
    """Read the entry of a noisy file in truth.json."""
    entry: dict[str, Any] = json.loads((SAMPLE_DATA / "truth.json").read_text())[f"{name}.nii.gz"]
    return entry


@pytest.fixture(scope="module")
def generator() -> Iterator[Any]:
    """Import make.py, which is a script next to the data and in no package."""
    sys.path.insert(0, str(SAMPLE_DATA))  # make.py imports modalities.py from its own folder
    spec = importlib.util.spec_from_file_location("sample_data_make", SAMPLE_DATA / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SAMPLE_DATA))


@pytest.fixture(scope="module")
def head(generator: Any) -> Any:
    """Set the phantom up once, since that takes a second."""
    return generator.Head()


def test_the_folder_stays_small() -> None:
    files = [path for path in SAMPLE_DATA.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < TOTAL_BYTES
    assert max(path.stat().st_size for path in files) < FILE_BYTES


def test_truth_lists_every_noisy_file() -> None:
    truth = json.loads((SAMPLE_DATA / "truth.json").read_text())
    assert set(truth) == {f"{name}.nii.gz" for name in (*NAMES, *OTHERS)}


@pytest.mark.parametrize("suffix", ["", "_clean"])
@pytest.mark.parametrize("name", NAMES)
def test_header(name: str, suffix: str) -> None:
    image = load(f"{name}{suffix}.nii.gz")
    header = image.header
    assert image.shape == SHAPES[name]
    assert header.get_data_dtype() == np.int16
    assert header.get_slope_inter() == (None, None)
    assert header.get_xyzt_units()[0] == "mm"
    assert int(header["qform_code"]) == int(header["sform_code"]) == 1
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-5)
    scale = np.diag(image.affine)
    assert np.all(scale > 0)  # RAS
    np.testing.assert_array_equal(image.affine[:3, :3], np.diag(scale[:3]))
    np.testing.assert_allclose(header.get_zooms(), truth_of(name)["voxel_mm"], rtol=1e-6)
    sigma = 0 if suffix else truth_of(name)["sigma"]
    assert f"sigma {sigma:g}" in header["descrip"].item().decode()
    origin = np.linalg.solve(image.affine, [0, 0, 0, 1])[: len(image.shape)]
    assert np.all((origin > 0.2 * np.array(image.shape)) & (origin < 0.8 * np.array(image.shape)))


@pytest.mark.parametrize("name", NAMES)
def test_clean_intensities(name: str) -> None:
    clean = voxels(f"{name}_clean.nii.gz")
    assert clean.min() == 0
    assert 0.99 * CLEAN_MAXIMUM <= clean.max() <= CLEAN_MAXIMUM
    assert clean.flat[0] == clean.flat[-1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_rician_with_the_stated_sigma(name: str) -> None:
    truth = truth_of(name)
    sigma = truth["sigma"]
    assert truth["noise"] == "rician"
    assert sigma == pytest.approx(NOISE_FRACTIONS[name] * CLEAN_MAXIMUM)
    clean = voxels(truth["clean"]).astype(np.float64)
    noisy = voxels(f"{name}.nii.gz").astype(np.float64)

    air = noisy[clean == 0]
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.02)

    tissue = clean > 5 * sigma
    residual = (noisy - clean)[tissue]
    assert residual.std() == pytest.approx(sigma, rel=0.02)
    bias = (sigma**2 / (2 * clean[tissue])).mean()
    assert residual.mean() == pytest.approx(bias, abs=5 * sigma / np.sqrt(residual.size))


@pytest.mark.parametrize("name", NAMES)
def test_noise_regenerates_exactly(name: str, generator: Any) -> None:
    scan = next(scan for scan in generator.SCANS if scan.name == name)
    assert truth_of(name)["seed"] == scan.seed
    noisy = generator.add_rician(voxels(f"{name}_clean.nii.gz"), scan)
    np.testing.assert_array_equal(noisy, voxels(f"{name}.nii.gz"))


def test_slice_regenerates_exactly(generator: Any, head: Any) -> None:
    scan = next(scan for scan in generator.SCANS if scan.name == "slice")
    clean = generator.sample_clean(head, scan)
    np.testing.assert_array_equal(clean, voxels("slice_clean.nii.gz"))


@pytest.mark.parametrize(("name", "first", "count"), [("head", 18, 3), ("head", 50, 3), ("thick", 6, 1)])
def test_slab_regenerates_exactly(name: str, first: int, count: int, generator: Any, head: Any) -> None:
    """A few slices stand for the volume, so that the test stays fast."""
    scan = next(scan for scan in generator.SCANS if scan.name == name)
    middle = scan.affine @ [*(np.array(scan.shape[:2]) - 1) / 2, first + (count - 1) / 2, 1]
    slab = dataclasses.replace(scan, shape=(*scan.shape[:2], count), centre_mm=tuple(middle[:3].tolist()))
    stored = voxels(f"{name}_clean.nii.gz")[:, :, first : first + count]
    np.testing.assert_array_equal(generator.sample_clean(head, slab), stored)


def test_saved_bytes_depend_on_the_contents_only(generator: Any, tmp_path: Path) -> None:
    scan = next(scan for scan in generator.SCANS if scan.name == "slice")
    clean = voxels("slice_clean.nii.gz")
    paths = [tmp_path / "a.nii.gz", tmp_path / "other_name.nii.gz"]
    for path in paths:
        generator.save(path, clean, scan.affine, "same")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    np.testing.assert_array_equal(np.asarray(NIFTI.load(paths[0]).dataobj), clean)


def phantom_of(generator: Any, name: str) -> Any:
    """The phantom of another modality than MR."""
    return next(phantom for phantom in generator.modalities.PHANTOMS if phantom.name == name)


@pytest.mark.parametrize("name", OTHERS)
def test_other_modalities_regenerate_exactly(name: str, generator: Any) -> None:
    phantom = phantom_of(generator, name)
    clean = phantom.sample_clean()
    np.testing.assert_array_equal(clean, voxels(f"{name}_clean.nii.gz"))
    np.testing.assert_array_equal(phantom.add_noise(clean), voxels(f"{name}.nii.gz"))
    truth = truth_of(name)
    assert {key: truth[key] for key in phantom.truth} == phantom.truth
    assert truth["seed"] == phantom.seed


@pytest.mark.parametrize("suffix", ["", "_clean"])
@pytest.mark.parametrize("name", OTHERS)
def test_headers_of_other_modalities(name: str, suffix: str) -> None:
    image = load(f"{name}{suffix}.nii.gz")
    assert image.header.get_data_dtype() in (np.int16, np.uint16)
    assert image.header.get_slope_inter() == (None, None)
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.header.get_zooms(), truth_of(name)["voxel_mm"], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.solve(image.affine, [0, 0, 0, 1])[:3], (np.array(image.shape) - 1) / 2)
    assert ("sigma 0" if suffix else "seed") in image.header["descrip"].item().decode()


@pytest.mark.parametrize("name", ["confocal", "pet"])
def test_counts_vary_as_gain_offset_and_read_noise_say(name: str) -> None:
    truth = truth_of(name)
    assert truth["noise"] == "poisson"
    clean, noisy = (voxels(file).astype(np.float64) for file in (truth["clean"], f"{name}.nii.gz"))
    variance = truth["gain"] * (clean - truth["offset"]) + truth["sigma"] ** 2
    some = variance > 0
    z = (noisy - clean)[some] / np.sqrt(variance[some])
    assert z.std() == pytest.approx(1, rel=0.02)
    assert abs(z.mean()) < 5 / np.sqrt(z.size)


def test_the_noise_of_ct_has_the_stated_sigma_and_kernel() -> None:
    truth = truth_of("ct")
    noise = voxels("ct.nii.gz").astype(np.float64) - voxels(truth["clean"])
    assert truth["noise"] == "gaussian"
    assert noise.std() == pytest.approx(truth["sigma"], rel=0.01)
    shared = [(noise * np.roll(noise, 1, axis)).mean() / noise.var() for axis in range(3)]
    expected = np.exp(-1 / (4 * truth["kernel_voxels"] ** 2))  # of a Gaussian with itself, one voxel apart
    assert shared[:2] == pytest.approx([expected] * 2, abs=0.1)
    assert abs(shared[2]) < 0.02


def test_ct_is_in_hounsfield_units_and_pet_has_a_hot_organ() -> None:
    ct, pet = voxels("ct_clean.nii.gz"), voxels("pet_clean.nii.gz")
    assert ct.min() == -1000  # air
    assert ct.max() > 500  # bone
    assert 0.1 < ((ct > 0) & (ct < 150)).mean() < 0.5  # soft tissue
    body = pet[pet > 0]
    assert pet.max() > 20 * np.median(body)
    assert 1 < np.median(body) / truth_of("pet")["gain"] < 10  # counts
