"""Tests from file to file: same voxels as the command line, and a drop-in replacement of MONAI's own smoothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, SaveImaged

from monai_transforms import NonLocalMeansd
from nlmeans import cli
from nlmeans.files import samples
from tests.monai_transforms.scans import SHAPE
from tests.nlmeans.scans import OBLIQUE, noisy

NIFTI: Any = nib


@pytest.fixture(params=["head", "thick", "slice", "oblique", "series"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "slice":
        return samples.path(request.param)
    file = tmp_path / f"{request.param}.nii.gz"
    if request.param in ("head", "thick"):
        NIFTI.save(NIFTI.load(samples.path(request.param)).slicer[40:60], file)
        return file
    data = noisy(*SHAPE, 3) if request.param == "series" else noisy(*SHAPE)
    NIFTI.save(NIFTI.Nifti1Image(data.astype(np.int16), OBLIQUE), file)
    return file


@pytest.mark.parametrize("as_float", [False, True], ids=["stored as it was", "float32"])
@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_the_voxels_and_the_affine_are_those_of_the_command_line(
    source: Path, tmp_path: Path, as_float: bool, noise: str
) -> None:
    target = tmp_path / "by_command.nii.gz"
    words = [
        "denoise",
        source,
        target,
        "--noise",
        noise,
        "--method",
        "classic",
        "--device",
        "cpu",
        "--search-radius",
        3,
    ]
    result = CliRunner().invoke(cli.main, [*map(str, words), *["--float"] * as_float])
    assert result.exit_code == 0, result.output

    dtype = np.float32 if as_float else np.int16
    save = SaveImaged(
        "image",
        output_dir=tmp_path,
        output_postfix="by_monai",
        output_dtype=dtype,
        separate_folder=False,
        print_log=False,
    )
    denoise = NonLocalMeansd("image", noise=noise, method="classic", search_radius=3, spacing="affine")
    Compose([LoadImaged("image", dtype=dtype), EnsureChannelFirstd("image"), denoise, save])({"image": source})

    by_command, by_monai = (NIFTI.load(next(tmp_path.glob(f"*{name}.nii.gz"))) for name in ("by_command", "by_monai"))
    np.testing.assert_array_equal(np.asarray(by_monai.dataobj), np.asarray(by_command.dataobj))
    np.testing.assert_array_equal(by_monai.affine, by_command.affine)


SCRIPT = """
from monai.data import CacheDataset
from monai.transforms import Compose, EnsureChannelFirstd, GaussianSmoothd, LoadImaged, ScaleIntensityd
from monai_transforms import NonLocalMeansd

pipeline = Compose(
    [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        GaussianSmoothd("image", sigma=1.0),
        ScaleIntensityd("image"),
    ]
)
result = CacheDataset(items, pipeline, progress=False)[0]["image"]
"""


def test_one_line_replaces_the_smoothing_of_monai(items: list[dict[str, str]]) -> None:
    ours = SCRIPT.replace('GaussianSmoothd("image", sigma=1.0)', 'NonLocalMeansd("image")')
    changed = [line for line, other in zip(ours.splitlines(), SCRIPT.splitlines(), strict=True) if line != other]
    assert changed == ['        NonLocalMeansd("image"),']
    results = []
    for script in (SCRIPT, ours):
        names: dict[str, Any] = {"items": items}
        exec(script, names)
        results.append(names["result"])
    smoothed, denoised = results
    assert (type(denoised), denoised.shape, denoised.dtype) == (type(smoothed), smoothed.shape, smoothed.dtype)
    assert denoised.affine.tolist() == smoothed.affine.tolist()
    assert denoised.meta.keys() == smoothed.meta.keys()
    assert not np.array_equal(denoised, smoothed)
