"""Non-local Bayes against its formula, group by group in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from scipy.linalg import sqrtm

from nlmeans.core.lags import covariance_over, dct_basis, whitening
from nlmeans.patches.bayes.nl_bayes import (
    filter_channels,
    filter_group,
    filter_mean_patches,
    least_risk,
    nl_bayes,
    regular_inverse,
)
from nlmeans.patches.dct.sliding import hard_threshold
from tests.nlmeans.patches.tensors import LAGS, Array, blobs, normal, variance_of_coefficients


def bayes_reference(
    noisy: Array,
    guide: Array,
    variance: float,
    size: tuple[int, ...],
    strength: float,
    correlation: Array,
    across: bool,
) -> Array:
    """The formula of `filter_group` with covariances over voxels instead of patches, its minimum found by solving."""
    count, voxels = noisy.shape
    y, g = noisy.mean(0), guide.mean(0)
    energy = dctn(g.reshape(size), norm="ortho") ** 2
    gain = energy / (energy + variance / count * variance_of_coefficients(correlation, size))
    gain[0, 0, 0] = 1
    mean = idctn(gain * dctn(y.reshape(size), norm="ortho"), norm="ortho").ravel()
    colour = sqrtm(correlation).real
    whiten = np.linalg.inv(colour)
    q, p = (noisy - y) @ whiten, (guide - g) @ whiten
    covariance = p.T @ p / (count - 1)
    wiener = covariance @ np.linalg.inv(covariance + strength * variance * np.eye(voxels))
    f, freedom, noise = q @ wiener, np.trace(wiener), (count - 1) * variance
    if across:
        gram = p @ p.T
        smooth = gram @ np.linalg.inv(gram + strength * noise * np.eye(count))
        f, freedom = least_share(q, f, smooth @ f, freedom, np.trace(wiener) * np.trace(smooth) / (count - 1), noise)
    normal = np.array([[(f**2).sum() + noise * freedom, (f * q).sum()], [(f * q).sum(), (q**2).sum()]])
    right = np.array([(f * q).sum() - noise * freedom + noise * freedom, (q**2).sum() - noise * voxels])
    kept = np.clip(np.linalg.solve(normal, right)[1], 0, 1)
    amplitude = np.clip((right[0] - kept * normal[0, 1]) / normal[0, 0], 0, 1.5)
    result: Array = mean + (amplitude * f + kept * q) @ colour
    return result


def least_share(
    noisy: Array, plain: Array, smooth: Array, freedom: float, less: float, noise: float
) -> tuple[Array, float]:
    """Mix two estimates, which have so many degrees of freedom, by the share with the least risk among many."""
    shares = np.linspace(0, 1, 4001)
    change = smooth - plain
    residual, along, squares = ((noisy - plain) ** 2).sum(), ((noisy - plain) * change).sum(), (change**2).sum()
    risks = residual - 2 * shares * along + shares**2 * squares + 2 * 0.7 * noise * shares * (less - freedom)
    share = shares[risks.argmin()]
    return plain + share * change, freedom + share * (less - freedom)


@pytest.mark.parametrize("strength", [1.0, 1.5])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("count", [6, 40])
@pytest.mark.parametrize("signal", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("correlated", [False, True])
def test_bayes_follows_its_formula(correlated: bool, strength: float, across: bool, count: int, signal: float) -> None:
    clean = signal * normal(4, 3, 27) @ torch.eye(27, dtype=torch.float64)
    clean = (normal(4, count, 3, seed=1) @ clean) + 5
    noisy, guide = clean + 1.3 * normal(4, count, 27, seed=2), clean + 0.2 * normal(4, count, 27, seed=3)
    basis = dct_basis((3, 3, 3))
    variance = torch.full((4,), 1.69, dtype=torch.float64)
    noise = whitening(LAGS, (3, 3, 3)) if correlated else None
    correlation = covariance_over(LAGS, (3, 3, 3)).numpy() if correlated else np.eye(27)
    result = filter_group(noisy, guide, variance, basis, strength, noise, across).patches
    for k in range(4):
        expected = bayes_reference(noisy[k].numpy(), guide[k].numpy(), 1.69, (3, 3, 3), strength, correlation, across)
        np.testing.assert_allclose(result[k].numpy(), expected, atol=2e-3 if across else 1e-5)


def test_smoothing_across_patches_helps_a_group_of_few_kinds_of_patches() -> None:
    """The patches are sharp edges in two places, so a patch is known from the others like it."""
    kinds = 5 * (normal(8, 2, 27) > 0).double()
    clean = kinds[:, [0, 1] * 20]
    noisy, guide = clean + normal(8, 40, 27, seed=2), clean + 0.3 * normal(8, 40, 27, seed=3)
    basis, variance = dct_basis((3, 3, 3)), torch.ones(8, dtype=torch.float64)
    alone, together = (filter_group(noisy, guide, variance, basis, across=across).patches for across in (False, True))
    before, after = ((patches - clean).square().mean() for patches in (alone, together))
    assert after < 0.8 * before


@pytest.mark.parametrize("across", [False, True])
def test_float32_stays_exact_where_contrast_is_extreme(across: bool) -> None:
    clean = 1000.0 * (normal(8, 48, 1) > 0) * (normal(8, 1, 64, seed=1) > 0)
    noisy, guide = clean + normal(8, 48, 64, seed=2), clean + 0.1 * normal(8, 48, 64, seed=3)
    basis, variance = dct_basis((4, 4, 4)), torch.ones(8, dtype=torch.float64)
    exact = filter_group(noisy, guide, variance, basis, across=across).patches
    single = filter_group(noisy.float(), guide.float(), variance.float(), basis.float(), across=across).patches
    assert (single - exact).abs().max() < 2e-3


def joint_reference(
    noisy: Array, guide: Array, variance: float, size: tuple[int, ...], strength: float, correlation: Array
) -> Array:
    """The formula of `filter_channels` with the inverse of the one matrix of all channels, (channels, K, voxels)."""
    _, count, voxels = noisy.shape
    noise, colour = (count - 1) * variance, sqrtm(correlation).real
    means = noisy.mean(1, keepdims=True), guide.mean(1, keepdims=True)
    q, p = ((a - mean) @ np.linalg.inv(colour) for a, mean in zip((noisy, guide), means, strict=True))
    inverse = np.linalg.inv(sum(c @ c.T for c in p) + strength * noise * np.eye(count))
    gain = sum(a @ b.T for a, b in zip(q, p, strict=True)) @ inverse
    result = np.empty_like(noisy)
    for c in range(len(noisy)):
        energy = dctn(means[1][c].reshape(size), norm="ortho") ** 2
        kept = energy / (energy + variance / count * variance_of_coefficients(correlation, size))
        kept[0, 0, 0] = 1
        mean = idctn(kept * dctn(means[0][c].reshape(size), norm="ortho"), norm="ortho").ravel()
        f, freedom = gain @ p[c], np.trace(p[c] @ p[c].T @ inverse)
        a, b = (t.item() for t in least_risk(*(torch.tensor([x]) for x in (
            (f**2).sum(), (f * q[c]).sum(), (q[c]**2).sum(), noise * freedom, noise * voxels))))  # fmt: skip
        result[c] = mean + (a * f + b * q[c]) @ colour
    return result


@pytest.mark.parametrize("strength", [1.0, 12.0])
@pytest.mark.parametrize("correlated", [False, True])
def test_channels_are_filtered_together_by_the_formula(correlated: bool, strength: float) -> None:
    shared = normal(4, 20, 3, seed=1) @ normal(4, 3, 27)
    clean = [share * shared + 5 for share in (3.0, 0.3, 0.0)]
    noisy, guide = ([c + s * normal(4, 20, 27, seed=7 * k + s0) for k, c in enumerate(clean)]
                    for s, s0 in ((1.3, 2), (0.2, 3)))  # fmt: skip
    variance = torch.full((4,), 1.69, dtype=torch.float64)
    noise = whitening(LAGS, (3, 3, 3)) if correlated else None
    correlation = covariance_over(LAGS, (3, 3, 3)).numpy() if correlated else np.eye(27)
    found = filter_channels(noisy, guide, variance, dct_basis((3, 3, 3)), strength, noise)
    for k in range(4):
        stacked = (np.stack([c[k].numpy() for c in channels]) for channels in (noisy, guide))
        expected = joint_reference(*stacked, 1.69, (3, 3, 3), strength, correlation)
        for channel, result in zip(found, expected, strict=True):
            np.testing.assert_allclose(channel.patches[k].numpy(), result, atol=1e-5)


def test_what_a_strong_channel_shows_is_kept_in_a_weak_one() -> None:
    """A blob that one channel shows clearly and another barely: together, more of it is left in the weak one."""
    blob = torch.zeros(14, 15, 16, dtype=torch.float64)
    blob[5:9, 5:9, 6:10] = 1
    clean = torch.stack([8 * blob, 1.5 * blob])
    noisy = clean + normal(*clean.shape)
    guide = 0.7 * clean + 0.2 * normal(*clean.shape, seed=1)

    def left(joint: bool) -> float:
        return float(nl_bayes(noisy, guide, joint=joint, strength=2.0 * (1 + joint))[1][blob > 0].mean()) / 1.5

    assert left(joint=True) > left(joint=False) + 0.1
    assert left(joint=True) == pytest.approx(1, abs=0.15)


def test_the_inverse_is_that_of_the_patches_and_their_noise() -> None:
    rows, noise = normal(3, 8, 27), torch.tensor([0.5, 3.0, 20.0], dtype=torch.float64)
    gram = rows @ rows.mT
    inverse, ridge = regular_inverse(gram, noise)
    torch.testing.assert_close(ridge, noise)
    for k in range(3):
        expected = np.linalg.inv(gram[k].numpy() + float(noise[k]) * np.eye(8))
        np.testing.assert_allclose(inverse[k].numpy(), expected, atol=1e-9)


def test_the_shares_of_a_group_have_the_least_risk_of_a_grid_of_shares() -> None:
    """a and b, found in closed form, are compared with all pairs on a grid of Stein's estimate."""
    filtered, detail = normal(12, 27), normal(12, 27, seed=1) + 0.3 * normal(12, 27)
    freedom, noise, voxels = 4.0, 0.2 * 11, 27
    sums = [(f * q).sum() for f, q in ((filtered, filtered), (filtered, detail), (detail, detail))]
    a, b = least_risk(*sums, torch.tensor(noise * freedom).double(), torch.tensor(noise * voxels).double())

    def risk(a: float, b: float) -> float:
        residual = float((detail - a * filtered - b * detail).square().sum())
        return residual + 2 * noise * (a * freedom + b * voxels) + noise * freedom * (a - 1) ** 2

    least = min(risk(u, v) for u in np.linspace(0, 1.5, 61) for v in np.linspace(0, 1, 41))
    assert risk(float(a), float(b)) <= least + 1e-3


