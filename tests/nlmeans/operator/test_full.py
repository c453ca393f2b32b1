"""The backend `full`: all neighbours in one tensor, within the memory that is allowed."""

from __future__ import annotations

import pytest
import torch

from nlmeans.operator.backends import MOST_PAIRS_FOR_FULL, choose
from nlmeans.operator.full import FULL, neighbours
from nlmeans.operator.loop import LOOP
from tests.nlmeans.operator.requests import empty_request, in_float64, random_request


def test_full_refuses_before_it_allocates() -> None:
    huge = empty_request((2000, 2000, 2000), 5)  # some 2 PiB, which nothing could hold
    with pytest.raises(ValueError, match=r"would need \d{6,}\.\d\d GiB of the 1\.00 GiB allowed by memory="):
        choose(huge, "full")


def test_the_largest_request_that_auto_gives_to_full_takes_little_memory() -> None:
    needed = FULL.bytes_per_voxel(1, 1, (1, 1, 1), (1, 1, 1)) * MOST_PAIRS_FOR_FULL / 27
    assert needed < 2**24  # so little that the plan for backend "auto" ignores it


def test_neighbours_are_views_of_the_padded_image() -> None:
    padded = torch.arange(5 * 6 * 7.0).reshape(1, 5, 6, 7)
    views = neighbours(padded, (1, 3, 5))
    assert views.shape == (1, 1, 3, 5, 5, 4, 3)
    assert views.untyped_storage().data_ptr() == padded.untyped_storage().data_ptr()
    assert views[0, 0, 2, 1, 4, 3, 1] == padded[0, 4, 2 + 3, 1 + 1]


def test_float64_needs_twice_the_memory() -> None:
    needed = int(8**3 * FULL.bytes_per_voxel(1, 1, (0, 0, 0), (1, 1, 1)))
    assert not FULL.refusal(empty_request((8, 8, 8), 1, memory=needed, dtype=torch.float32))
    assert FULL.refusal(empty_request((8, 8, 8), 1, memory=2 * needed - 1, dtype=torch.float64))
    assert not FULL.refusal(empty_request((8, 8, 8), 1, memory=2 * needed, dtype=torch.float64))


@pytest.mark.parametrize("center", ["one", "max", "zero"])
@pytest.mark.parametrize("maps", [False, True])
def test_all_neighbours_at_once_give_what_one_offset_after_another_gives(maps: bool, center: str) -> None:
    of = in_float64(
        random_request((3, 4, 5), (1, 0, 1), (1, 2, 1), channels=2, features=3, maps=maps, offset=0.2, center=center)
    )
    torch.testing.assert_close(FULL.run(of), LOOP.run(of), rtol=1e-12, atol=1e-12)
