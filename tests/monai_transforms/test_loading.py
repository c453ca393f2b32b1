"""Tests of the transforms on files: in caching datasets, in the workers of loaders, and from a bundle."""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, SmartCacheDataset, ThreadDataLoader
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandFlipd

import nlmeans
from monai_transforms import NonLocalMeansd, RandNonLocalMeansd
from nlmeans.kernels import turns
from nlmeans.operator import cpu
from tests.monai_transforms.scans import SHAPE

pytestmark = pytest.mark.usefixtures("two_threads")

Items = list[dict[str, str]]


def pipeline(*after: Any, **arguments: Any) -> Compose:
    denoise = NonLocalMeansd("image", **{"method": "classic", "spacing": "affine"} | arguments)
    return Compose([LoadImaged("image"), EnsureChannelFirstd("image"), denoise, *after])


def plain(items: Any) -> list[torch.Tensor]:
    return [item["image"].as_tensor() for item in items]


def single(loader: Any) -> list[torch.Tensor]:
    """Return the only image of each batch."""
    return [batch[0] for batch in plain(loader)]


@pytest.fixture
def expected(items: Items) -> list[torch.Tensor]:
    return plain(map(pipeline(), items))


def alike(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return len(found) == len(expected) and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_cache_dataset_holds_what_it_makes(items: Items, expected: list[torch.Tensor]) -> None:
    data = CacheDataset(items, pipeline(RandFlipd("image", prob=0.0)), num_workers=2, progress=False)
    for held, wanted in zip(data._cache, expected, strict=True):
        assert torch.equal(held["image"].as_tensor(), wanted)
    assert alike(plain(data), expected)
    assert data[0]["image"].affine.tolist() == pipeline()(items[0])["image"].affine.tolist()


def test_a_smart_cache_dataset_renews_what_it_holds(items: Items, expected: list[torch.Tensor]) -> None:
    data = SmartCacheDataset(items, pipeline(), replace_rate=0.5, cache_num=2, progress=False, shuffle=False)
    assert alike(plain(data), expected[:2])
    data.start()
    data.update_cache()
    assert alike(plain(data), expected[1:])
    data.shutdown()


KEEPS_META: dict[str, Any] = (
    {"track_meta": True, "weights_only": False}
    if "track_meta" in inspect.signature(PersistentDataset).parameters  # since MONAI 1.6
    else {}
)


def test_a_persistent_dataset_keeps_what_it_makes(items: Items, expected: list[torch.Tensor], tmp_path: Path) -> None:
    for _ in range(2):
        data = PersistentDataset(items, pipeline(), tmp_path, hash_transform=pickle_hashing, **KEEPS_META)
        assert alike([torch.as_tensor(item["image"]) for item in data], expected)
        if KEEPS_META:
            assert data[0]["image"].affine.tolist() == pipeline()(items[0])["image"].affine.tolist()
        assert len(list(tmp_path.iterdir())) == len(items)


@pytest.mark.parametrize(
    "changed",
    [{"sigma": 10.0}, {"method": "dct"}, {"spacing": None}, {"dtype": "float64"}, {"channel_wise": False}],
    ids=str,
)
def test_a_changed_parameter_makes_a_persistent_dataset_anew(
    items: Items, tmp_path: Path, changed: dict[str, Any]
) -> None:
    for number, transform in enumerate((pipeline(), pipeline(**changed), pipeline())):
        data = PersistentDataset(items[:1], transform, tmp_path, hash_transform=pickle_hashing)
        wanted = transform(items[0])["image"].as_tensor()
        assert torch.equal(torch.as_tensor(data[0]["image"]), wanted)
        assert len(list(tmp_path.iterdir())) == min(number + 1, 2)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_loader_give_the_same(items: Items, expected: list[torch.Tensor], start: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    loader = DataLoader(Dataset(items, pipeline()), num_workers=1, multiprocessing_context=start)
    assert alike(single(loader), expected)


@pytest.mark.parametrize("use_thread_workers", [False, True])
def test_a_thread_loader_gives_the_same(items: Items, expected: list[torch.Tensor], use_thread_workers: bool) -> None:
    loader = ThreadDataLoader(
        Dataset(items, pipeline()),
        num_workers=1,
        use_thread_workers=use_thread_workers,
    )
    assert alike(single(loader), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_augmentation_in_workers_repeats_with_its_seed_and_differs_between_images(items: Items) -> None:
    def run() -> list[torch.Tensor]:
        torch.manual_seed(0)
        augment = pipeline(RandNonLocalMeansd("image", prob=1.0, sigma=4.0, method="classic"), h=1e-3)
        augment.set_random_state(seed=1)
        same = Dataset([items[0]] * 4, augment)
        return single(DataLoader(same, num_workers=1, multiprocessing_context="fork"))

    first = run()
    assert alike(first, run())
    assert len({float(result.std()) for result in first}) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_worker_computes_with_one_thread(items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def note(what: str, fact: object) -> None:
        with (tmp_path / f"{os.getpid()} {what}").open("a") as file:
            print(fact, file=file)

    class Counted(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            note("operator", threads)
            super().__init__(threads)

    def work_off(*given: Any) -> None:
        note("groups", threading.get_ident())
        in_turn(*given)

    in_turn = turns.work_off
    monkeypatch.setattr(cpu, "ThreadPoolExecutor", Counted)
    monkeypatch.setattr(turns, "work_off", work_off)
    data = Dataset(items[:1], pipeline(method="bayes"))
    wanted = data[0]["image"].as_tensor()
    found = single(DataLoader(data, num_workers=1, multiprocessing_context="fork"))
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-3)
    seen = {tuple(path.name.split()): set(path.read_text().split()) for path in tmp_path.iterdir()}
    ours = str(os.getpid())
    assert seen.pop((ours, "operator")) == {"2"}
    assert len(seen.pop((ours, "groups"))) > 1
    assert len(seen) == 2  # of one worker
    worker = {what: facts for (_, what), facts in seen.items()}
    assert worker.pop("operator") == {"1"}
    assert [(what, len(facts)) for what, facts in worker.items()] == [("groups", 1)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_cuda_in_a_forked_worker_is_an_error_that_names_the_cures(
    items: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()

    def init() -> None:  # behaves like torch in a child of a process that has used CUDA
        if os.getpid() != parent:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, …")

    monkeypatch.setattr("nlmeans.engine.settings.checked_device", lambda device: device)
    monkeypatch.setattr(torch.cuda, "init", init)
    data = Dataset(items, pipeline(device="cuda"))
    cures = (
        r"device='cuda' cannot be used in a forked worker.*CacheDataset.*ThreadDataLoader.*num_workers=0.*spawn.*cpu"
    )
    with pytest.raises(RuntimeError, match=f"(?s){cures}"):
        next(iter(DataLoader(data, num_workers=1, multiprocessing_context="fork")))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_computes_and_the_result_is_where_the_image_was(items: Items, expected: list[torch.Tensor]) -> None:
    data = Dataset(items, pipeline(device="cuda"))
    threads = ThreadDataLoader(data, num_workers=1, use_thread_workers=True)
    for results in (plain(data), single(threads)):
        for found, wanted in zip(results, expected, strict=True):
            assert found.device.type == "cpu"
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)
    with pytest.raises(RuntimeError, match="cannot be used in a forked worker of a process that uses CUDA"):
        next(iter(DataLoader(data, num_workers=1, multiprocessing_context="fork")))


def test_a_bundle_file_runs(items: Items, expected: list[torch.Tensor], tmp_path: Path) -> None:
    config = {
        "imports": ["$import glob"],
        "key": "image",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@key"},
                {
                    "_target_": "monai_transforms.NonLocalMeansd",
                    "keys": "@key",
                    "method": "classic",
                    "spacing": "affine",
                },
            ],
        },
        "dataset": {"_target_": "CacheDataset", "data": items, "transform": "@preprocessing", "progress": False},
    }
    file = tmp_path / "inference.json"
    file.write_text(json.dumps(config))
    parser = ConfigParser()
    parser.read_config(file)
    assert alike(plain(parser.get_parsed_content("dataset")), expected)


def test_the_result_is_the_engines(items: Items, expected: list[torch.Tensor]) -> None:
    loaded = LoadImaged("image")(items[0])["image"]
    spacing = tuple(float(size) for size in loaded.pixdim)
    assert expected[0].shape == (1, *SHAPE)
    assert torch.equal(expected[0][0], nlmeans.denoise(loaded.as_tensor(), method="classic", spacing=spacing))
