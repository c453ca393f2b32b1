"""Volumes that are read by slicing, and may be larger than memory, give the results of arrays in memory."""

from __future__ import annotations

import json
import math
import sys
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
import zarr

from nlmeans import Settings, denoise, estimate_sigma, preview, usual_h
from nlmeans.core.arrays import readable
from nlmeans.core.layout import Layout
from nlmeans.core.tiles import piece
from nlmeans.engine import pieces
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.survey import Facts
from nlmeans.noise.search.estimate import sigma_levels
from tests.nlmeans.volumes import SINGLE, gaussian, piecewise

SIGMA = 10.0
MEMORY = 16 * 2**20


class Slices:
    """Array that can only be sliced, and counts how many values were read."""

    def __init__(self, values: Any, most: float = math.inf) -> None:
        self.values, self.most, self.read = values, most, 0
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: Any) -> Any:
        piece = self.values[key].copy()
        assert piece.size <= self.most, f"{piece.size} voxels at once"
        self.read += piece.size
        return piece

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("read all at once")


def volume(*shape: int, dtype: str = "float32") -> Any:
    return np.clip(gaussian(piecewise(*shape), SIGMA), 0, None).astype(dtype)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGEST_PIECE", 2000)


@pytest.mark.parametrize("method", SINGLE)
def test_every_method_gives_the_same(method: str) -> None:
    noisy = volume(14, 40, 30)
    expected = denoise(noisy, method=method, search_radius=2)
    result = denoise(Slices(noisy), method=method, search_radius=2, memory=MEMORY)
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, expected, atol=1e-6 * np.ptp(noisy))


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": "rician"},
        {"noise": "poisson"},
        {"noise": "curve"},
        {"noise": "curve", "curve": [(0, 5), (200, 25)]},
        {"noise": "poisson", "sigma": 3.0, "gain": 2.0, "offset": 5.0},
        {"despeckle": True},
        {"h": 9.0},
        {"sigma": SIGMA, "dtype": "float64"},
        {"mask": Slices(piecewise(12, 16, 20) > 50)},
        {"mask": Slices(piecewise(12, 16, 20) > 50), "sigma": Slices(5 + piecewise(12, 16, 20) / 40)},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "uint16", "int32", "float64"])
def test_with_any_settings_and_types(dtype: str, settings: dict[str, Any]) -> None:
    noisy = volume(12, 16, 20, dtype=dtype)
    inside = {name: given.values for name, given in settings.items() if isinstance(given, Slices)}
    expected = denoise(noisy, method="wiener", search_radius=2, **{**settings, **inside})
    result = denoise(Slices(noisy), method="wiener", search_radius=2, **settings)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((40, 50), {}),
        ((3, 12, 16, 20), {"channels": 0}),
        ((12, 16, 20, 2), {"series": -1}),
        ((2, 12, 16, 20, 3), {"channels": -1, "series": 0}),
        ((30, 3, 40), {"channels": 1}),
    ],
)
def test_with_any_axes(shape: tuple[int, ...], axes: dict[str, int]) -> None:
    noisy = 100 + SIGMA * np.random.default_rng(0).standard_normal(shape)
    expected = denoise(noisy, method="classic", search_radius=2, **axes)
    np.testing.assert_array_equal(denoise(Slices(noisy), method="classic", search_radius=2, **axes), expected)
    np.testing.assert_array_equal(estimate_sigma(Slices(noisy), **axes), estimate_sigma(noisy, **axes))


def test_previews_and_the_strength_are_the_same() -> None:
    noisy = volume(14, 20, 30)
    np.testing.assert_array_equal(preview(Slices(noisy), 7, 1), preview(noisy, 7, 1))
    assert usual_h(Slices(noisy), method="classic") == usual_h(noisy, method="classic")


def test_with_sigma_and_h_a_preview_reads_no_more_than_its_slab() -> None:
    noisy = Slices(volume(60, 20, 30))
    preview(noisy, 30, sigma=SIGMA, h=SIGMA, method="classic", search_radius=2)
    assert noisy.read <= 2 * 9 * 20 * 30 + 1  # 4 slices on either side, once for the survey and once to denoise


