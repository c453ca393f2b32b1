"""Damaged OME-Zarr images are denoised, or refused by name with nothing left behind."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("zarr")

from nlmeans.files.zarr.denoise import denoise_zarr
from tests.nlmeans.hostile import damaged, refusal
from tests.nlmeans.zarrs import SAME, level, noisy, save

SHAPE = (10, 12, 14)

CASES = 4

VALUES: tuple[Any, ...] = (None, True, 0, -1, 1, 3, 0.5, 1e308, float("nan"), 2**31, 2**63, "", "x", "0", "NaN", "..")
VALUES += ("/etc", "full", "y", "space", "float32", ">f4", "bytes", "zstd", "F", "0.4", [], [1], [1, 2, 3], [[]], {})

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    version = request.param
    return save(tmp_path_factory.mktemp(version) / "in.ome.zarr", noisy(*SHAPE, dtype="u2"), "zyx", version=version)


def fields(document: Any) -> Iterator[tuple[Any, Any]]:
    """List every object and list in a document, with each of its keys or indices."""
    for key, value in list(document.items() if isinstance(document, dict) else enumerate(document)):
        yield document, key
        if isinstance(value, dict | list):
            yield from fields(value)


def lying(raw: bytes, chance: random.Random) -> bytes:
    """Delete or change one to three fields of a document."""
    document = json.loads(raw)
    for _ in range(chance.randint(1, 3)):
        if found := list(fields(document)):
            holder, key = chance.choice(found)
            if chance.random() < 0.25:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(chance.choice(VALUES))
    return json.dumps(document).encode()


@given(seeds)
def test_it_is_refused_by_name_or_denoised(source: Path, seed: int) -> None:
    chance = random.Random(seed)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    documents = [path for path in files if path.name.startswith((".z", "zarr"))]
    target = source.with_name("out.ome.zarr")
    for _ in range(CASES):
        lies = chance.random() < 0.6
        file = chance.choice(documents if lies else files)
        raw = file.read_bytes()
        bad = lying(raw, chance) if lies else damaged(raw, chance)
        file.write_bytes(bad)
        try:
            said = refusal(lambda: denoise_zarr(source, target, **SAME))
            assert file.read_bytes() == bad
        finally:
            file.write_bytes(raw)
        if said:
            assert str(source) in said
        else:
            assert np.isfinite(level(target)).all()
            shutil.rmtree(target)
        assert [path.name for path in source.parent.iterdir()] == ["in.ome.zarr"]
