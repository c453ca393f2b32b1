from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.data import get_track_meta, set_track_meta

from tests.monai_transforms.scans import SHAPE
from tests.nlmeans.scans import noisy, save, scan


@pytest.fixture(scope="session")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Write three scans to disk; return them as a data list for MONAI."""
    folder = tmp_path_factory.mktemp("scans")
    paths = [save(scan(noisy(*SHAPE, seed=n), "int16"), folder / f"scan{n}.nii.gz") for n in range(3)]
    return [{"image": str(path)} for path in paths]


@pytest.fixture
def item(items: list[dict[str, str]]) -> dict[str, str]:
    return items[0]


@pytest.fixture
def path(item: dict[str, str]) -> Path:
    return Path(item["image"])


@pytest.fixture(params=[True, False], ids=["tracked", "untracked"])
def tracked(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Run the test with tracked metadata, then without."""
    before = get_track_meta()
    set_track_meta(request.param)
    yield request.param
    set_track_meta(before)
