"""Pipelines as in MONAI's tutorials and model zoo, with the transforms in place, on small synthetic scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, decollate_batch
from monai.transforms import (
    Compose,
    ConcatItemsd,
    ConvertToMultiChannelBasedOnBratsClassesd,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    MapTransform,
    NormalizeIntensityd,
    Orientationd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    Resized,
    ScaleIntensityd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
)

from monai_transforms import (
    EstimateNoised,
    NoiseStabilised,
    NonLocalMeansd,
    RandMatchNoised,
    RandNonLocalMeansd,
    RandScannerNoised,
)

SHAPE = (40, 36, 24)
PATCH = (16, 16, 8)
QUICK: dict[str, Any] = {"method": "classic", "search_radius": 1}
BOTH = ["image", "label"]


def ball(radius: float) -> Any:
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return sum(place**2 for place in places) < radius**2


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A CT in HU, skull-stripped MR contrasts with an exact zero outside, an MR magnitude, and labels."""
    folder, rng = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    body, organ = ball(0.8), ball(0.4)
    noise = rng.standard_normal((5, *SHAPE))
    ct = np.where(body, 40 + 80 * organ, -1000) + 15 * noise[0]
    arrays = {
        "ct": ct.astype(np.int16),
        "label": organ.astype(np.uint8) + 0,
        "brats": (ball(0.5).astype(np.uint8) + ball(0.35) + 2 * ball(0.2)).astype(np.uint8),
        "magnitude": np.hypot(600 * body + 300 * organ + 30 * noise[0], 30 * noise[1]).astype(np.float32),
        **{f"mr{n}": np.where(body, 400 + 100 * n * organ + 20 * noise[n], 0).astype(np.float32) for n in range(4)},
    }
    paths = {name: folder / f"{name}.nii.gz" for name in arrays}
    for name, path in paths.items():
        nibabel.save(nibabel.Nifti1Image(arrays[name], np.diag([1.5, 1.5, 2.5, 1.0])), path)
    return paths


def run(pipeline: list[Any], data: dict[str, Any]) -> Any:
    """Cache what is deterministic, load a batch twice, and return the items of the second."""
    composed = Compose(pipeline).set_random_state(seed=0)
    dataset = CacheDataset([data] * 2, composed, progress=False)
    for _ in range(2):
        batch = next(iter(DataLoader(dataset, batch_size=2)))
    return decollate_batch(batch)


def loaded(keys: list[str]) -> list[MapTransform]:
    return [LoadImaged(keys), EnsureChannelFirstd(keys)]


def check(items: Any, shape: tuple[int, ...]) -> None:
    for item in items:
        assert item["image"].shape == shape
        assert bool(item["image"].isfinite().all())


def test_spleen_segmentation_in_ct(scans: dict[str, Path]) -> None:
    pipeline = [
        *loaded(BOTH),
        NonLocalMeansd("image", modality="CT", **QUICK),
        ScaleIntensityRanged("image", a_min=-57, a_max=164, b_min=0.0, b_max=1.0, clip=True),
        CropForegroundd(BOTH, source_key="image", allow_smaller=True),
        Orientationd(BOTH, axcodes="RAS", labels=None),
        Spacingd(BOTH, pixdim=(1.5, 1.5, 2.0), mode=("bilinear", "nearest")),
        RandCropByPosNegLabeld(BOTH, "label", PATCH, num_samples=2, image_key="image"),
    ]
    check(run(pipeline, {"image": scans["ct"], "label": scans["label"]}), (1, *PATCH))


def test_brats_segmentation_of_four_contrasts(scans: dict[str, Path]) -> None:
    pipeline = [
        LoadImaged(BOTH),
        EnsureChannelFirstd("image"),
        EnsureTyped(BOTH),
        ConvertToMultiChannelBasedOnBratsClassesd("label"),
        NonLocalMeansd("image", **QUICK),
        CropForegroundd(BOTH, source_key="image", allow_smaller=True),
        NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        RandSpatialCropd(BOTH, roi_size=PATCH, random_size=False),
        RandFlipd(BOTH, prob=0.5, spatial_axis=0),
        RandScaleIntensityd("image", factors=0.1, prob=1.0),
        RandShiftIntensityd("image", offsets=0.1, prob=1.0),
    ]
    four = [scans[f"mr{n}"] for n in range(4)]
    items = run(pipeline, {"image": four, "label": scans["brats"]})
    check(items, (4, *PATCH))
    assert items[0]["label"].shape == (3, *PATCH)


