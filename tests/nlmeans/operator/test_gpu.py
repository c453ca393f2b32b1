"""The `gpu` backend beside `loop` in float64, on a CUDA device where there is one, else in Triton's interpreter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton", "3.3", reason="the gpu backend needs triton 3.3 or newer")

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Cancelled
from nlmeans.operator import gpu
from nlmeans.operator.gpu import GPU, Tile
from nlmeans.operator.loop import LOOP
from nlmeans.operator.request import Request

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def request(
    shape: Axes,
    patch_radius: Axes = (0, 0, 0),
    search_radius: Axes = (1, 1, 1),
    *,
    channels: int = 1,
    features: int = 0,
    falloff: float = 0.7,
    offset: float = 0.0,
    maps: str = "",
    center: str = "one",
) -> Request:
    """A random request; without `features` the image guides itself."""
    random = torch.Generator().manual_seed(0)
    padded = [n + 2 * (p + s) for n, p, s in zip(shape, patch_radius, search_radius, strict=True)]
    image = torch.randn(channels, *padded, generator=random).to(DEVICE)
    guide = torch.randn(features, *padded, generator=random).to(DEVICE) if features else image
    slope, level = torch.tensor(falloff, device=DEVICE), torch.tensor(offset, device=DEVICE)
    if "falloff" in maps:
        slope = slope * (0.5 + torch.rand(shape, generator=random).to(DEVICE))
    if "offset" in maps:
        level = level * (0.5 + torch.rand(shape, generator=random).to(DEVICE))
    return Request(image, guide, slope, level, patch_radius, search_radius, center)


def reference(of: Request) -> torch.Tensor:
    image = of.image.double()
    guide = image if of.guide is of.image else of.guide.double()
    wide = dataclasses.replace(of, image=image, guide=guide, falloff=of.falloff.double(), offset=of.offset.double())
    return LOOP.run(wide)


def error(of: Request) -> float:
    assert GPU.refusal(of) == ""
    expected = reference(of)
    result = GPU.run(of)
    assert result.dtype == of.image.dtype
    return float((result.double() - expected).norm() / expected.norm())


CASES: dict[str, Request] = {
    "radius 0": request((2, 5, 9)),
    "radius 1": request((2, 5, 9), (1, 1, 1)),
    "radius 2": request((1, 2, 5), (2, 2, 2)),
    "radius 3": request((1, 1, 5), (3, 3, 3), (0, 0, 1)),
    "patch in a plane": request((2, 3, 9), (0, 1, 1)),
    "patch along z": request((3, 3, 9), (1, 0, 0)),
    "patch along x": request((2, 2, 9), (0, 0, 2)),
    "2D": request((1, 18, 33), (0, 1, 1), (0, 1, 2)),
    "2D, radius 0": request((1, 5, 40), (0, 0, 0), (0, 2, 2)),
    "window 1 × 1 × 7": request((2, 3, 9), (0, 0, 0), (0, 0, 3)),
    "window 7 × 1 × 1": request((2, 3, 9), (0, 0, 0), (3, 0, 0)),
    "window 1 × 7 × 1": request((2, 3, 9), (0, 0, 0), (0, 3, 0)),
    "search radius 0": request((2, 3, 9), (1, 1, 1), (0, 0, 0)),
    "one voxel": request((1, 1, 1), (1, 1, 1)),
    "one column": request((3, 1, 1)),
    "two warps of lanes": request((1, 2, 61), (0, 1, 1), (0, 1, 1)),
    "tiles moved inside": request((3, 21, 4), search_radius=(0, 1, 0)),
    "guide": request((2, 3, 9), (0, 0, 0), features=1),
    "two features held": request((2, 3, 9), features=2, center="max"),
    "five features, not held": request((2, 3, 9), (0, 1, 1), features=5, center="max"),
    "three channels guide themselves": request((2, 3, 9), channels=3),
    "five channels, one guide": request((2, 3, 9), channels=5, features=1, center="zero"),
    "six channels and features": request((1, 3, 9), (0, 1, 1), channels=6),
    "offset": request((2, 3, 9), offset=1.0, center="max"),
    "offset, radius 1": request((2, 3, 9), (1, 1, 1), offset=1.5),
    "falloff map": request((3, 3, 9), maps="falloff"),
    "offset map": request((3, 3, 9), offset=1.0, maps="offset", center="zero"),
    "both maps": request((3, 5, 5), search_radius=(0, 1, 1), offset=1.0, maps="falloff offset", center="max"),
    "center max": request((2, 5, 9), center="max"),
    "center zero": request((2, 3, 9), (1, 1, 1), center="zero"),
    "center zero, window of one voxel": request((2, 3, 9), search_radius=(0, 0, 0), center="zero"),
    "at least 0.4": dataclasses.replace(request((2, 3, 9), center="max", falloff=3.0), least_own=0.4),
    "resembles nothing, one": request((2, 3, 9), falloff=1e6),
    "resembles nothing, max": request((2, 3, 9), falloff=1e6, center="max"),
    "resembles nothing, zero": request((2, 3, 9), falloff=1e6, center="zero"),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_loop_in_float64(case: str) -> None:
    assert error(CASES[case]) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    of = request((2, 3, 9), center="max")
    image = of.image.to(dtype)
    of = dataclasses.replace(of, image=image, guide=image)
    assert GPU.refusal(of) == ""
    result, rounded = GPU.run(of), reference(of).to(dtype)
    assert result.dtype == dtype
    torch.testing.assert_close(result, rounded, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


TILES = (Tile(1, 1, 1, 128), Tile(2, 2, 1, 128), Tile(1, 4, 2, 128), Tile(4, 2, 3, 128))


@pytest.fixture
def choice_of_tile() -> Iterator[None]:
    kept = dict(gpu.TILES)
    yield
    gpu.TILES.update(kept)


@pytest.mark.usefixtures("choice_of_tile")
@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 0, 1)])
def test_the_tile_never_changes_a_bit(patch_radius: Axes) -> None:
    results = []
    for tile in TILES:
        gpu.TILES[max(patch_radius)] = (tile,)
        results.append(GPU.run(request((4, 5, 9), patch_radius, (0, 1, 1))))
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_constant_volume_is_unchanged() -> None:
    of = request((2, 3, 9), (0, 1, 1))
    image = torch.zeros_like(of.image)
    assert torch.equal(GPU.run(dataclasses.replace(of, image=image, guide=image)), torch.zeros(1, 2, 3, 9).to(DEVICE))


def test_the_request_is_not_written_to_and_need_not_be_contiguous() -> None:
    of = request((2, 3, 9))
    image = of.image.transpose(1, 3).contiguous().transpose(1, 3)
    before = image.clone()
    assert torch.equal(GPU.run(dataclasses.replace(of, image=image, guide=image)), GPU.run(of))
    assert torch.equal(image, before)


def test_progress_rises_to_one() -> None:
    told: list[float] = []
    GPU.run(dataclasses.replace(request((3, 3, 9), search_radius=(0, 0, 1)), progress=told.append))
    assert told == sorted(told)
    assert told[-1] == 1


def test_cancels() -> None:
    def stop(fraction: float) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        GPU.run(dataclasses.replace(request((3, 3, 9), search_radius=(0, 0, 1)), progress=stop))


def test_refuses_float64() -> None:
    of = request((2, 3, 9))
    assert "float64" in GPU.refusal(dataclasses.replace(of, image=of.image.double()))


def test_refuses_large_patches() -> None:
    assert "patch_radius" in GPU.refusal(request((2, 3, 9), (4, 1, 1)))


def test_refuses_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    of = request((2, 3, 9))
    assert "cpu" in GPU.refusal(dataclasses.replace(of, image=of.image.cpu()))


def test_refuses_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    gpu.missing.cache_clear()
    assert "pip install triton" in GPU.refusal(request((2, 3, 9)))
    gpu.missing.cache_clear()


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (0, 1, 1)])
@pytest.mark.parametrize("center", ["one", "max"])
def test_equals_loop_on_a_volume(patch_radius: Axes, center: str) -> None:
    of = request((64, 64, 64), patch_radius, (3, 3, 3), offset=0.5 if center == "max" else 0.0, center=center)
    assert error(of) < 2e-6


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 1, 1)])
def test_repeats_bit_for_bit(patch_radius: Axes) -> None:
    of = request((64, 61, 67), patch_radius, (3, 3, 3))
    first = GPU.run(of)
    assert all(torch.equal(GPU.run(of), first) for _ in range(5))


@pytest.mark.gpu
@needs_cuda
@pytest.mark.usefixtures("choice_of_tile")
@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 1, 1)])
def test_all_tiles_and_launches_give_the_same_bits(patch_radius: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    of = request((33, 34, 35), patch_radius, (2, 2, 2))
    expected = GPU.run(of)
    monkeypatch.setattr(gpu, "PAIRS_PER_LAUNCH", math.prod(of.shape) * 125 // 5)
    monkeypatch.setattr(gpu, "WORTH_TRYING", 1)
    for tile in gpu.TILES[max(patch_radius)]:
        gpu.TILES[max(patch_radius)] = (tile,)
        told: list[float] = []
        assert torch.equal(GPU.run(dataclasses.replace(of, progress=told.append)), expected)
        assert len(told) >= 5


@pytest.mark.gpu
@needs_cuda
def test_indexes_beyond_two_to_the_31() -> None:
    """Nine gigabytes of image: the last planes of a volume of 2.2 milliard voxels."""
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of free GPU memory")
    image = torch.zeros(1, 1040, 1442, 1442, device=DEVICE)
    image[:, -8:] = torch.randn(1, 8, 1442, 1442, device=DEVICE)
    number = torch.tensor(0.7, device=DEVICE)
    of = Request(image, image, number, torch.zeros_like(number), (0, 0, 0), (1, 1, 1), "one")
    end = image[:, -8:].clone()
    expected = reference(dataclasses.replace(of, image=end, guide=end))
    result = GPU.run(of)[:, -6:]
    assert float((result.double() - expected).norm() / expected.norm()) < 2e-6
