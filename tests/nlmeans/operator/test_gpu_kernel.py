"""The kernel of the backend `gpu` compared with `loop` in float64: on a GPU, or in the interpreter of Triton."""

from __future__ import annotations

import dataclasses

import pytest
import torch

pytest.importorskip("triton", "3.3", reason="the gpu backend needs triton 3.3 or newer")

from nlmeans.core.axes import Axes
from nlmeans.operator import gpu
from nlmeans.operator.gpu import GPU, Column
from nlmeans.operator.request import Request
from tests.nlmeans.operator.gpu_requests import DEVICE, error, gpu_request, needs_cuda, reference

CASES: dict[str, Request] = {
    "radius 0": gpu_request((2, 5, 9)),
    "radius 1": gpu_request((2, 5, 9), (1, 1, 1)),
    "radius 2": gpu_request((1, 2, 5), (2, 2, 2)),
    "radius 3": gpu_request((1, 1, 5), (3, 3, 3), (0, 0, 1)),
    "patch in a plane": gpu_request((2, 3, 9), (0, 1, 1)),
    "patch along z": gpu_request((3, 3, 9), (1, 0, 0)),
    "patch along x": gpu_request((2, 2, 9), (0, 0, 2)),
    "2D": gpu_request((1, 18, 33), (0, 1, 1), (0, 1, 2)),
    "2D, radius 0": gpu_request((1, 5, 40), (0, 0, 0), (0, 2, 2)),
    "window 1 × 1 × 7": gpu_request((2, 3, 9), (0, 0, 0), (0, 0, 3)),
    "window 7 × 1 × 1": gpu_request((2, 3, 9), (0, 0, 0), (3, 0, 0)),
    "window 1 × 7 × 1": gpu_request((2, 3, 9), (0, 0, 0), (0, 3, 0)),
    "search radius 0": gpu_request((2, 3, 9), (1, 1, 1), (0, 0, 0)),
    "one voxel": gpu_request((1, 1, 1), (1, 1, 1)),
    "one column": gpu_request((3, 1, 1)),
    "two warps of lanes": gpu_request((1, 2, 61), (0, 1, 1), (0, 1, 1)),
    "tiles moved inside": gpu_request((3, 21, 4), search_radius=(0, 1, 0)),
    "guide": gpu_request((2, 3, 9), (0, 0, 0), features=1),
    "two features held": gpu_request((2, 3, 9), features=2, center="max"),
    "five features, not held": gpu_request((2, 3, 9), (0, 1, 1), features=5, center="max"),
    "three channels guide themselves": gpu_request((2, 3, 9), channels=3),
    "five channels, one guide": gpu_request((2, 3, 9), channels=5, features=1, center="zero"),
    "six channels and features": gpu_request((1, 3, 9), (0, 1, 1), channels=6),
    "offset": gpu_request((2, 3, 9), offset=1.0, center="max"),
    "offset, radius 1": gpu_request((2, 3, 9), (1, 1, 1), offset=1.5),
    "falloff map": gpu_request((3, 3, 9), maps="falloff"),
    "offset map": gpu_request((3, 3, 9), offset=1.0, maps="offset", center="zero"),
    "both maps": gpu_request((3, 5, 5), search_radius=(0, 1, 1), offset=1.0, maps="falloff offset", center="max"),
    "center max": gpu_request((2, 5, 9), center="max"),
    "center zero": gpu_request((2, 3, 9), (1, 1, 1), center="zero"),
    "center zero, window of one voxel": gpu_request((2, 3, 9), search_radius=(0, 0, 0), center="zero"),
    "at least 0.4": dataclasses.replace(gpu_request((2, 3, 9), center="max", falloff=3.0), least_own=0.4),
    "resembles nothing, one": gpu_request((2, 3, 9), falloff=1e6),
    "resembles nothing, max": gpu_request((2, 3, 9), falloff=1e6, center="max"),
    "resembles nothing, zero": gpu_request((2, 3, 9), falloff=1e6, center="zero"),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_loop_in_float64(case: str) -> None:
    assert error(CASES[case]) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    of = gpu_request((2, 3, 9), center="max")
    image = of.image.to(dtype)
    of = dataclasses.replace(of, image=image, guide=image)
    assert GPU.refusal(of) == ""
    result, rounded = GPU.run(of), reference(of).to(dtype)
    assert result.dtype == dtype
    torch.testing.assert_close(result, rounded, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


COLUMNS = (Column(1, 1, 1, 128), Column(2, 2, 1, 128), Column(1, 4, 2, 128), Column(4, 2, 3, 128))


@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 0, 1)])
def test_the_column_never_changes_a_bit(patch_radius: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for column in COLUMNS:
        monkeypatch.setitem(gpu.COLUMNS, max(patch_radius), (column,))
        results.append(GPU.run(gpu_request((4, 5, 9), patch_radius, (0, 1, 1))))
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_constant_volume_is_unchanged() -> None:
    of = gpu_request((2, 3, 9), (0, 1, 1))
    image = torch.zeros_like(of.image)
    assert torch.equal(GPU.run(dataclasses.replace(of, image=image, guide=image)), torch.zeros(1, 2, 3, 9).to(DEVICE))


def test_the_request_is_not_written_to_and_need_not_be_contiguous() -> None:
    of = gpu_request((2, 3, 9))
    image = of.image.transpose(1, 3).contiguous().transpose(1, 3)
    before = image.clone()
    assert torch.equal(GPU.run(dataclasses.replace(of, image=image, guide=image)), GPU.run(of))
    assert torch.equal(image, before)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (0, 1, 1)])
@pytest.mark.parametrize("center", ["one", "max"])
def test_equals_loop_on_a_volume(patch_radius: Axes, center: str) -> None:
    of = gpu_request((64, 64, 64), patch_radius, (3, 3, 3), offset=0.5 if center == "max" else 0.0, center=center)
    assert error(of) < 2e-6


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 1, 1)])
def test_repeats_bit_for_bit(patch_radius: Axes) -> None:
    of = gpu_request((64, 61, 67), patch_radius, (3, 3, 3))
    first = GPU.run(of)
    assert all(torch.equal(GPU.run(of), first) for _ in range(5))


@pytest.mark.gpu
@needs_cuda
def test_indexes_beyond_two_to_the_31() -> None:
    """Nine gigabytes of image: the last planes of a volume of 2.2 billion voxels."""
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