def test_denoising_keeps_the_crop_and_the_normalisation_of_a_stripped_brain(
    scans: dict[str, Path],
) -> None:
    def prepared(*between: MapTransform) -> Any:
        steps = [*loaded(["image"]), *between, CropForegroundd("image", source_key="image", allow_smaller=True)]
        return Compose([*steps, NormalizeIntensityd("image", nonzero=True)])({"image": scans["mr1"]})["image"]

    plain, denoised = prepared(), prepared(NonLocalMeansd("image", **QUICK))
    assert denoised.shape == plain.shape
    assert torch.equal(denoised == 0, plain == 0)
    assert abs(float(denoised[plain != 0].mean())) < 1e-3


def test_contrasts_that_are_joined_are_measured_together(scans: dict[str, Path]) -> None:
    keys = ["t1", "t2"]
    pipeline = [
        *loaded(keys),
        ConcatItemsd(keys, "image"),
        EstimateNoised("image"),
        NonLocalMeansd("image", sigma="meta", channel_wise=False, **QUICK),
        ScaleIntensityd("image"),
        RandFlipd("image", prob=0.5),
    ]
    check(run(pipeline, {"t1": scans["mr1"], "t2": scans["mr2"]}), (2, *SHAPE))


def test_magnitudes_are_freed_from_their_bias_before_scaling(scans: dict[str, Path]) -> None:
    pipeline = [
        *loaded(["image"]),
        NonLocalMeansd("image", noise="rician", spacing="affine", **QUICK),
        ScaleIntensityd("image", minv=0.0, maxv=1.0),
        Resized("image", spatial_size=(20, 18, 12)),
    ]
    items = run(pipeline, {"image": scans["magnitude"]})
    check(items, (1, 20, 18, 12))
    assert float(items[0]["image"][0, 0, 0].mean()) < 0.03


def test_any_filter_between_the_two_stabilisers(scans: dict[str, Path]) -> None:
    pipeline = [
        *loaded(["image"]),
        EstimateNoised("image", noise="rician"),
        NoiseStabilised("image", "rician", sigma="meta"),
        NonLocalMeansd("image", sigma=1.0, **QUICK),
        NoiseStabilised("image", "rician", sigma="meta", inverse=True),
        SpatialPadd("image", (48, 48, 32)),
    ]
    check(run(pipeline, {"image": scans["magnitude"]}), (1, 48, 48, 32))


@pytest.mark.parametrize(
    "augment",
    [
        RandNonLocalMeansd("image", prob=1.0, sigma="meta"),
        RandNonLocalMeansd("image", prob=1.0),
        RandScannerNoised("image", 1.0, "meta", strength=(0.5, 1.5)),
        RandScannerNoised("image", 1.0, "gaussian", sigma=20.0, correlation="ct", varying=0.3),
        RandScannerNoised("image", 1.0, "poisson", gain=2.0, offset=-2000.0),
        RandMatchNoised("image", target=(30.0, 60.0), noise="meta"),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_augmentations_after_random_crops(augment: Any, scans: dict[str, Path]) -> None:
    pipeline = [
        *loaded(BOTH),
        EstimateNoised("image"),
        RandCropByPosNegLabeld(BOTH, "label", PATCH, num_samples=2, image_key="image"),
        augment,
        RandAffined(BOTH, prob=1.0, rotate_range=(0.1, 0.1, 0.1), mode=("bilinear", "nearest")),
        RandGaussianNoised("image", prob=0.5),
        ScaleIntensityd("image"),
    ]
    check(run(pipeline, {"image": scans["ct"], "label": scans["label"]}), (1, *PATCH))
