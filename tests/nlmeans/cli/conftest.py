"""Files that the command line reads and writes, and a method that another package registers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nlmeans
from tests.nlmeans.cli.calls import SHAPE
from tests.nlmeans.scans import (
    NIFTI,
    RAS,
    contents,
    noisy,
    save,
    scan,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(scan(noisy(*SHAPE), "i2"), tmp_path / "in.nii.gz")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.nii.gz"


@pytest.fixture
def old(source: Path, target: Path) -> Iterator[None]:
    """Outputs of an earlier run, which a failing run must not change."""
    for path in (target, target.with_name("out.json"), target.with_name("out.png")):
        path.write_text("old")
    before = contents(source.parent)
    yield
    assert contents(source.parent) == before


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one good file and many that cannot be denoised."""
    folder = tmp_path_factory.mktemp("wrong")
    good = save(scan(noisy(*SHAPE), "i2"), folder / "good.nii.gz")
    packed = save(scan(noisy(*SHAPE), "f4"), folder / "whole.nii.gz").read_bytes()
    plain = save(scan(noisy(*SHAPE), "f4"), folder / "whole.nii").read_bytes()
    (folder / "short.nii.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "short.nii").write_bytes(plain[: len(plain) // 2])
    (folder / "checksum.nii.gz").write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    (folder / "hole.nii.gz").write_bytes(packed[:2000] + bytes(200) + packed[2200:])
    (folder / "text.nii.gz").write_text("a letter\nof two lines")
    (folder / "folder.nii").mkdir()
    (folder / "link.nii.gz").symlink_to(good)
    (folder / "old.json").write_text("{}")

    def image(data: npt.NDArray[Any], name: str) -> None:
        save(NIFTI.Nifti1Image(data, RAS), folder / name)

    image(np.where(np.arange(12) == 6, np.inf, noisy(*SHAPE)).astype("f4"), "inf.nii")
    image(np.ones(20, "f4"), "line.nii")
    image(np.ones((3, 3, 3, 1, 2), "f4"), "five.nii")
    image(np.ones((3, 0, 3), "f4"), "empty.nii")
    image(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours.nii")
    image(noisy(*SHAPE).astype("c8"), "complex.nii")
    save(scan(np.ones((10, 11, 11), "u1")), folder / "mask.nii")
    image(np.zeros(SHAPE, "u1"), "zeros.nii")
    save(scan(np.full(SHAPE, -1, "i2")), folder / "below.nii")
    return folder


@pytest.fixture
def twice() -> Iterator[str]:
    """A method that another package registers once all modules are imported."""
    method = dataclasses.replace(nlmeans.METHODS["classic"], summary="the method classic by another name")
    nlmeans.METHODS["twice"] = method
    yield "twice"
    del nlmeans.METHODS["twice"]
