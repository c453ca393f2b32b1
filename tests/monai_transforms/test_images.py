"""Tests of the conversion between MONAI's images and plain tensors."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import nlmeans
from monai_transforms import EstimateNoise, NonLocalMeans, images
from tests.monai_transforms.scans import KINDS, SHAPE, array, image, of_kind, volume
from tests.nlmeans.scans import OBLIQUE


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_split_without_a_copy(kind: str, tracked: bool) -> None:
    given = of_kind(kind, volume(*SHAPE))
    with_meta, values = images.image_and_values(given)
    assert isinstance(with_meta, MetaTensor) == tracked
    assert type(values) is torch.Tensor
    values[0, 0, 0, 0] = -7
    assert float(array(given)[0, 0, 0, 0]) == -7


@pytest.mark.parametrize("shape", [(5,), (5, 5), (1, 1, 5, 5, 5)])
def test_another_number_of_axes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"decollate_batch splits a batch into images"):
        images.image_and_values(torch.ones(shape))


def test_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="img is a list; give an array or a tensor"):
        images.image_and_values([[[1.0]]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "meta", "without"),
    [
        ((4, 5, 6), {"spatial_shape": (4, 5, 6), "original_channel_dim": float("nan")}, True),
        ((4, 5, 6), {"spatial_shape": np.array((4, 5, 6)), "original_channel_dim": "no_channel"}, True),
        ((1, 4, 5, 6), {"spatial_shape": (4, 5, 6), "original_channel_dim": float("nan")}, False),
        ((4, 5, 6), {"spatial_shape": (5, 6), "original_channel_dim": 0}, False),
        ((4, 5, 6), {}, False),
    ],
)
def test_a_missing_channel_is_found_in_the_metadata(
    shape: tuple[int, ...], meta: dict[str, Any], without: bool
) -> None:
    assert images.is_without_channel(MetaTensor(torch.ones(shape), meta=meta)) == without


def test_values_get_a_copy_of_the_metadata_and_keep_their_dtype() -> None:
    given = image(*SHAPE)
    given.meta["patient"] = "P7"
    result = images.with_metadata_of(given, torch.zeros(1, *SHAPE, dtype=torch.float64))
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.float64
    assert torch.equal(result.affine, given.affine)
    result.meta["patient"] = "P8"
    assert given.meta["patient"] == "P7"
    assert type(images.with_metadata_of(torch.ones(1, 2, 2), given)) is torch.Tensor


def test_the_voxel_size_is_that_of_the_affine() -> None:
    sheared = torch.tensor([[0.0, -2, 0, 5], [3, 0, 0, 5], [0, 0, 1.23456789, 5], [0, 0, 0, 1]])
    assert images.voxel_size(MetaTensor(torch.ones(1, 4, 4, 4), affine=sheared)) == (3, 2, 1.23457)
    assert images.voxel_size(MetaTensor(torch.ones(1, 4, 4), affine=sheared)) == (3, 2)


def test_an_identity_affine_counts_only_if_the_image_was_loaded() -> None:
    ones = torch.ones(1, 4, 4, 4)
    for given in (ones, ones.numpy(), MetaTensor(ones), MetaTensor(ones, affine=torch.eye(4))):
        with pytest.raises(ValueError, match=r"this image has none.*track_meta=True.*or give the voxel size in mm"):
            images.voxel_size(given)
    loaded = MetaTensor(ones, affine=torch.eye(4), meta={"original_affine": np.eye(4)})
    assert images.voxel_size(loaded) == (1, 1, 1)


@pytest.mark.parametrize("lead", [(), (1,)], ids=["spatial", "with a channel"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_may_have_a_first_axis_of_one(kind: str, lead: tuple[int, ...]) -> None:
    mask = torch.arange(20.0).reshape(*lead, 4, 5)
    found = images.spatial_array(of_kind(kind, mask), "mask", torch.ones(3, 4, 5))
    assert type(found) is torch.Tensor
    assert torch.equal(found, mask.reshape(4, 5))


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 5), (4,), (1, 1, 4, 5)])
def test_a_mask_of_another_shape_is_refused_with_the_shapes_that_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"roi has shape .* give \(4, 5\) or \(1, 4, 5\)"):
        images.spatial_array(torch.ones(shape), "roi", torch.ones(3, 4, 5))


def test_each_image_gets_a_key() -> None:
    keys = ("a", "b")
    assert images.key_for_each("mask_key", None, keys) == (None, None)
    assert images.key_for_each("mask_key", "m", keys) == ("m", "m")
    assert images.key_for_each("mask_key", ["m", "n"], keys) == ("m", "n")
    with pytest.raises(ValueError, match=r"mask_key=\['l', 'm', 'n'\] has 3 keys; give one .* or one for each"):
        images.key_for_each("mask_key", ["l", "m", "n"], keys)


def test_a_key_that_is_missing_is_named_with_its_argument() -> None:
    data = {"image": 1, "mask": None}
    assert images.value_at(data, "mask_key", "image") == 1
    assert images.value_at(data, "mask_key", None) is None
    assert images.value_at(data, "mask_key", "mask") is None
    with pytest.raises(KeyError, match="mask_key='masks' is not in the data; the keys there are 'image', 'mask'"):
        images.value_at(data, "mask_key", "masks")


def test_only_a_forked_worker_is_refused_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(message: str) -> None:
        def init() -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(torch.cuda, "init", init)

    fail("Cannot re-initialize CUDA in forked subprocess")
    images.check_device(torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"device='cuda:1' cannot be used in a forked worker.*device='cpu'"):
        images.check_device(torch.device("cuda:1"))
    fail("no driver")
    with pytest.raises(RuntimeError, match=r"^no driver$"):
        images.check_device(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    images.check_device(torch.device("cuda"))


# ---------------------------------------------------------------- the log


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_root_logger_at_info_gets_only_warnings(level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(level)
    logging.getLogger("nlmeans").setLevel(logging.NOTSET)
    noisy = 100 + 5 * torch.randn(4, 20, 20, generator=torch.Generator().manual_seed(0))
    NonLocalMeans(method="classic")(noisy)
    NonLocalMeans(method="classic").denoise_with_maps(noisy)
    EstimateNoise()(noisy)
    ours = [record for record in caplog.records if record.name == "nlmeans"]
    assert bool(ours) == (level == "DEBUG")
    assert {record.levelname for record in ours} <= {"DEBUG"}
    NonLocalMeans(noise="rician", method="classic")(noisy - 200)
    assert [record.levelname for record in caplog.records if record.levelno > logging.DEBUG] == ["WARNING"]


def test_the_engine_alone_says_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    nlmeans.denoise(torch.rand(20, 20), 0.1, method="classic")
    assert "classic on cpu, gaussian noise, sigma 0.1, in 1 tiles" in caplog.text


TURNS: dict[str, tuple[Any, Any]] = {
    "same": (lambda mask: mask, np.eye(4)),
    "reversed": (lambda mask: mask[::-1], np.array([[-1.0, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    "transposed": (lambda mask: mask.transpose(2, 0, 1), np.eye(4)[:, [2, 0, 1, 3]]),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("channel", [False, True])
def test_a_mask_stored_in_another_orientation_is_turned_to_the_image(turn: str, channel: bool) -> None:
    """Each reading of the mask lies where the others lie, by its affine."""
    mask = np.random.default_rng(0).random((12, 10, 8)) < 0.3
    turned, affine = TURNS[turn]
    here = torch.from_numpy(OBLIQUE)
    stored = torch.from_numpy(np.ascontiguousarray(turned(mask)))
    other = MetaTensor(stored[None] if channel else stored, affine=here @ torch.from_numpy(affine))
    values = MetaTensor(100 * torch.rand(1, 12, 10, 8), affine=here)
    np.testing.assert_array_equal(images.spatial_array(other, "mask", values).numpy(), mask)
    result = NonLocalMeans(20.0, method="classic")(values, mask=other)
    changed = (result != values).numpy()[0]
    assert not changed[~mask].any()
    assert changed[mask].any()


def test_a_mask_of_another_grid_is_refused_with_the_difference() -> None:
    values = MetaTensor(torch.rand(1, 12, 10, 8), affine=torch.from_numpy(OBLIQUE))
    mask = MetaTensor(torch.ones(1, 12, 10, 8), affine=torch.diag(torch.tensor([9.0, 9, 9, 1])))
    with pytest.raises(
        ValueError, match=r"mask has another grid than the image: voxels of .* put ResampleToMatch\(d\)"
    ):
        NonLocalMeans(5.0, method="classic")(values, mask=mask)
    nowhere = MetaTensor(torch.ones(1, 12, 10, 8))  # the identity, which MONAI makes up
    for plain in (nowhere, torch.ones(12, 10, 8), np.ones((12, 10, 8))):
        assert images.spatial_array(plain, "mask", values).shape == (12, 10, 8)
