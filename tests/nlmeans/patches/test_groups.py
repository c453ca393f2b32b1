"""Groups of similar patches, against the formulas written out group by group in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from nlmeans.patches import bayes_cpu, groups, groups_cpu_kernel
from nlmeans.patches.bayes import filter_group, nl_bayes
from nlmeans.patches.dct import dct_basis, hard_threshold
from nlmeans.patches.groups import Average, Filtered, Grid, find
from nlmeans.patches.low_rank import low_rank, shrink_singular_values

Array = NDArray[np.float64]


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def blobs(shape: tuple[int, int, int]) -> torch.Tensor:
    """A smooth image with edges, values up to about 20."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return 10 * torch.sin(x / 3) * torch.cos(y / 4) + 10 * ((z + y) > (shape[0] + shape[1]) / 2)


def nearest(guide: Array, grid: Grid, reference: tuple[int, ...], floor: float) -> set[int]:
    """Flat corners of the K patches like the reference patch; only for guides without ties."""
    distances = {}
    size = grid.size
    patch = guide[:, *(slice(c, c + p) for c, p in zip(reference, size, strict=True))]
    for shift in itertools.product(*(range(-r, r + 1) for r in grid.radius)):
        corner = tuple(c + s for c, s in zip(reference, shift, strict=True))
        if all(0 <= c <= n - p for c, n, p in zip(corner, grid.shape, size, strict=True)):
            other = guide[:, *(slice(c, c + p) for c, p in zip(corner, size, strict=True))]
            distances[int(np.ravel_multi_index(corner, grid.shape))] = max(((patch - other) ** 2).mean(), floor)
    return set(sorted(distances, key=lambda corner: distances[corner])[: grid.count])