def test_the_values_are_read_once_to_look_and_once_in_tiles() -> None:
    noisy = Slices(volume(12, 100, 120))
    denoise(noisy, SIGMA, method="classic", search_radius=1)
    assert noisy.read == 2 * noisy.values.size + 1  # one voxel tells the type


def test_no_piece_is_larger_than_memory_allows() -> None:
    noisy = volume(60, 120, 100)
    limited = Slices(noisy, most=MEMORY / 40)
    result = denoise(limited, SIGMA, method="classic", search_radius=1, memory=MEMORY)
    expected = denoise(noisy, SIGMA, method="classic", search_radius=1)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6 * np.ptp(noisy))
    sigma = sigma_levels(readable(limited, "volume"), 0, Layout.of(noisy, None, None), "gaussian", None, MEMORY)
    assert sigma == pytest.approx([SIGMA], rel=0.1)


@pytest.mark.parametrize("kind", ["memmap", "zarr", "NIfTI", "scaled NIfTI"])
def test_arrays_in_files(kind: str, tmp_path: Path) -> None:
    noisy = volume(20, 24, 28, dtype="int16")
    stored: Any
    if kind == "memmap":
        stored = np.memmap(tmp_path / "volume.raw", noisy.dtype, "w+", shape=noisy.shape)
        stored[...] = noisy
    elif kind == "zarr":
        stored = zarr.create_array(tmp_path / "volume.zarr", data=noisy, chunks=(8, 8, 8), shards=(16, 16, 16))
    else:
        image = nib.Nifti1Image(noisy, np.eye(4))
        if kind == "scaled NIfTI":
            image.header.set_slope_inter(0.5, 10)
        nib.save(image, tmp_path / "volume.nii")
        stored = nib.load(tmp_path / "volume.nii").dataobj
        noisy = np.asarray(stored)
    result = denoise(stored, method="classic", search_radius=1)
    assert type(result) is np.ndarray
    assert result.dtype == noisy.dtype
    np.testing.assert_array_equal(result, denoise(noisy, method="classic", search_radius=1))
    np.testing.assert_array_equal(stored, noisy)


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process tells its own memory from that of maps")
def test_a_memory_map_is_denoised_into_another_within_the_memory_allowed(tmp_path: Path) -> None:
    """64 MB are denoised into 64 MB with 20 MB. A first run loads all else that takes memory, such as compiled code."""
    quick: dict[str, Any] = {"sigma": SIGMA, "method": "classic", "h": 8.0, "search_radius": 1, "memory": "20MB"}
    noisy, out = (np.memmap(tmp_path / name, np.float32, "w+", shape=(100, 400, 400)) for name in ("in", "out"))
    noisy[...] = volume(1, 400, 400)
    denoise(noisy[:20], **quick, out=out[:20])
    process, peak, done = psutil.Process(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            memory = process.memory_info()
            peak = max(peak, memory.rss - memory.shared)

    before = process.memory_info()
    watcher = threading.Thread(target=watch)
    watcher.start()
    denoise(noisy, **quick, out=out)
    done.set()
    watcher.join()
    assert 0 < peak - (before.rss - before.shared) < 40e6
    np.testing.assert_allclose(out[50], denoise(noisy[40:61], **quick)[10], rtol=0, atol=1e-6 * np.ptp(noisy))


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_what_is_not_finite_is_found_in_any_piece(bad: float) -> None:
    noisy = volume(14, 40, 30)
    noisy[-1, -1, -1] = bad
    with pytest.raises(ValueError, match="volume contains infinite values"):
        denoise(Slices(noisy), SIGMA)


def test_a_map_needs_all_of_the_volume() -> None:
    with pytest.raises(ValueError, match="a map of sigma needs the whole volume in memory"):
        denoise(Slices(volume(14, 20, 30)), "map")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 0, 4)), "volume has shape .* no voxels"),
        (np.zeros((4, 4), complex), "volume has dtype complex128"),
        (np.zeros((4, 4), "U1"), "volume has dtype <U1"),
    ],
)
def test_what_is_no_volume_is_refused(values: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        denoise(Slices(values))


# ---------------------------------------------------------------- where the result goes


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("kind", ["numpy", "torch", "memmap", "zarr"])
def test_the_result_can_be_written_where_it_is_wanted(kind: str, dtype: str, tmp_path: Path) -> None:
    noisy = volume(20, 24, 28, dtype="int16")
    out: Any = np.zeros(noisy.shape, dtype)
    if kind == "torch":
        out = torch.from_numpy(out)
    elif kind == "memmap":
        out = np.memmap(tmp_path / "out.raw", dtype, "w+", shape=noisy.shape)
    elif kind == "zarr":
        out = zarr.create_array(tmp_path / "out.zarr", shape=noisy.shape, dtype=dtype, chunks=(8, 10, 12))
    quick: dict[str, Any] = {"sigma": SIGMA, "method": "classic", "search_radius": 1}
    assert denoise(noisy, **quick, out=out) is out
    exact = denoise(noisy, **quick, dtype="float64")
    np.testing.assert_allclose(np.asarray(out[...]), exact if "float" in dtype else np.rint(exact), rtol=1e-6)


class Chunked:
    """Array with chunks that counts how often each of them is written to."""

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        self.shape, self.chunks, self.dtype = shape, chunks, np.dtype("float32")
        self.writes = np.zeros([math.ceil(n / size) for n, size in zip(shape, chunks, strict=True)], int)

    def __setitem__(self, key: Any, value: Any) -> None:
        assert value.shape == tuple(len(range(n)[part]) for n, part in zip(self.shape, key, strict=True))
        touched = (
            slice(part.start // size, -(-part.stop // size)) for part, size in zip(key, self.chunks, strict=True)
        )
        self.writes[tuple(touched)] += 1


@pytest.mark.parametrize("chunks", [(8, 16, 10), (64, 5, 7), (1, 200, 200)])
def test_no_chunk_is_written_twice(chunks: tuple[int, ...]) -> None:
    noisy = volume(20, 100, 120)
    out = Chunked(noisy.shape, chunks)
    denoise(noisy, SIGMA, method="classic", search_radius=1, memory=MEMORY, out=out)
    assert (out.writes == 1).all()


def test_a_chunk_that_does_not_fit_is_written_in_several_steps() -> None:
    noisy = volume(20, 100, 120)
    out = Chunked(noisy.shape, noisy.shape)
    denoise(noisy, SIGMA, method="classic", search_radius=1, memory=MEMORY, out=out)
    assert out.writes.max() > 1


NOISY = volume(6, 7, 8)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ("out.npy", TypeError, "out is a str; give an array"),
        (np.zeros((6, 7, 9)), ValueError, r"out has shape \(6, 7, 9\), but the result has \(6, 7, 8\)"),
        (np.zeros((6, 7, 8), np.int16), ValueError, "out has dtype int16, which does not hold all values of float32"),
        (NOISY, ValueError, "out is the volume itself"),
        (NOISY[::-1], ValueError, "out is the volume itself"),
    ],
)
def test_where_the_result_cannot_go(out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        denoise(NOISY, SIGMA, out=out)


def test_out_and_dtype_must_not_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="out has dtype float32, but dtype='float64' was asked for"):
        denoise(NOISY, SIGMA, dtype="float64", out=np.zeros_like(NOISY))


# ---------------------------------------------------------------- recorded facts


def test_a_recorded_survey_serves_as_well_as_another_one() -> None:
    noisy = volume(14, 40, 30)
    layout = Layout.of(noisy, None, None)
    choices = Choices.of(Settings(method="bayes", search_radius=2), layout)
    plan = Plan.of(noisy, 0, layout, choices)
    facts = Facts.from_dict(json.loads(json.dumps(plan.facts.to_dict())))
    assert facts == plan.facts
    whole = plan.run(layout.everywhere)
    source = Slices(noisy)
    again = Plan.of(source, 0, layout, choices, facts=facts)
    assert source.read == 0
    region = piece([slice(3, 9), slice(11, 30), slice(0, 17)])
    part = np.empty_like(noisy[region])
    again.run(region, into=part)
    np.testing.assert_allclose(part, whole[region], atol=1e-6 * np.ptp(noisy))