def test_the_mean_patch_keeps_its_own_mean_exactly() -> None:
    noisy, guide = normal(2, 1, 27) + 40, normal(2, 1, 27, seed=1)
    filtered, energy = filter_mean_patches(noisy, guide, torch.full((2,), 5.0).double(), dct_basis((3, 3, 3)))
    torch.testing.assert_close(filtered.mean(2), noisy.mean(2))
    assert filtered.std() < noisy.std()
    assert ((energy >= 1) & (energy < 27)).all()


@pytest.mark.parametrize("shape", [(14, 15, 16), (1, 30, 31), (3, 20, 21)])
def test_two_stages_halve_what_the_pilot_leaves(shape: tuple[int, int, int]) -> None:
    clean = blobs(shape)[None].float()
    noisy = clean + normal(1, *shape).float()
    pilot = hard_threshold(noisy)
    radius = (4, 4, 4) if shape[0] > 1 else (0, 10, 10)
    first = nl_bayes(noisy, pilot, strength=1.5, tolerance=0.2, search_radius=radius)
    second = nl_bayes(noisy, first, search_radius=radius)
    before, after = (float((z - clean).square().mean()) for z in (pilot, second))
    assert after < 0.6 * before


@pytest.mark.parametrize("across", [False, True])
def test_a_constant_comes_back(across: bool) -> None:
    constant = torch.full((1, 9, 9, 9), -7.0)
    torch.testing.assert_close(nl_bayes(constant, constant, across=across), constant, rtol=1e-5, atol=0)


