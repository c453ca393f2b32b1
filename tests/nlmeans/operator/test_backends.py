"""Which backend serves a request, what each claims, and the memory they are planned with."""

from __future__ import annotations

import pytest
import torch

from nlmeans.core.axes import Axes, window_voxels
from nlmeans.operator.backends import BACKENDS, SMALL, choose, working_memory
from nlmeans.operator.full import FULL, neighbours
from nlmeans.operator.neighbours import half_window
from nlmeans.operator.request import Request

GIB = 2**30


def request(
    shape: Axes,
    search: int,
    memory: int = GIB,
    center: str = "one",
    sigma: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> Request:
    """A request of any size that takes no memory itself."""
    d, h, w = (n + 2 * search for n in shape)
    volume = torch.zeros(1, 1, 1, 1, dtype=dtype).expand(1, d, h, w)
    return Request(
        image=volume,
        guide=volume,
        falloff=torch.tensor(1.0, dtype=dtype),
        offset=torch.tensor(2 * sigma**2, dtype=dtype),
        patch_radius=(0, 0, 0),
        search_radius=(search, search, search),
        center=center,
        memory=memory,
    )


def test_auto_takes_the_fused_kernel_wherever_it_can() -> None:
    assert choose(request((8, 8, 8), 1, dtype=torch.float32)).name == "cpu"
    assert choose(request((64, 64, 64), 3, dtype=torch.float32)).name == "cpu"


def test_auto_takes_full_for_few_pairs_and_loop_for_many() -> None:
    assert choose(request((8, 8, 8), 1)).name == "full"
    assert choose(request((64, 64, 64), 3)).name == "loop"


def test_auto_takes_loop_where_full_has_too_little_memory() -> None:
    assert choose(request((8, 8, 8), 1, memory=1000)).name == "loop"


def test_auto_never_approximates() -> None:
    chosen = {choose(request((n, n, n), 2)).name for n in (1, 2, 4, 8, 16, 32, 64)}
    assert chosen == {"full", "loop"}


def test_full_refuses_before_it_allocates() -> None:
    huge = request((2000, 2000, 2000), 5)  # some 2 PiB, which nothing could hold
    with pytest.raises(ValueError, match=r"would need \d{6,}\.\d\d GiB of the 1\.00 GiB allowed by memory="):
        choose(huge, "full")


@pytest.mark.parametrize("name", ["cpu", "full", "loop", "windowed"])
def test_a_backend_that_can_is_chosen_by_name(name: str) -> None:
    assert choose(request((8, 8, 8), 1, dtype=torch.float32), name).name == name


def test_the_fused_kernel_does_not_claim_float64() -> None:
    with pytest.raises(ValueError, match=r"backend='cpu' cannot do this: it computes in float32.*; backend='loop' can"):
        choose(request((8, 8, 8), 1, dtype=torch.float64), "cpu")


@pytest.mark.parametrize("impossible", [{"sigma": 1.0}, {"center": "max"}, {"center": "zero"}])
def test_windowed_claims_neither_sigma_nor_center_rules(impossible: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"backend='windowed' cannot do this: .*; backend='\w+' can"):
        choose(request((8, 8, 8), 1, **impossible), "windowed")  # type: ignore[arg-type]


def test_only_the_memory_of_full_grows_with_the_window() -> None:
    small, large = ((1, 1, 1), (4, 4, 4))
    grown = {
        name: working_memory(name, 1, 1, small, large) / working_memory(name, 1, 1, small, small)
        for name in ("auto", *BACKENDS)
    }
    assert grown == {name: 27 if name == "full" else 1 for name in grown}


def test_full_does_work_in_what_it_claims_to_need() -> None:
    assert FULL.bytes_per_voxel(1, 1, (1, 1, 1), (1, 1, 1)) * SMALL / 27 < 2**24  # auto may ignore so little


@pytest.mark.parametrize("search_radius", [(0, 0, 0), (1, 1, 1), (0, 2, 1), (3, 0, 2)])
def test_half_a_window_and_its_mirror_image_make_the_window(search_radius: Axes) -> None:
    half = set(half_window(search_radius))
    mirrored = {(-z, -y, -x) for z, y, x in half}
    assert not half & mirrored
    assert len(half | mirrored) == window_voxels(search_radius) - 1


def test_neighbours_are_views_of_the_padded_image() -> None:
    padded = torch.arange(5 * 6 * 7.0).reshape(1, 5, 6, 7)
    views = neighbours(padded, (1, 3, 5))
    assert views.shape == (1, 1, 3, 5, 5, 4, 3)
    assert views.untyped_storage().data_ptr() == padded.untyped_storage().data_ptr()
    assert views[0, 0, 2, 1, 4, 3, 1] == padded[0, 4, 2 + 3, 1 + 1]


def test_float64_needs_twice_the_memory() -> None:
    needed = int(8**3 * FULL.bytes_per_voxel(1, 1, (0, 0, 0), (1, 1, 1)))
    assert not FULL.refusal(request((8, 8, 8), 1, memory=needed, dtype=torch.float32))
    assert FULL.refusal(request((8, 8, 8), 1, memory=2 * needed - 1, dtype=torch.float64))
    assert not FULL.refusal(request((8, 8, 8), 1, memory=2 * needed, dtype=torch.float64))
