"""Many runs of varied settings in one process: memory, threads and files stay as they are."""

from __future__ import annotations

import gc
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nlmeans import cli, denoise, load_image, save_image
from nlmeans.files.denoise import denoise_file
from nlmeans.files.formats import nifti
from tests.nlmeans import cohorts
from tests.nlmeans.cohorts import write_dataset
from tests.nlmeans.scans import RAS, contents, noisy, save, scan
from tests.soak import assert_nothing_stays, rounds

pytestmark = pytest.mark.usefixtures("plain_pictures")

SHAPES = ((18, 20, 22), (40, 41), (12, 13, 14, 3))
DTYPES = ("float32", "int16", "float64", "uint8")
METHODS = ("classic", "patchwise", "linear", "stochastic", "dct", "wiener", "bayes", "best", "auto")
NOISES = ("gaussian", "rician", "poisson")
QUICK = ("classic", "dct", "wiener")

VARIED = [
    {"method": method, "noise": noise, "sigma": sigma, "memory": memory}
    for method, noise, (sigma, memory) in zip(
        METHODS * 3,
        [noise for noise in NOISES for _ in METHODS],
        itertools.cycle([(None, None), (10.0, "20MB"), (5.0, None)]),
        strict=False,
    )
]


@pytest.fixture(autouse=True)
def without_what_is_there_before() -> None:
    """Only what these tests make is looked through again and again."""
    gc.collect()
    gc.freeze()


def volume(index: int) -> Any:
    shape = SHAPES[index % len(SHAPES)]
    data = noisy(*shape[:3], seed=index) if len(shape) > 2 else noisy(*shape, 1, seed=index)[..., 0]
    if len(shape) == 4:
        data = np.stack([data] * shape[3], -1)
    return np.clip(data, 0, 255).astype(DTYPES[index % len(DTYPES)])


def test_arrays(request: pytest.FixtureRequest) -> None:
    varied = VARIED if rounds(request, 0, 1) else [how for how in VARIED if how["method"] in QUICK]

    def run(index: int) -> None:
        data = volume(index)
        denoise(data, **varied[index % len(varied)], search_radius=2, series=-1 if data.ndim == 4 else None)

    assert_nothing_stays(run, rounds(request, len(varied), 2 * len(varied)), rounds(request, 20, 200))


def test_files(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    sources = [
        save(scan(noisy(10, 11, 12, seed=index), dtype, RAS), tmp_path / f"{index}.nii{'.gz' * (index % 2)}")
        for index, dtype in enumerate(("i2", "f4", "u1", "f8"))
    ]

    def run(index: int) -> None:
        picture = tmp_path / "out.png" if index % 3 == 0 else None
        how = {"method": QUICK[index % len(QUICK)], "search_radius": 1, "device": "cpu"}
        denoise_file(sources[index % 4], tmp_path / "out.nii.gz", picture=picture, overwrite=True, **how)

    assert_nothing_stays(run, rounds(request, 4, 20), rounds(request, 12, 200))
    assert len(contents(tmp_path)) == len(sources) + 3


def test_formats(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for library in ("SimpleITK", "tifffile"):
        pytest.importorskip(library)
    image = nifti.in_nifti(noisy(10, 11, 12).astype("f4"), RAS)
    endings = (".nrrd", ".mhd", ".mgz", ".ome.tif", ".npy", ".hdr", ".tif", ".nhdr")
    sources = [tmp_path / f"in{number}{ending}" for number, ending in enumerate(endings)]
    for source in sources:
        save_image(image, source)

    def run(index: int) -> None:
        target = tmp_path / f"out{endings[(3 * index + 1) % len(endings)]}"
        denoise_file(sources[index % len(endings)], target, overwrite=True, method="classic", device="cpu")
        save_image(load_image(target), tmp_path / f"again{endings[index % len(endings)]}", overwrite=True)

    assert_nothing_stays(run, rounds(request, 8, 40), rounds(request, 16, 200))


def test_a_bids_app(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dataset = write_dataset(tmp_path / "data", 1)

    def run(index: int) -> None:
        if index % 2:  # otherwise everything was finished before
            shutil.rmtree(tmp_path / "out")
        words = ["bids", dataset, tmp_path / "out", "participant", *cohorts.QUICK]
        assert CliRunner().invoke(cli.main, [str(word) for word in words]).exit_code == 0

    assert_nothing_stays(run, rounds(request, 4, 20), rounds(request, 8, 20))  # see the known limits in docs/trust.md


def test_a_zarr_stream(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("zarr")
    from nlmeans import denoise_zarr
    from tests.nlmeans import zarrs

    volume, times = zarrs.noisy(12, 16, 16), zarrs.noisy(3, 6, 16, 16)
    sources = [zarrs.save(tmp_path / "a.zarr", volume, "zyx"), zarrs.save(tmp_path / "b.zarr", times, "tzyx")]

    def run(index: int) -> None:
        denoise_zarr(sources[index % 2], tmp_path / "out.zarr", overwrite=True, **zarrs.SAME)

    assert_nothing_stays(run, rounds(request, 6, 30), rounds(request, 12, 150))
