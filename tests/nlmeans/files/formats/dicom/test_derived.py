"""A derived series goes only where nothing else lies. What it holds is tested in test_series and test_frames."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("highdicom")

from nlmeans.files.formats.dicom.derived import check_series_folder, padded
from tests.nlmeans.scans import noisy


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    source, folder = tmp_path / "in", tmp_path / "out"
    for path in (source, folder):
        path.mkdir()
    check_series_folder(folder, source, overwrite=False)
    (folder / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        check_series_folder(folder, source, overwrite=False)
    with pytest.raises(FileExistsError, match=r"holds more than a DICOM series, such as mine\.txt"):
        check_series_folder(folder, source, overwrite=True)
    with pytest.raises(ValueError, match="must lie outside IN"):
        check_series_folder(source / "out", source, overwrite=False)


def test_pixels_have_an_even_number_of_bytes() -> None:
    assert len(padded(noisy(3, 3, 3).astype("u1"))) == 28
