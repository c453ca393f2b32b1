"""Tests that local smoothing is the engine's blur with channel-first maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, SpatialCropd

from monai_transforms import LocalGaussianSmooth, LocalGaussianSmoothd
from nlmeans.blur import local_gaussian_blur
from tests.monai_transforms.scans import SHAPE, image, volume

TWO = torch.cat([volume(*SHAPE), volume(*SHAPE, seed=1) * 3])
SIGMA = torch.linspace(0.5, 2, SHAPE[2]).expand(1, *SHAPE)
PER_AXIS = torch.cat([SIGMA, 0.5 * SIGMA, 0.7 * SIGMA])
MATRICES = torch.diag_embed(PER_AXIS.square().movedim(0, -1)) + 0.05


def blurred(covariance: Any, **options: Any) -> Any:
    return torch.stack([local_gaussian_blur(channel, covariance, **options) for channel in TWO])


@pytest.mark.parametrize(
    ("maps", "covariance"),
    [
        ({"sigma": SIGMA}, SIGMA[0].square()),
        ({"sigma": PER_AXIS}, PER_AXIS.square().movedim(0, -1)),
        ({"covariance": SIGMA.square()}, SIGMA[0].square()),
        ({"covariance": PER_AXIS.square()}, PER_AXIS.square().movedim(0, -1)),
        ({"covariance": MATRICES.flatten(-2).movedim(-1, 0)}, MATRICES),
    ],
    ids=["sigma", "sigma per axis", "variance", "variance per axis", "matrix"],
)
def test_every_kind_of_map_is_the_engines(maps: dict[str, Any], covariance: Any) -> None:
    ours = LocalGaussianSmooth()(TWO, **maps)
    torch.testing.assert_close(ours.as_tensor(), blurred(covariance))


def test_the_arguments_arrive() -> None:
    ours = LocalGaussianSmooth(kernel_size=[3, 3, 5], spacing=[2, 2, 1], padding="zeros", device="cpu")(TWO, SIGMA)
    expected = blurred(SIGMA[0].square(), kernel_size=(3, 3, 5), spacing=(2, 2, 1), padding="zeros")
    torch.testing.assert_close(ours.as_tensor(), expected)
    wide = LocalGaussianSmooth(std_devs=3.0)(TWO, SIGMA)
    torch.testing.assert_close(wide.as_tensor(), blurred(SIGMA[0].square(), std_devs=3.0))


def test_a_slice_is_smoothed_too() -> None:
    flat, sigma = volume(24, 22), torch.full((1, 24, 22), 1.3)
    expected = local_gaussian_blur(flat[0], sigma[0].square())
    torch.testing.assert_close(LocalGaussianSmooth()(flat, sigma=sigma).as_tensor()[0], expected)


def test_spacing_is_read_from_the_affine() -> None:
    given = image(*SHAPE)
    sizes = np.linalg.norm(np.asarray(given.affine)[:3, :3], axis=0)
    ours = LocalGaussianSmooth(spacing="affine")(given, sigma=2 * SIGMA)
    expected = local_gaussian_blur(given.as_tensor()[0], (2 * SIGMA[0]).square(), spacing=sizes)
    torch.testing.assert_close(ours.as_tensor()[0], expected)


def test_where_sigma_is_zero_voxels_stay() -> None:
    sigma = SIGMA * (SIGMA > 1)
    ours = LocalGaussianSmooth()(TWO, sigma=sigma).as_tensor()
    still = (sigma == 0).expand_as(TWO)
    assert torch.equal(ours[still], TWO[still])
    assert not torch.equal(ours[~still], TWO[~still])


def test_maps_are_cropped_along_with_the_image() -> None:
    crop = SpatialCropd(["image", "width"], roi_center=(10, 9, 5), roi_size=(8, 8, 8))
    result = Compose([crop, LocalGaussianSmoothd("image", sigma_key="width")])({"image": TWO, "width": SIGMA})
    assert result["image"].shape == (2, 8, 8, 8)


def test_each_image_may_have_a_map_of_its_own() -> None:
    transform = LocalGaussianSmoothd(["a", "b"], covariance_key=["a_map", "b_map"])
    data = transform({"a": TWO, "b": TWO, "a_map": SIGMA, "b_map": PER_AXIS})
    torch.testing.assert_close(data["a"].as_tensor(), blurred(SIGMA[0]))
    torch.testing.assert_close(data["b"].as_tensor(), blurred(PER_AXIS.movedim(0, -1)))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma_key=None and covariance_key=None: give one of the two"):
        LocalGaussianSmoothd("image")
    with pytest.raises(ValueError, match="got neither of them; give sigma or covariance, one of the two"):
        LocalGaussianSmooth()(TWO)
    with pytest.raises(ValueError, match="got both; give sigma or covariance, one of the two"):
        LocalGaussianSmooth()(TWO, sigma=SIGMA, covariance=SIGMA)
    with pytest.raises(ValueError, match=r"sigma has shape \(2, 20, 18, 10\).* must have \(1 or 3, 20, 18, 10\)"):
        LocalGaussianSmooth()(TWO, sigma=TWO)
    with pytest.raises(ValueError, match=r"covariance has shape .* must have \(1, 3 or 9, 20, 18, 10\)"):
        LocalGaussianSmooth()(TWO, covariance=TWO)
    with pytest.raises(ValueError, match=r"sigma=-1\.0 must not be negative"):
        LocalGaussianSmooth()(TWO, sigma=-torch.ones(1, *SHAPE))
    with pytest.raises(ValueError, match="padding='border' is not known"):
        LocalGaussianSmooth(padding="border")
