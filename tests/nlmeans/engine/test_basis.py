"""What the signals of all voxels of a series have in common, and what it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise
from nlmeans.core.layout import Layout
from nlmeans.core.metrics import psnr
from nlmeans.engine.basis import OVERLAP, planes_of_patches, shared_basis, slabs, slabs_of_patches
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.settings import Settings
from nlmeans.patches.low_rank.components import LOCAL_PATCH, LOCAL_STEP
from nlmeans.patches.low_rank.series import series_low_rank
from tests.nlmeans.volumes import decaying_series

SIGMA = 10.0


def plan_of(volumes: Any, sigma: Any = SIGMA, **settings: Any) -> Plan:
    made = Settings(method="series", series=3, sigma=None if isinstance(sigma, np.ndarray) else sigma, **settings)
    choices = Choices.of(made, Layout.of(volumes, None, 3), volumes)
    sigma_map = sigma if isinstance(sigma, np.ndarray) else None
    return Plan.of(volumes, 0, choices.layout, choices, sigma_map=sigma_map)


def residual(basis: torch.Tensor, signals: Any) -> float:
    """What is left of signals, (voxels, volumes), beside the basis, relative to what there is."""
    spanned = signals @ basis.numpy() @ basis.numpy().T
    return float(np.square(signals - spanned).sum() / np.square(signals).sum())


def test_it_is_orthonormal_and_spans_the_signals_and_the_shift() -> None:
    clean, noisy = decaying_series(24, SIGMA)
    plan = plan_of(noisy)
    assert plan.basis is not None
    torch.testing.assert_close(plan.basis.mT @ plan.basis, torch.eye(plan.basis.shape[1], dtype=torch.float64))
    assert plan.basis.shape[1] <= 4  # two decays, and the shift that the plan takes off
    assert residual(plan.basis, clean.reshape(-1, 24) - np.array(plan.facts.shift)) < 1e-3


def test_a_map_of_sigma_and_correlated_noise_are_no_signal() -> None:
    clean, _ = decaying_series(24, SIGMA)
    rng = np.random.default_rng(0)
    level = np.linspace(5, 25, 14) * np.ones((12, 13, 14))
    uneven = (clean + level[..., None] * rng.standard_normal(clean.shape)).astype(np.float32)
    plan = plan_of(uneven, level)
    assert plan.basis is not None
    assert plan.basis.shape[1] <= 4
    white = rng.standard_normal(clean.shape)
    smooth = (white + np.roll(white, 1, 0)) / 2**0.5
    lags = np.zeros((3, 1, 1))
    lags[:, 0, 0] = 0.5, 1, 0.5
    plan = plan_of((clean + SIGMA * smooth).astype(np.float32), correlation=lags)
    assert plan.basis is not None
    assert plan.basis.shape[1] <= 4


@pytest.mark.parametrize(
    ("volumes", "components"),
    [
        (np.random.default_rng(0).standard_normal((10, 11, 12, 16)), 2),
        (np.ones((10, 11, 12, 16)), 2),
        (np.ones((2, 2, 2, 16)), 16),
    ],
    ids=["noise", "constant", "tiny"],
)
def test_noise_has_hardly_any_and_too_few_voxels_have_all(volumes: Any, components: int) -> None:
    basis = plan_of(volumes, 1.0).basis
    assert basis is not None
    assert basis.shape[1] <= components
    assert basis.shape[1] == 16 or components < 16


def test_volumes_without_noise_do_not_count() -> None:
    _, noisy = decaying_series(12, SIGMA)
    plan = plan_of(noisy, tuple([SIGMA] * 11 + [0.0]))
    assert plan.basis is not None
    assert bool((plan.basis[11] == 0).all())
    torch.testing.assert_close(plan.basis.mT @ plan.basis, torch.eye(plan.basis.shape[1], dtype=torch.float64))
    result = denoise(noisy, tuple([SIGMA] * 11 + [0.0]), method="series", series=3)
    np.testing.assert_array_equal(result[..., 11], noisy[..., 11])


def test_two_volumes_with_noise_among_others_suffice() -> None:
    _, noisy = decaying_series(4, SIGMA)
    result = denoise(noisy, (SIGMA, 0.0, SIGMA, 0.0), method="series", series=3)
    np.testing.assert_array_equal(result[..., 1::2], noisy[..., 1::2])
    assert np.isfinite(result).all()
    assert (result[..., ::2] != noisy[..., ::2]).any()


def test_it_is_worth_a_decibel() -> None:
    clean, noisy = decaying_series(30, SIGMA)
    alone = SIGMA * series_low_rank(torch.from_numpy(noisy / SIGMA).movedim(-1, 0)).series.movedim(0, -1).numpy()
    assert psnr(clean, denoise(noisy, SIGMA, method="series", series=3)) > psnr(clean, alone) + 1


def with_activation(clean: Any, volumes: int) -> tuple[Any, Any]:
    """A series with a course of its own, of 2/3 sigma, in 4³ of its voxels; and that course, with a length of 1."""
    course = np.where(np.arange(volumes) // 6 % 2, 1.0, -1.0)
    active = clean.copy()
    active[4:8, 5:9, 6:10] += 2 / 3 * SIGMA * course
    return active, course / np.linalg.norm(course)


def test_a_component_of_a_few_voxels_is_not_lost() -> None:
    clean, _ = decaying_series(48, SIGMA)
    active, course = with_activation(clean, 48)
    noisy = (active + SIGMA * np.random.default_rng(1).standard_normal(clean.shape)).astype(np.float32)
    plan = plan_of(noisy)
    assert plan.basis is not None
    assert residual(plan.basis, course[None]) < 0.3
    added = denoise(noisy, SIGMA, method="series", series=3) - clean
    kept = added[4:8, 5:9, 6:10] @ course / ((active - clean)[4:8, 5:9, 6:10] @ course)
    assert float(kept.mean()) == pytest.approx(1, abs=0.2)


def test_activations_far_below_the_noise_are_kept_and_weaker_ones_leave_no_noise() -> None:
    clean, _ = decaying_series(48, SIGMA)
    course = np.where(np.arange(48) // 6 % 2, 1.0, -1.0)
    active = clean.copy()
    for first in (1, 7):
        active[first : first + 4, 1:5, 7:11] += 0.2 * SIGMA * course
    noisy = (active + SIGMA * np.random.default_rng(1).standard_normal(clean.shape)).astype(np.float32)
    added = denoise(noisy, SIGMA, method="series", series=3) - clean
    kept = [added[first : first + 4, 1:5, 7:11] @ course / (48 * 0.2 * SIGMA) for first in (1, 7)]
    assert np.mean(kept) > 0.5
    assert abs(added[:, 8:] @ course / 48).mean() < 0.02 * SIGMA


@pytest.mark.parametrize("level", [2000.0, 1e5, -1e5])
@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_hot_voxels_stay_as_they_are_and_change_no_other(noise: str, level: float) -> None:
    _, noisy = decaying_series(12, SIGMA)
    noisy = np.abs(noisy) if noise == "rician" else noisy
    hot = np.random.default_rng(0).random(noisy.shape) < 1e-3
    hot[5, 5, 5, 3] = True
    if noise == "rician" and level < 0:
        return
    spoiled = np.where(hot, np.float32(level), noisy)
    how: dict[str, Any] = {"series": 3, "method": "series", "noise": noise}
    expected, found = denoise(noisy, SIGMA, **how), denoise(spoiled, SIGMA, **how)
    np.testing.assert_array_equal(found[hot], spoiled[hot])
    assert np.square(found - expected)[~hot].mean() ** 0.5 < 0.3 * SIGMA


@pytest.mark.parametrize("depth", [23, 24, 25])
@pytest.mark.parametrize("planes", [5, 7, 40])
def test_patches_lie_where_they_lie_however_the_series_is_cut(depth: int, planes: int) -> None:
    shape, starts, inner = (depth, 13, 14), [], 0
    for box in slabs_of_patches(shape, planes):
        assert box[0].start <= max(inner - OVERLAP // 2, 0)  # what is around each plane lies in one slab
        inner = box[0].stop - OVERLAP // 2
        covered = planes_of_patches(box[0], depth)
        first, last = box[0].start + covered.start, box[0].start + covered.stop - LOCAL_PATCH
        assert (last - first) % LOCAL_STEP == 0
        starts += list(range(first, last + 1, LOCAL_STEP))
    first = (depth - LOCAL_PATCH) % LOCAL_STEP // 2
    assert starts == list(range(first, depth - LOCAL_PATCH + 1, LOCAL_STEP))
    assert inner + OVERLAP // 2 == depth
    assert sum(box[0].stop - box[0].start for box in slabs(shape, planes)) == depth


def test_a_volume_thinner_than_a_patch_is_one_slab() -> None:
    assert [box[0] for box in slabs_of_patches((1, 30, 30), 5)] == [slice(0, 1)]
    assert planes_of_patches(slice(0, 1), 1) == slice(0, 1)
    assert planes_of_patches(slice(0, 3), 3) == slice(0, 3)


def test_little_memory_does_not_change_it() -> None:
    clean, _ = decaying_series(48, SIGMA)
    noisy = with_activation(clean, 48)[0] + SIGMA * np.random.default_rng(1).standard_normal(clean.shape)
    plan = plan_of(noisy)
    assert plan.basis is not None
    count = len(plan.basis)
    small = shared_basis(plan.signals, plan.layout.shape, count, None, memory=1)
    torch.testing.assert_close(small.abs(), plan.basis.abs(), rtol=0, atol=1e-4)


def test_it_is_the_same_for_facts_that_are_known() -> None:
    _, noisy = decaying_series(12, SIGMA)
    first = plan_of(noisy)
    again = Plan.of(noisy, 0, first.layout, first.choices, facts=first.facts)
    assert first.basis is not None
    assert again.basis is not None
    torch.testing.assert_close(again.basis, first.basis)


def test_values_that_are_not_finite_anywhere_are_refused() -> None:
    _, noisy = decaying_series(12, SIGMA)
    first = plan_of(noisy)
    noisy[3, 4, 5, 6] = np.inf
    with pytest.raises(ValueError, match=r"volume contains infinite"):
        Plan.of(noisy, 0, first.layout, first.choices, facts=first.facts)