@pytest.mark.parametrize(
    ("shape", "channels", "radius"),
    [((7, 9, 10), 1, (2, 2, 2)), ((6, 7, 8), 2, (1, 2, 2)), ((1, 12, 13), 1, (0, 3, 3)), ((3, 3, 11), 1, (2, 2, 2))],
)
def test_groups_hold_the_nearest_patches(
    shape: tuple[int, int, int], channels: int, radius: tuple[int, int, int]
) -> None:
    grid = Grid.of(shape, 3, 2, 12, radius)
    guide = grid.covered(sample(channels, *shape))
    corners = torch.cat([found for found, _ in find(guide, grid, torch.tensor(0.0))])
    assert corners.shape == (math.prod(grid.references), grid.count)
    starts = itertools.product(*(range(0, n * s, s) for n, s in zip(grid.references, grid.step, strict=True)))
    for group, reference in zip(corners, starts, strict=True):
        assert set(group.tolist()) == nearest(guide.numpy(), grid, reference, 0.0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("floor", [0.0, 0.8, 1e9])
def test_torch_and_the_kernel_find_the_same_groups(floor: float, channels: int) -> None:
    grid = Grid.of((9, 9, 11), 3, 2, 20, (2, 2, 2))
    guide = grid.covered(sample(channels, 9, 9, 11)).float()
    level = torch.full((math.prod(grid.references),), floor * 27 * channels)
    lines = range(grid.references[0] * grid.references[1])
    where = grid.references, grid.size, grid.step, grid.radius
    fast = groups_cpu_kernel.match(groups_cpu_kernel.Search.of(guide, *where, level), lines, grid.count)
    plain = groups.match(guide, lines, *where, level, grid.count)
    torch.testing.assert_close(fast.sort(1).values, plain.sort(1).values)


def test_of_patches_that_are_alike_a_group_takes_some_from_everywhere() -> None:
    grid = Grid.of((20, 20, 20), 2, 2, 40, (4, 4, 4))
    (corners, _), *_ = find(grid.covered(0.01 * sample(1, 20, 20, 20)), grid, torch.tensor(1.0))
    middle = corners[grid.references[1] * grid.references[2] * 5 + grid.references[2] * 5 + 5]
    where = np.stack(np.unravel_index(middle.numpy(), grid.shape)) - 10
    assert len(set(middle.tolist())) == 40
    assert np.abs(where.mean(1)).max() < 1
    assert where.std(1).min() > 2


def bayes_reference(noisy: Array, guide: Array, variance: float, size: tuple[int, ...], strength: float) -> Array:
    """The docstring of `bayes`, in the space of voxels rather than of patches, its minimum found by solving."""
    count, voxels = noisy.shape
    y, g = noisy.mean(0), guide.mean(0)
    energy = dctn(g.reshape(size), norm="ortho") ** 2
    gain = energy / (energy + variance / count)
    gain[0, 0, 0] = 1
    mean = idctn(gain * dctn(y.reshape(size), norm="ortho"), norm="ortho").ravel()
    q, covariance = noisy - y, (guide - g).T @ (guide - g) / (count - 1)
    wiener = covariance @ np.linalg.inv(covariance + strength * variance * np.eye(voxels))
    f, freedom, noise = q @ wiener, np.trace(wiener), (count - 1) * variance
    normal = np.array([[(f**2).sum() + noise * freedom, (f * q).sum()], [(f * q).sum(), (q**2).sum()]])
    right = np.array([(f * q).sum() - noise * freedom + noise * freedom, (q**2).sum() - noise * voxels])
    kept = np.clip(np.linalg.solve(normal, right)[1], 0, 1)
    amplitude = np.clip((right[0] - kept * normal[0, 1]) / normal[0, 0], 0, 1.5)
    result: Array = mean + amplitude * f + kept * q
    return result


@pytest.mark.parametrize("strength", [1.0, 1.5])
@pytest.mark.parametrize("count", [6, 40])
@pytest.mark.parametrize("signal", [0.0, 0.5, 5.0])
def test_bayes_follows_its_formula(strength: float, count: int, signal: float) -> None:
    clean = signal * sample(4, 3, 27) @ torch.eye(27, dtype=torch.float64)
    clean = (sample(4, count, 3, seed=1) @ clean) + 5
    noisy, guide = clean + 1.3 * sample(4, count, 27, seed=2), clean + 0.2 * sample(4, count, 27, seed=3)
    basis = dct_basis((3, 3, 3))
    variance = torch.full((4,), 1.69, dtype=torch.float64)
    result = filter_group(noisy, guide, variance, basis, strength).patches
    for k in range(4):
        expected = bayes_reference(noisy[k].numpy(), guide[k].numpy(), 1.69, (3, 3, 3), strength)
        np.testing.assert_allclose(result[k].numpy(), expected, atol=1e-5)


def test_float32_stays_exact_where_contrast_is_extreme() -> None:
    clean = 1000.0 * (sample(8, 48, 1) > 0) * (sample(8, 1, 64, seed=1) > 0)
    noisy, guide = clean + sample(8, 48, 64, seed=2), clean + 0.1 * sample(8, 48, 64, seed=3)
    basis, variance = dct_basis((4, 4, 4)), torch.ones(8, dtype=torch.float64)
    exact = filter_group(noisy, guide, variance, basis).patches
    single = filter_group(noisy.float(), guide.float(), variance.float(), basis.float()).patches
    assert (single - exact).abs().max() < 2e-3


def test_singular_values_follow_the_formula() -> None:
    noisy = sample(3, 12, 27) + 4 * sample(3, 12, 1, seed=1) * sample(3, 1, 27, seed=2)
    result = shrink_singular_values(noisy, torch.full((3,), 1.0, dtype=torch.float64)).patches
    for k in range(3):
        y = noisy[k].numpy()
        u, s, v = np.linalg.svd(y - y.mean(0), full_matrices=False)
        t, ratio = s / math.sqrt(27), 12 / 27
        shrunk = np.where(t > 1 + math.sqrt(ratio), np.sqrt(np.maximum((t**2 - ratio - 1) ** 2 - 4 * ratio, 0)) / t, 0)
        np.testing.assert_allclose(result[k].numpy(), y.mean(0) + (u * shrunk * math.sqrt(27)) @ v, atol=1e-9)


@pytest.mark.parametrize("exact", [False, True])
def test_the_average_is_that_of_the_patches_over_a_voxel(exact: bool) -> None:
    grid = Grid.of((4, 5, 6), 3, 1, 2, (1, 1, 1))
    average = Average.of(sample(*grid.shape), grid, exact)
    total, weights = torch.zeros(grid.shape, dtype=torch.float64), torch.zeros(grid.shape, dtype=torch.float64)
    taper = average.taper.view(grid.size)
    corners = torch.tensor(list(itertools.product(range(2), range(3), range(4)))) @ torch.tensor([30, 6, 1])
    corners = corners.view(-1, 2)
    filtered = Filtered(sample(len(corners), 2, 27, seed=1), sample(len(corners), seed=2).exp())
    average.add(corners, filtered)
    for k, j in itertools.product(range(len(corners)), range(2)):
        box = tuple(slice(c, c + 3) for c in np.unravel_index(int(corners[k, j]), grid.shape))
        total[box] += filtered.weight[k] * taper * filtered.patches[k, j].view(3, 3, 3)
        weights[box] += filtered.weight[k] * taper
    torch.testing.assert_close(average.result(), total / weights)


@pytest.mark.parametrize("shape", [(14, 15, 16), (1, 30, 31), (3, 20, 21)])
def test_two_stages_halve_what_the_pilot_leaves(shape: tuple[int, int, int]) -> None:
    clean = blobs(shape)[None].float()
    noisy = clean + sample(1, *shape).float()
    pilot = hard_threshold(noisy)
    radius = (4, 4, 4) if shape[0] > 1 else (0, 10, 10)
    first = nl_bayes(noisy, pilot, strength=1.5, alike=0.2, search_radius=radius)
    second = nl_bayes(noisy, first, search_radius=radius)
    before, after = (float((z - clean).square().mean()) for z in (pilot, second))
    assert after < 0.6 * before
    assert (low_rank(noisy, pilot, search_radius=radius) - clean).square().mean() < before


def test_a_constant_comes_back() -> None:
    constant = torch.full((1, 9, 9, 9), -7.0)
    torch.testing.assert_close(nl_bayes(constant, constant), constant, rtol=1e-5, atol=0)
    torch.testing.assert_close(low_rank(constant, constant), constant, rtol=1e-5, atol=0)


def test_a_map_of_sigma_equals_the_number_and_rescales() -> None:
    noisy = blobs((10, 11, 12))[None] + sample(1, 10, 11, 12)
    guide = blobs((10, 11, 12))[None]
    one = nl_bayes(noisy, guide, 1.0)
    torch.testing.assert_close(nl_bayes(noisy, guide, torch.ones(10, 11, 12, dtype=torch.float64)), one)
    torch.testing.assert_close(nl_bayes(3 * noisy, 3 * guide, 3.0), 3 * one, rtol=1e-4, atol=1e-4)


def test_the_result_does_not_depend_on_threads_slabs_or_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, guide = sample(1, 12, 13, 14).float(), 0.3 * sample(1, 12, 13, 14, seed=1).float()
    threads = torch.get_num_threads()
    whole, plain = nl_bayes(noisy, guide), low_rank(noisy, guide)
    try:
        torch.set_num_threads(3)
        assert torch.equal(nl_bayes(noisy, guide), whole)
        torch.testing.assert_close(low_rank(noisy, guide), plain, rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(groups, "SLAB_VOXELS", 1)
    monkeypatch.setattr(groups, "BATCH_GROUPS", 3)
    torch.testing.assert_close(low_rank(noisy, guide), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("shape", [(2, 13, 14, 26), (1, 1, 40, 45), (1, 3, 13, 12)])
def test_the_kernel_for_float32_follows_the_formula(shape: tuple[int, ...], varying: bool) -> None:
    clean = 8 * blobs((shape[1], shape[2], shape[3])).expand(shape)
    noisy, guide = (clean + s * sample(*shape, seed=k) for k, s in enumerate((1.0, 0.2)))
    guide, noisy = guide.float(), noisy.float()
    sigma = 0.5 + sample(*shape[1:]).abs().float() if varying else torch.full(shape[1:], 1.3)
    radius = (4, 4, 4) if shape[1] > 1 else (0, 9, 9)
    exact = nl_bayes(noisy.double(), guide.double(), sigma.double(), search_radius=radius)
    single = nl_bayes(noisy, guide, sigma if varying else 1.3, search_radius=radius)
    assert (single - exact).abs().max() < 5e-3


def test_groups_too_steep_for_float32_are_done_in_float64() -> None:
    clean = torch.where(blobs((12, 13, 14)) > 10, 1000.0, 0.0)[None]
    noisy, guide = clean + sample(1, 12, 13, 14), clean + 0.2 * sample(1, 12, 13, 14, seed=1)
    exact = nl_bayes(noisy.float().double(), guide.float().double())
    assert (nl_bayes(noisy.float(), guide.float()) - exact).abs().max() < 5e-3


@pytest.mark.parametrize("references", [(1, 40, 40), (30, 31, 5)])
def test_blocks_of_one_colour_have_no_voxel_in_common(references: tuple[int, int, int]) -> None:
    shape = tuple(3 * n + 1 for n in references) if references[0] > 1 else (1, 121, 121)
    grid = Grid.of((shape[0], shape[1], shape[2]), 4, 3, 48, (4, 4, 4) if references[0] > 1 else (0, 10, 10))
    colours = bayes_cpu.blocks(grid)
    assert sum(len(z) * len(y) for colour in colours for z, y in colour) == grid.references[0] * grid.references[1]
    for colour in colours:
        touched = torch.zeros(grid.shape[:2])
        for block in colour:
            z, y = (
                slice(max(0, along[0] * s - r), along[-1] * s + r + p)
                for along, s, r, p in zip(block, grid.step, grid.radius, grid.size, strict=False)
            )
            touched[z, y] += 1
        assert touched.max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 2, 7), (2, 4, 4, 4), (1, 5, 1, 6)])
def test_volumes_with_fewer_patches_than_a_group(shape: tuple[int, ...]) -> None:
    noisy = sample(*shape).float()
    assert nl_bayes(noisy, noisy).isfinite().all()
    assert low_rank(noisy, noisy).shape == noisy.shape


def test_far_parts_do_not_matter() -> None:
    """A tile that starts at a multiple of the step and reaches far enough gives what the whole volume gives."""
    noisy, guide = sample(1, 9, 9, 60), 0.3 * sample(1, 9, 9, 60, seed=1)
    whole = nl_bayes(noisy, guide, search_radius=(2, 2, 2))
    tile = nl_bayes(noisy[..., 12:], guide[..., 12:], search_radius=(2, 2, 2))
    torch.testing.assert_close(tile[..., 12:], whole[..., 24:])