def test_a_map_of_sigma_equals_the_number_and_rescales() -> None:
    noisy = blobs((10, 11, 12))[None] + normal(1, 10, 11, 12)
    guide = blobs((10, 11, 12))[None]
    one = nl_bayes(noisy, guide, 1.0)
    torch.testing.assert_close(nl_bayes(noisy, guide, torch.ones(10, 11, 12, dtype=torch.float64)), one)
    torch.testing.assert_close(nl_bayes(3 * noisy, 3 * guide, 3.0), 3 * one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 2, 7), (2, 4, 4, 4), (1, 5, 1, 6)])
def test_volumes_with_fewer_patches_than_a_group(shape: tuple[int, ...], across: bool) -> None:
    noisy = normal(*shape)
    assert nl_bayes(noisy, noisy, across=across).isfinite().all()
    assert nl_bayes(noisy.float(), noisy.float(), across=across).isfinite().all()


def test_far_parts_do_not_matter() -> None:
    """A tile that starts at a multiple of the step and reaches far enough gives the result of the whole volume."""
    noisy, guide = normal(1, 9, 9, 60), 0.3 * normal(1, 9, 9, 60, seed=1)
    whole = nl_bayes(noisy, guide, search_radius=(2, 2, 2))
    tile = nl_bayes(noisy[..., 12:], guide[..., 12:], search_radius=(2, 2, 2))
    torch.testing.assert_close(tile[..., 12:], whole[..., 24:])
