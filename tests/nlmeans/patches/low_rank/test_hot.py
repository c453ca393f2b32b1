"""Hot voxels: what counts as one, and that the compiled kernel finds the same as torch, however volumes lie."""

from __future__ import annotations

import pytest
import torch

from nlmeans.patches.low_rank.hot import HOT, compiled_hot_voxels, hot_voxels, without_hot_voxels
from tests.nlmeans.patches.tensors import normal


def test_hot_is_what_stands_out_of_all_neighbours_by_far() -> None:
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(3, 9, 10, 11, generator=generator)
    assert not without_hot_voxels(signals, 1.0)[1].any()
    edge = signals.clone()
    edge[:, :, :, 5:] += 100  # an edge, a line, and a pair of voxels belong to the image
    edge[1, 4, :, 2] += 100
    edge[0, 2, 2, 2:4] += 100
    assert not without_hot_voxels(edge, 1.0)[1].any()
    edge[2, 6, 4, 2] += 100
    edge[2, 0, 0, 0] -= 100
    calm, hot = without_hot_voxels(edge, 1.0)
    assert hot.nonzero().tolist() == [[2, 0, 0, 0], [2, 6, 4, 2]]
    assert calm[hot].abs().max() < 3
    assert torch.equal(calm[~hot], edge[~hot])
    assert not without_hot_voxels(edge, torch.full((9, 10, 11), 20.0))[1].any()
    assert not without_hot_voxels(edge[:, :1, :1, :1], 1.0)[1].any()


def test_of_two_voxels_none_stands_out() -> None:
    signals = normal(6, 1, 1, 2).float()
    signals[2, 0, 0, 1] += 100
    assert not without_hot_voxels(signals, 1.0)[1].any()


def test_what_stands_out_in_most_volumes_belongs_to_the_object() -> None:
    signals = normal(6, 9, 10, 11).float()
    signals[:, 4, 5, 6] += 100
    signals[1, 2, 2, 2] += 100
    assert without_hot_voxels(signals, 1.0)[1].nonzero().tolist() == [[1, 2, 2, 2]]


def test_dark_voxels_are_hot_where_bright_ones_are() -> None:
    signals = normal(6, 9, 10, 11).float()
    signals[:3, 4, 5, 6] += 100
    bright, dark = (without_hot_voxels(values, 1.0)[1] for values in (signals, -signals))
    assert bright.sum() == 3
    assert torch.equal(bright, dark)


def spiky(*shape: int) -> torch.Tensor:
    """A series of noise with many values that stand out, some of them next to each other or at an end."""
    signals = normal(*shape).float()
    return signals + 60 * normal(*shape, seed=1).float() * (normal(*shape, seed=2) > 1.5)


VOLUMES = [(19, 5, 6, 7), (3, 4, 5, 40), (9, 2, 2, 2)]
FLAT = [(20, 1, 6, 7), (9, 6, 9, 1), (4, 40, 1, 1), (4, 1, 40, 1), (4, 1, 1, 40)]


@pytest.mark.parametrize("shape", VOLUMES + FLAT)
@pytest.mark.parametrize("uneven", [False, True])
def test_the_compiled_kernel_finds_what_torch_finds_however_volumes_lie(shape: tuple[int, ...], uneven: bool) -> None:
    signals = spiky(*shape)
    limit = HOT * normal(*shape[1:], seed=3).float().abs() if uneven else torch.tensor(HOT)
    expected = hot_voxels(signals.double(), limit.double())
    assert expected.any()
    together = signals.movedim(0, -1).contiguous().movedim(-1, 0)
    across = signals.movedim(1, -1).contiguous().movedim(-1, 1)
    for same in (signals, together, across):
        assert torch.equal(compiled_hot_voxels(same, limit), expected)
    calm = [without_hot_voxels(same, limit / HOT)[0] for same in (signals, together, signals.double())]
    assert torch.equal(calm[0], calm[1])
    torch.testing.assert_close(calm[0], calm[2].float())


def test_the_signals_that_were_given_stay_as_they_are() -> None:
    signals = spiky(3, 5, 6, 7)
    before = signals.clone()
    assert not torch.equal(without_hot_voxels(signals, 1.0)[0], before)
    assert torch.equal(signals, before)


def test_no_volumes_have_no_hot_voxels() -> None:
    calm, hot = without_hot_voxels(torch.zeros(0, 4, 5, 6), 1.0)
    assert calm.shape == hot.shape == (0, 4, 5, 6)
