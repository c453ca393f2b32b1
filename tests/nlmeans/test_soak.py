"""Many runs of varied settings in one process: memory, threads and files stay as they are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlmeans import denoise
from nlmeans.files.denoise import denoise_file
from tests.nlmeans.scans import RAS, contents, noisy, save, scan
from tests.soak import assert_nothing_stays, rounds

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
