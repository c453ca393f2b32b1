"""``nlmeans noise`` prints what noise an image has, and why."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nlmeans.noise.level_curve import checked_curve
from tests.nlmeans.cli.calls import assert_one_line, call
from tests.nlmeans.scans import (
    save,
    scan,
)


def flat_scan(folder: Path, *levels: float, signal: float = 200.0) -> Path:
    """A series of flat volumes with one noise level each."""
    rng = np.random.default_rng(3)
    volumes = [signal + level * rng.standard_normal((20, 20, 20)) for level in levels]
    return save(scan(np.stack(volumes, -1) if len(levels) > 1 else volumes[0], "f4"), folder / "flat.nii")


NOISE_LINE = r"gaussian noise, sigma (\S+); mean of the object (\S+), SNR (\S+)"


def test_noise_prints_kind_level_ratio_and_why(tmp_path: Path) -> None:
    mask = save(scan(np.ones((20, 20, 20), "u1")), tmp_path / "mask.nii")
    result = call("noise", flat_scan(tmp_path, 10.0), "--mask", mask)
    first, *reasons = result.stdout.splitlines()
    found = re.fullmatch(NOISE_LINE, first)
    assert found
    sigma, mean, ratio = (float(number) for number in found.groups())
    assert sigma == pytest.approx(10, rel=0.1)
    assert mean == pytest.approx(200, rel=0.01)
    assert ratio == pytest.approx(mean / sigma, abs=0.1)
    assert all(reason.startswith("  - ") for reason in reasons)
    assert "in the mask" in result.stdout
    assert (result.exit_code, result.stderr) == (0, "")


def test_noise_has_a_line_for_each_volume(tmp_path: Path) -> None:
    lines = call("noise", flat_scan(tmp_path, 4.0, 16.0)).stdout.splitlines()
    found = [re.fullmatch(rf"volume \d: {NOISE_LINE}", line) for line in lines if not line.startswith("  - ")]
    assert [float(match[1]) for match in found if match] == pytest.approx([4, 16], rel=0.1)


def test_noise_knows_rician_or_is_told(tmp_path: Path) -> None:
    clean = np.where(np.indices((24, 24, 24)).max(0) < 16, 100, 0)
    real, imaginary = 10 * np.random.default_rng(1).standard_normal((2, *clean.shape))
    source = save(scan(np.hypot(clean + real, imaginary), "f4"), tmp_path / "object.nii")
    for words in ((), ("--noise", "rician")):
        result = call("noise", source, *words)
        assert float(re.findall(r"^rician noise, sigma ([^;,]+)", result.stdout)[0]) == pytest.approx(10, rel=0.1)


def test_noise_of_an_image_without_any(tmp_path: Path) -> None:
    result = call("noise", flat_scan(tmp_path, 0.0))
    assert result.stdout.startswith("gaussian noise, sigma 0; mean of the object 200, SNR infinite\n")


@pytest.mark.parametrize("file", ["none", "folder", "short", "inf", "line", "five", "colours", "complex"])
def test_noise_tells_the_same_mistakes(file: str, wrong: Path) -> None:
    assert_one_line(call("noise", wrong / f"{file}.nii"), rf"{file}\.nii")


@pytest.mark.parametrize(("mask", "message"), [("mask", r"has another grid"), ("zeros", r"is zero everywhere")])
def test_noise_refuses_a_mask_that_does_not_fit(mask: str, message: str, wrong: Path) -> None:
    assert_one_line(call("noise", wrong / "good.nii.gz", "--mask", wrong / f"{mask}.nii"), message)


def graded_scan(folder: Path) -> Path:
    """Flat parts of eight intensities whose noise is a twentieth of them."""
    steps = np.repeat(100.0 * np.arange(1, 9), 6)[:, None, None] * np.ones((1, 24, 24))
    noise = np.random.default_rng(0).standard_normal(steps.shape)
    return save(scan(steps * (1 + 0.05 * noise), "f4"), folder / "graded.nii")


def test_noise_finds_a_curve_and_prints_the_options_that_state_it(tmp_path: Path) -> None:
    source = graded_scan(tmp_path)
    picture = tmp_path / "noise.png"
    result = call("noise", source, "--noise", "curve", "--plot", picture)
    assert re.match(
        r"signal-dependent noise, sigma \S+ to \S+ over intensities \S+ to \S+; mean of the object \S+\n", result.stdout
    )
    assert picture.exists()
    (text,) = re.findall(r"  - to denoise with it: --noise curve --curve (\S+)\n", result.stdout)
    curve = checked_curve(text)
    assert [sigma / t for t, sigma in curve] == pytest.approx([0.05] * len(curve), rel=0.3)
    stated = call(
        "denoise", source, tmp_path / "stated.nii", "--noise", "curve", "--curve", text, "--method", "classic"
    )
    assert "signal-dependent noise, sigma" in stated.stdout + stated.stderr
    assert "as given" in (tmp_path / "stated.json").read_text()
    found = call("denoise", source, tmp_path / "found.nii", "--noise", "curve", "--method", "classic")
    assert (stated.exit_code, found.exit_code) == (0, 0)
    assert "estimated from the image" in (tmp_path / "found.json").read_text()
    results = [np.asarray(nib.load(tmp_path / f"{name}.nii").dataobj) for name in ("stated", "found")]
    np.testing.assert_allclose(*results, atol=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--noise", "curve", "--curve", "0:3;9:8"), "curve='0:3;9:8' is not understood; give pairs"),
        (("--noise", "curve", "--curve", "9:3,0:8"), "intensities must rise"),
        (("--curve", "0:3,9:8"), "curve belongs to noise='curve', not to noise='auto'"),
        (("--noise", "curve", "--sigma", "3"), "sigma=3.0 does not fit noise='curve'"),
    ],
)
def test_a_wrong_curve_is_told_in_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert_one_line(call("denoise", graded_scan(tmp_path), tmp_path / "out.nii", *words), re.escape(message))
