"""Odd files at the four doors; `wall` is the table of what must come of each."""

from __future__ import annotations

from pathlib import Path

import pytest

for package in ("pydicom", "highdicom", "SimpleITK", "tifffile", "zarr", "h5py"):
    pytest.importorskip(package)

from tests.real_files import doors  # noqa: E402  # need the packages above
from tests.real_files.cases import Case  # noqa: E402
from tests.real_files.wall import WALL  # noqa: E402

every_case = pytest.mark.parametrize("case", WALL, ids=[case.name for case in WALL])

pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning",  # of nibabel, which leaves PAR/REC open
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::UserWarning:pydicom",
)


@every_case
def test_command_line(case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    doors.by_command_line(case.build(tmp_path), tmp_path, case.outcome, caplog)


@every_case
def test_python(case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    doors.by_python(case.build(tmp_path), tmp_path, case.python or case.outcome, caplog)


@every_case
def test_monai(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    doors.by_monai(case.build(tmp_path), tmp_path, case.of_reader(case.monai))


@every_case
def test_napari(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("napari")
    doors.by_napari(case.build(tmp_path), tmp_path, case.of_reader(case.napari))
