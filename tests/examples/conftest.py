"""The modules of the segmentation example, and a small data set."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "segmentation"
MODULES = tuple(path.stem for path in sorted(FOLDER.glob("*.py")))


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """The scripts, as when one of them is run; their short names are not left behind for other tests."""
    pytest.importorskip("ignite", reason="the example trains with MONAI and ignite")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def parts(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("data")
    example.phantoms.write(folder, count=6, noise=10, seed=0)
    found, _ = example.pairs.find(folder)
    return example.pairs.split(found, seed=0)
