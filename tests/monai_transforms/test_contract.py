"""Tests of what MONAI requires of every transform."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Flipd, LazyTransform, MapTransform, RandomizableTransform, Spacingd, Transform
from monai.utils import TransformBackends

import monai_transforms
from tests.monai_transforms.scans import KINDS, SHAPE, array, image, of_kind, volume

SIGMA_MAP = {"sigma": np.full((1, *SHAPE), 1.5, np.float32)}

ARRAY: dict[str, dict[str, Any]] = {
    "NonLocalMeans": {"method": "classic"},
    "RandNonLocalMeans": {"method": "classic", "prob": 1.0, "sigma": 10.0},
    "RandScannerNoise": {"prob": 1.0, "noise": "gaussian", "sigma": 10.0},
    "RandMatchNoise": {"prob": 1.0, "target": 900.0},
    "EstimateNoise": {"noise": "rician"},
    "NoiseStabilise": {"noise": "rician", "sigma": 10.0},
    "LocalGaussianSmooth": {"std_devs": 1.5},
}
"""All array transforms, with arguments that are not their defaults."""

CHANGED: dict[str, dict[str, Any]] = {
    "NonLocalMeans": {"h": 7.0},
    "RandNonLocalMeans": {"strength": [1.0, 2.0]},
    "RandScannerNoise": {"strength": [1.0, 2.0]},
    "RandMatchNoise": {"target": 950.0},
    "EstimateNoise": {"noise": "gaussian"},
    "NoiseStabilise": {"inverse": True},
    "LocalGaussianSmooth": {"std_devs": 2.5},
}


def made(name: str, **more: Any) -> Any:
    return getattr(monai_transforms, name)(**ARRAY[name] | more)


def made_for_keys(name: str, keys: KeysCollection = "image", **more: Any) -> Any:
    arguments = {"keys": keys, **ARRAY[name], **more}
    return getattr(monai_transforms, f"{name}d")(**arguments | map_key(name))


def map_key(name: str) -> dict[str, str]:
    return {"sigma_key": "sigma"} if name == "LocalGaussianSmooth" else {}


def applied(transform: Any, img: Any) -> Any:
    if isinstance(transform, monai_transforms.LocalGaussianSmooth):
        return transform(img, sigma=np.full((1, *img.shape[1:]), 1.5, np.float32))
    return transform(img)


every = pytest.mark.parametrize("name", ARRAY)


def test_every_transform_has_its_twin_and_its_aliases_in_all() -> None:
    names = {alias for name in ARRAY for alias in (name, f"{name}d", f"{name}D", f"{name}Dict")}
    others = {"SigmaMetric", "SNRMetric", "CNRMetric"}
    assert set(monai_transforms.__all__) == names | others
    for name in ARRAY:
        twin = getattr(monai_transforms, f"{name}d")
        assert getattr(monai_transforms, f"{name}D") is getattr(monai_transforms, f"{name}Dict") is twin
        assert issubclass(twin, MapTransform)
        assert getattr(monai_transforms, name).backend == twin.backend == [TransformBackends.TORCH]


@every
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(24, 22), SHAPE], ids=["2D", "3D"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16], ids=str)
def test_any_array_in_a_tensor_of_its_shape_out(name: str, kind: str, shape: tuple[int, ...], dtype: Any) -> None:
    given = of_kind(kind, volume(*shape, dtype=dtype))
    before = copy.deepcopy(given)
    result = applied(made(name), given)
    assert isinstance(result, MetaTensor)
    assert result.shape == given.shape
    assert result.dtype == (torch.float32 if name == "NoiseStabilise" and dtype == torch.int16 else dtype)
    assert result.device.type == "cpu"
    np.testing.assert_array_equal(array(given), array(before))


@every
@pytest.mark.parametrize("kind", KINDS)
def test_metadata_are_tracked_exactly_when_monai_tracks_them(name: str, kind: str, tracked: bool) -> None:
    if name == "EstimateNoise" and not tracked:
        with pytest.raises(RuntimeError, match="nowhere to write sigma"):
            made(name)(of_kind(kind, volume(*SHAPE)))
        return
    assert isinstance(applied(made(name), of_kind(kind, volume(*SHAPE))), MetaTensor) == tracked


@every
def test_metadata_stay_and_no_operation_is_noted(name: str) -> None:
    given = image(*SHAPE)
    given.meta["patient"] = "P7"
    result = applied(made(name), given)
    assert torch.equal(result.affine, given.affine)
    assert result.meta["patient"] == "P7"
    assert result.applied_operations == []
    assert "noise_sigma" not in given.meta


@every
def test_half_precision_keeps_its_type(name: str) -> None:
    assert applied(made(name), volume(*SHAPE, dtype=torch.float16)).dtype == torch.float16


@every
@pytest.mark.parametrize("shape", [(8, 8), (2, 1, 8, 8, 8)])
def test_what_is_not_one_channel_first_image_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"channel first: \(C, H, W\) or \(C, D, H, W\).*EnsureChannelFirst"):
        applied(made(name), torch.ones(shape))


@every
def test_what_is_no_array_is_refused(name: str) -> None:
    transform = made(name)
    with pytest.raises(TypeError, match="img is a str; give an array or a tensor, as LoadImage"):
        transform("scan.nii.gz", *[np.ones((1, 4, 4))] * (name == "LocalGaussianSmooth"))


@every
def test_infinite_values_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="infinite"):
        applied(made(name), torch.full((1, *SHAPE), torch.inf))


@every
def test_equal_arguments_hash_alike_and_others_do_not(name: str) -> None:
    assert pickle_hashing(made(name)) == pickle_hashing(made(name))
    assert pickle_hashing(made(name, **CHANGED[name])) != pickle_hashing(made(name))
    assert pickle_hashing(made_for_keys(name)) == pickle_hashing(made_for_keys(name))
    assert pickle_hashing(made_for_keys(name, **CHANGED[name])) != pickle_hashing(made_for_keys(name))


@pytest.mark.parametrize("name", [name for name in ARRAY if not name.startswith("Rand")])
def test_a_call_changes_neither_the_hash_nor_the_pickle(name: str) -> None:
    transform = made(name)
    before = pickle_hashing(transform)
    applied(transform, image(*SHAPE))
    assert pickle_hashing(transform) == before
    assert pickle_hashing(pickle.loads(pickle.dumps(transform))) == before


@every
def test_a_pickled_copy_does_the_same(name: str) -> None:
    transform = made(name)
    if isinstance(transform, RandomizableTransform):
        transform.set_random_state(seed=5)
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(applied(again, image(*SHAPE)), applied(transform, image(*SHAPE)))


@every
def test_a_bundle_makes_it_from_json(name: str) -> None:
    config = {"_target_": f"monai_transforms.{name}d", "keys": ["image"], **ARRAY[name], **map_key(name)}
    parser = ConfigParser(json.loads(json.dumps({"transform": config})))
    made_by_bundle = parser.get_parsed_content("transform")
    data = {"image": image(*SHAPE), **SIGMA_MAP}
    ours = made_for_keys(name)
    assert pickle_hashing(made_by_bundle) == pickle_hashing(ours)
    if isinstance(made_by_bundle, RandomizableTransform):
        made_by_bundle.set_random_state(seed=3)
        ours.set_random_state(seed=3)
    assert torch.equal(made_by_bundle(data)["image"], ours(data)["image"])


@every
def test_the_twin_changes_its_keys_and_nothing_else(name: str) -> None:
    data: dict[Hashable, Any] = {"image": image(*SHAPE), "other": image(*SHAPE), **SIGMA_MAP}
    before = dict(data)
    result = made_for_keys(name)(data)
    assert data == before
    assert {key for key in result if result[key] is not data[key]} == {"image"}


@every
def test_a_missing_key_is_an_error_unless_it_is_allowed(name: str) -> None:
    data = {"other": image(*SHAPE), **SIGMA_MAP}
    with pytest.raises(KeyError, match="image"):
        made_for_keys(name)(data)
    assert made_for_keys(name, allow_missing_keys=True)(data).keys() == data.keys()


@every
def test_it_is_neither_lazy_nor_undone_by_an_inverse(name: str) -> None:
    transform = made_for_keys(name)
    assert not isinstance(transform, LazyTransform)
    data = {"image": image(*SHAPE), **SIGMA_MAP}
    pipeline = Compose([Flipd("image", 0), transform])
    pipeline.set_random_state(seed=0)
    result = pipeline(data)
    back = pipeline.inverse(result)
    assert torch.equal(back["image"].as_tensor(), result["image"].as_tensor().flip(1))


@every
def test_a_lazy_pipeline_does_what_comes_before_first(name: str) -> None:
    def run(lazy: bool) -> Any:
        pipeline = Compose([Spacingd("image", (4, 4, 4)), made_for_keys(name), Flipd("image", 0)], lazy=lazy)
        pipeline.set_random_state(seed=0)
        sigma = np.full((1, *Spacingd("image", (4, 4, 4))({"image": image(*SHAPE)})["image"].shape[1:]), 1.5)
        return pipeline({"image": image(*SHAPE), "sigma": sigma})["image"]

    np.testing.assert_allclose(run(True), run(False), atol=1e-3)


def test_all_transforms_are_transforms() -> None:
    assert all(isinstance(made(name), Transform) for name in ARRAY)
