"""Non-local Bayes on CPU threads against the plain version in float64."""

from __future__ import annotations

import pytest
import torch

from nlmeans.kernels.turns import chequerboard
from nlmeans.patches.bayes import cpu
from nlmeans.patches.bayes.nl_bayes import nl_bayes
from nlmeans.patches.groups import Grid
from tests.nlmeans.patches.tensors import blobs, normal


@pytest.mark.parametrize("how", [{}, {"joint": True}, {"across": True}, {"joint": True, "across": True}])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("shape", [(2, 13, 14, 26), (1, 1, 40, 45), (1, 3, 13, 12)])
def test_the_kernel_for_float32_follows_the_formula(
    shape: tuple[int, ...], varying: bool, how: dict[str, bool]
) -> None:
    clean = 8 * blobs((shape[1], shape[2], shape[3])).expand(shape)
    noisy, guide = (clean + s * normal(*shape, seed=k) for k, s in enumerate((1.0, 0.2)))
    guide, noisy = guide.float(), noisy.float()
    sigma = 0.5 + normal(*shape[1:]).abs().float() if varying else torch.full(shape[1:], 1.3)
    radius = (4, 4, 4) if shape[1] > 1 else (0, 9, 9)
    exact = nl_bayes(noisy.double(), guide.double(), sigma.double(), search_radius=radius, **how)
    single = nl_bayes(noisy, guide, sigma if varying else 1.3, search_radius=radius, **how)
    assert (single - exact).abs().max() < 5e-3


@pytest.mark.parametrize("joint", [False, True])
def test_many_channels_follow_the_formula_too_and_may_be_written_to_the_guide(joint: bool) -> None:
    """More channels than are summed at once: the groups of the first are those of all."""
    clean = 8 * blobs((9, 14, 16)).expand(2 * cpu.SUMMED_AT_ONCE + 1, -1, -1, -1)
    noisy, guide = (clean + s * normal(*clean.shape, seed=k) for k, s in enumerate((1.0, 0.2)))
    guide, noisy = guide.float(), noisy.float()
    exact = nl_bayes(noisy.double(), guide.double(), joint=joint)
    single = nl_bayes(noisy, guide, joint=joint)
    assert (single - exact).abs().max() < 5e-3
    for given in (guide, guide.double()):
        place = given.clone()
        found = nl_bayes(noisy.to(given.dtype), place, out=place, joint=joint)
        assert found.data_ptr() == place.data_ptr()
        assert torch.equal(found, single if given is guide else exact)


@pytest.mark.parametrize(
    ("how", "strength"), [({}, 1.0), ({"across": True}, 1.0), ({"joint": True}, 1.0), ({"joint": True}, 12.0)]
)
def test_groups_too_steep_for_float32_are_done_in_float64(how: dict[str, bool], strength: float) -> None:
    clean = torch.where(blobs((12, 13, 14)) > 10, 1000.0, 0.0)[None]
    noisy, guide = clean + normal(1, 12, 13, 14), clean + 0.2 * normal(1, 12, 13, 14, seed=1)
    exact = nl_bayes(noisy.float().double(), guide.float().double(), strength=strength, **how)
    assert (nl_bayes(noisy.float(), guide.float(), strength=strength, **how) - exact).abs().max() < 5e-3


@pytest.mark.parametrize("joint", [False, True])
def test_the_number_of_threads_changes_no_bit(joint: bool) -> None:
    noisy, guide = normal(2, 12, 13, 14).float(), 0.3 * normal(2, 12, 13, 14, seed=1).float()
    threads = torch.get_num_threads()
    whole = nl_bayes(noisy, guide, joint=joint)
    try:
        torch.set_num_threads(3)
        assert torch.equal(nl_bayes(noisy, guide, joint=joint), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("references", [(1, 40, 40), (30, 31, 5)])
def test_blocks_of_one_turn_have_no_voxel_in_common(references: tuple[int, int, int]) -> None:
    shape = tuple(3 * n + 1 for n in references) if references[0] > 1 else (1, 121, 121)
    grid = Grid.of((shape[0], shape[1], shape[2]), 4, 3, 48, (4, 4, 4) if references[0] > 1 else (0, 10, 10))
    turns = chequerboard(cpu.cuts(grid, 0), cpu.cuts(grid, 1))
    assert sum(len(z) * len(y) for turn in turns for z, y in turn) == grid.references[0] * grid.references[1]
    for turn in turns:
        touched = torch.zeros(grid.shape[:2])
        for block in turn:
            z, y = (
                slice(max(0, along[0] * s - r), along[-1] * s + r + p)
                for along, s, r, p in zip(block, grid.step, grid.radius, grid.size, strict=False)
            )
            touched[z, y] += 1
        assert touched.max() <= 1
