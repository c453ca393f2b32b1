"""Masks and maps are brought to the voxels of a scan by where they lie, and refused where they lie elsewhere."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

import nlmeans
from nlmeans.files.denoise import denoise_file
from nlmeans.files.formats import registry
from nlmeans.files.formats.grid import fitted, is_placed, on_grid_of
from nlmeans.files.formats.nifti import Scan, in_nifti
from tests.nlmeans.scans import NIFTI, OBLIQUE, RAS, noisy

SHAPE = (8, 9, 10)
TURNS = [
    np.array(list(zip(order, signs, strict=True)))
    for order, signs in [
        ((0, 1, 2), (1, 1, 1)),
        ((0, 1, 2), (-1, 1, 1)),
        ((2, 0, 1), (1, -1, -1)),
        ((1, 2, 0), (-1, 1, -1)),
        ((0, 2, 1), (-1, -1, -1)),
    ]
]


def placed(data: npt.NDArray[Any], affine: npt.NDArray[Any], name: str = "scan") -> Scan:
    return Scan(Path(name), data, in_nifti(data, affine))


@pytest.mark.parametrize("affine", [RAS, OBLIQUE], ids=["RAS", "oblique"])
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_the_same_grid_in_any_orientation_is_reoriented_and_said(
    turn: npt.NDArray[Any], affine: npt.NDArray[Any], caplog: pytest.LogCaptureFixture
) -> None:
    data = noisy(*SHAPE)
    stored = apply_orientation(data, turn)
    other = placed(stored, affine @ inv_ornt_aff(turn, SHAPE), "mask")
    np.testing.assert_array_equal(on_grid_of(placed(data, affine), other), data)
    said = [message for message in caplog.messages if message.startswith("mask was reoriented from")]
    assert len(said) == (not np.array_equal(turn, TURNS[0]))


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([9.0, 9, 9, 1]), r"voxels of 9 × 9 × 9 mm instead of 2 × 3 × 4 mm, centres .* mm apart"),
        (RAS + np.eye(4)[:, :1] * [0, 0, 0, 5], "another grid than scan: centres 5 mm apart; resample it"),
        (
            RAS
            @ np.diag([1, 1, 1, 1.0])
            @ np.block(
                [[np.linalg.qr(np.random.default_rng(0).random((3, 3)))[0], np.zeros((3, 1))], [np.zeros(3), 1]]
            ),
            "axes turned by",
        ),
    ],
)
def test_another_grid_is_refused_with_the_difference(affine: npt.NDArray[Any], message: str) -> None:
    data = noisy(*SHAPE)
    with pytest.raises(ValueError, match=message):
        on_grid_of(placed(data, RAS), placed(data, affine, "mask"))


def test_another_grid_is_resampled_on_request(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("scipy")
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:6, 3:7, 4:8] = 1
    fine = mask.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    half = RAS @ np.diag([0.5, 0.5, 0.5, 1])
    half[:3, 3] = (RAS @ [-0.25, -0.25, -0.25, 1])[:3]
    found = on_grid_of(placed(noisy(*SHAPE), RAS), placed(fine, half, "mask"), resample=True)
    np.testing.assert_array_equal(found, mask)
    assert "mask was resampled to the grid of scan" in caplog.text
    ramp = np.broadcast_to(np.arange(20.0)[None, None], (16, 18, 20))
    linear = on_grid_of(placed(noisy(*SHAPE), RAS), placed(ramp, half, "map"), resample=True, order=1)
    np.testing.assert_allclose(linear[4, 4, 1:-1], 2 * np.arange(1, 9) + 0.5, atol=1e-5)


def test_rounded_headers_are_the_same_place() -> None:
    data = noisy(*SHAPE)
    np.testing.assert_array_equal(on_grid_of(placed(data, RAS), placed(data, RAS.round(1) + 1e-3)), data)


def test_axes_of_one_voxel_are_dropped_or_added() -> None:
    assert fitted(np.ones((4, 5, 6, 1)), 3).shape == fitted(np.ones((4, 5, 6, 1)), 4).shape == (4, 5, 6)
    assert fitted(np.ones((4, 5, 1)), 2).shape == (4, 5)
    assert fitted(np.ones((4, 5)), 3).shape == (4, 5, 1)
    assert fitted(np.ones((4, 5, 1)), 3).shape == (4, 5, 1)


def test_voxels_of_a_file_without_a_place_are_taken_as_they_are(tmp_path: Path) -> None:
    data = noisy(*SHAPE).astype("f4")
    np.save(tmp_path / "mask.npy", data)
    image = NIFTI.Nifti1Image(data, None)
    image.to_filename(tmp_path / "mask.nii")
    for name in ("mask.npy", "mask.nii"):
        other = registry.load_scan(tmp_path / name)
        assert not is_placed(other.image)
        np.testing.assert_array_equal(on_grid_of(placed(data, OBLIQUE), other), data)


@pytest.mark.parametrize("kind", ["mask_file", "sigma_file", "phase_file"])
@pytest.mark.parametrize("name", ["beside.nii", "beside.mgz"])
def test_a_file_beside_a_scan_acts_where_it_lies(kind: str, name: str, tmp_path: Path) -> None:
    data, half = noisy(*SHAPE).astype("f4"), np.zeros(SHAPE, "f4")
    half[:4] = 1
    nlmeans.save_image(in_nifti(data, RAS), tmp_path / "in.nii")
    nlmeans.save_image(in_nifti(half, RAS), tmp_path / "same.nii")
    turned = NIFTI.Nifti1Image(half, RAS).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nlmeans.save_image(in_nifti(np.asarray(turned.dataobj), turned.affine), tmp_path / name)
    for file, out in (("same.nii", "a.nii"), (name, "b.nii")):
        beside: dict[str, Any] = {kind: tmp_path / file}
        sigma = None if kind == "sigma_file" else 10.0
        denoise_file(tmp_path / "in.nii", tmp_path / out, sigma=sigma, method="classic", **beside)
    one, other = (np.asarray(NIFTI.load(tmp_path / out).dataobj) for out in ("a.nii", "b.nii"))
    np.testing.assert_array_equal(one, other)
    assert (one != data).any()
    assert kind == "phase_file" or (one[4:] == data[4:]).all()


def test_a_mask_with_an_axis_of_one_volume_fits_a_volume(tmp_path: Path) -> None:
    data = noisy(*SHAPE).astype("f4")
    nlmeans.save_image(in_nifti(data, RAS), tmp_path / "in.nii")
    nlmeans.save_image(in_nifti((data > 60).astype("u1")[..., None], RAS), tmp_path / "mask.nii")
    denoise_file(tmp_path / "in.nii", tmp_path / "out.nii", sigma=10.0, mask_file=tmp_path / "mask.nii")
    out = np.asarray(NIFTI.load(tmp_path / "out.nii").dataobj)
    np.testing.assert_array_equal(out[data <= 60], data[data <= 60])


def test_every_turn_of_a_cube_is_found() -> None:
    data = np.arange(27.0).reshape(3, 3, 3)
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        turn = np.array(list(zip(order, signs, strict=True)))
        other = placed(apply_orientation(data, turn), OBLIQUE @ inv_ornt_aff(turn, data.shape))
        np.testing.assert_array_equal(on_grid_of(placed(data, OBLIQUE), other), data)
