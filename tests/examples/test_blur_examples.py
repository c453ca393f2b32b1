"""The example scripts of the adaptive blur run, and learn what they say they learn."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from nlmeans.files import samples

EXAMPLES = Path(__file__).parents[2] / "examples"
RECOVERY = runpy.run_path(str(EXAMPLES / "adaptive_blur_recovery.py"))
MATCHING = runpy.run_path(str(EXAMPLES / "match_slice_thickness.py"))


def test_scales_of_quadrants_are_recovered_in_100_steps() -> None:
    torch.manual_seed(0)
    found = RECOVERY["recover"](dims=2, size=32, model="spherical", truth="spherical", steps=100, lr=0.1)
    assert found.losses[0] > 50 * found.losses[-1]
    true, learned = np.array(RECOVERY["median_scales"](found)).T
    assert (np.argsort(learned) == np.argsort(true)).all()
    np.testing.assert_allclose(learned, true, rtol=0.05)


VARIANTS = [
    (2, 12, "spherical", "random"),
    (2, 12, "full", "full"),
    (3, 6, "spherical", "spherical"),
    (3, 6, "full", "diagonal"),
]


@pytest.mark.parametrize(("dims", "size", "model", "truth"), VARIANTS)
def test_recovery_runs_in_all_its_variants(
    dims: int, size: int, model: str, truth: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "new" / "recovery.png"
    arguments: list[Any] = ["--dims", dims, "--size", size, "--model", model, "--truth", truth, "--steps", 12]
    RECOVERY["main"]([*map(str, arguments), "--out", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "mean squared error" in capsys.readouterr().out


@pytest.mark.usefixtures("short_head")
def test_a_simulated_slice_profile_is_matched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "match.png"
    MATCHING["main"](["--steps", "3", "--out", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "picture:" in capsys.readouterr().out


def test_two_files_are_matched_in_millimetres(tmp_path: Path) -> None:
    scan = nibabel.load(samples.path("head_clean"))
    thin = scan.slicer[30:54, 30:70, 20:50]
    values = thin.get_fdata(dtype=np.float32)
    thick = nibabel.Nifti1Image((values[..., 0::2] + values[..., 1::2]) / 2, thin.affine @ np.diag([1, 1, 2, 1]))
    thick.affine[:3, 3] += [0, 0, 1]
    thin_file, thick_file, matched_file = (tmp_path / f"{name}.nii.gz" for name in ("thin", "thick", "matched"))
    nibabel.save(thin, thin_file)
    nibabel.save(thick, thick_file)
    files = ["--thin", str(thin_file), "--thick", str(thick_file), "--matched", str(matched_file)]
    MATCHING["main"]([*files, "--steps", "10", "--lr", "0.3", "--out", str(tmp_path / "match.png")])
    matched = nibabel.load(matched_file)
    assert matched.shape == (24, 40, 29)
    assert matched.header.get_zooms() == pytest.approx((2, 2, 2))
    difference = matched.get_fdata()[..., ::2] - thick.get_fdata()
    before = values[..., ::2] - thick.get_fdata()
    assert np.square(difference).mean() < 0.5 * np.square(before).mean()
    with pytest.raises(SystemExit):
        MATCHING["main"](["--thin", str(thin_file)])
