"""Non-local Bayes by the GPU kernel against torch in float64; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, dct_basis, whitening
from nlmeans.core.progress import silent
from nlmeans.kernels import dispatch
from nlmeans.patches.bayes import nl_bayes as module
from nlmeans.patches.bayes.nl_bayes import STEEPEST, filter_group, nl_bayes
from nlmeans.patches.groups import Filtered, Grid, channels_alone, filter_volume, taper_of
from tests.nlmeans.patches.tensors import LAGS, blobs, normal

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

from nlmeans.patches.bayes import gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def exact(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor,
    grid: Grid,
    tolerance: float,
    noise: Whitening | None = None,
    across: bool = False,
) -> Tensor:
    """The result of torch in float64, with a strength of 1.5."""

    def filter_groups(noisy: Tensor, guide: Tensor, variance: Tensor) -> Filtered:
        return filter_group(noisy, guide, variance, dct_basis(grid.size), 1.5, noise, across)

    level = sigma.double() if isinstance(sigma, Tensor) else sigma
    return filter_volume(noisy.double(), guide.double(), level, grid, tolerance, channels_alone(filter_groups), silent)


def fused(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor,
    grid: Grid,
    tolerance: float,
    noise: Whitening | None = None,
    across: bool = False,
) -> Tensor:
    """The result of the kernel, with a strength of 1.5."""
    level = sigma.to(DEVICE) if isinstance(sigma, Tensor) else sigma
    result = gpu.filter_volume(
        noisy.to(DEVICE), guide.to(DEVICE), level, grid, tolerance, silent, strength=1.5, across=across,
        steepest=STEEPEST, noise=noise,
    )  # fmt: skip
    return result.cpu()


def volumes(*shape: int, contrast: float = 8.0) -> tuple[Tensor, Tensor]:
    """A noisy volume in float32, with sigma 1, and its guide."""
    clean = contrast * blobs((shape[1], shape[2], shape[3])).expand(shape)
    return (clean + normal(*shape)).float(), (clean + 0.3 * normal(*shape, seed=1)).float()


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize(
    ("shape", "patch", "count"), [((7, 7, 10), 4, 48), ((1, 10, 13), 6, 20), ((2, 7, 7), 3, 7), ((3, 3, 3), 3, 1)]
)
def test_the_kernel_follows_the_formula(shape: Axes, patch: int, count: int, varying: bool, correlated: bool) -> None:
    noisy, guide = volumes(1, *shape)
    sigma = 1.3 + 0.2 * normal(*shape, seed=2).float().tanh() if varying else 1.3
    grid = Grid.of(shape, patch, 3, count, (4, 4, 4))
    noise = whitening(LAGS, grid.size) if correlated else None
    found = fused(noisy, guide, sigma, grid, 0.05, noise)
    assert found.dtype == torch.float32
    assert (found - exact(noisy, guide, sigma, grid, 0.05, noise)).abs().max() < 5e-3


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize(
    ("shape", "patch", "count"),
    [((7, 7, 7), 4, 64), ((4, 7, 7), 4, 48), ((5, 5, 8), 3, 32), ((1, 11, 11), 6, 36), ((1, 6, 13), 6, 48)],
)
def test_groups_are_smoothed_across_their_patches(shape: Axes, patch: int, count: int, correlated: bool) -> None:
    noisy, guide = volumes(1, *shape)
    grid = Grid.of(shape, patch, patch, count, (4, 7, 7))
    noise = whitening(LAGS, grid.size) if correlated else None
    found = fused(noisy, guide, 1.3, grid, 1e9, noise, across=True)
    assert (found - exact(noisy, guide, 1.3, grid, 1e9, noise, across=True)).abs().max() < 5e-3
    assert (found - exact(noisy, guide, 1.3, grid, 1e9, noise)).abs().max() > 0.1


@pytest.mark.parametrize("across", [False, True])
def test_steep_groups_are_filtered_in_float64(across: bool) -> None:
    clean = torch.where(blobs((4, 7, 10)) > 10, 3000.0, 0.0)[None]
    noisy, guide = ((clean + s * normal(1, 4, 7, 10, seed=k)).float() for k, s in enumerate((1.0, 0.2)))
    grid = Grid.of((4, 7, 10), 4, 3, 12, (2, 2, 2))
    found = fused(noisy, guide, 1.0, grid, 0.05, across=across)
    assert (found - exact(noisy, guide, 1.0, grid, 0.05, across=across)).abs().max() < 1e-3


def test_channels_share_groups_and_are_filtered_one_by_one() -> None:
    noisy, guide = volumes(2, 4, 7, 7)
    noisy[1] *= 2
    grid = Grid.of((4, 7, 7), 4, 3, 12, (2, 2, 2))
    assert (fused(noisy, guide, 1.3, grid, 0.05) - exact(noisy, guide, 1.3, grid, 0.05)).abs().max() < 5e-3


def test_launches_and_repeats_change_no_bit_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, guide = volumes(1, 4, 7, 10)
    grid = Grid.of((4, 7, 10), 4, 3, 12, (2, 2, 2))
    whole = fused(noisy, guide, 1.0, grid, 0.05)
    monkeypatch.setattr(gpu, "GROUPS_PER_LAUNCH", 2)
    seen: list[float] = []
    again = gpu.filter_volume(
        noisy.to(DEVICE), guide.to(DEVICE), 1.0, grid, 0.05, seen.append, strength=1.5, across=False, steepest=STEEPEST
    )
    assert torch.equal(again.cpu(), whole)
    assert seen == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_the_result_may_be_written_to_the_guide() -> None:
    noisy, guide = (volume.to(DEVICE) for volume in volumes(1, 4, 7, 7))
    grid = Grid.of((4, 7, 7), 4, 3, 12, (2, 2, 2))
    whole = fused(noisy, guide, 1.0, grid, 0.05)
    found = gpu.filter_volume(
        noisy, guide, 1.0, grid, 0.05, silent, strength=1.5, across=False, steepest=STEEPEST, out=guide
    )
    assert found is guide
    assert torch.equal(guide.cpu(), whole)


def test_it_serves_groups_that_fit_the_registers() -> None:
    assert gpu.serves(Grid.of((30, 30, 30), 4, 3, 64, (5, 5, 5)))
    assert gpu.serves(Grid.of((1, 30, 30), 8, 3, 64, (0, 9, 9)))
    assert not gpu.serves(Grid.of((30, 30, 30), 4, 3, 65, (5, 5, 5)))
    assert not gpu.serves(Grid.of((30, 30, 30), 5, 3, 48, (5, 5, 5)))


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("varying", [False, True])
def test_the_stage_offers_the_kernel_with_a_trial_of_its_own_problem(
    varying: bool, across: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, `kernel_for` would take it after its trial; here the trial and the result are compared with torch."""
    monkeypatch.setattr(dispatch, "_passed", {})
    monkeypatch.setattr(gpu, "ROOM", 2)
    offered: list[dispatch.Trial | None] = []

    def take_the_kernel(
        tensors: list[Tensor],
        *,
        gpu: Callable[..., Tensor] | None,
        trial: dispatch.Trial,
        **rest: Callable[..., Tensor],
    ) -> Callable[..., Tensor]:
        offered.append(trial if gpu else None)
        assert gpu is None or dispatch.passes(trial, gpu, rest["plain"], torch.device(DEVICE))
        return gpu or rest["plain"]

    noisy, guide = volumes(1, 4, 7, 7)
    sigma = torch.full((4, 7, 7), 1.2) if varying else 1.2
    stage = partial(nl_bayes, count=12, search_radius=(2, 2, 2), strength=1.5, across=across)
    expected = stage(noisy.double(), guide.double(), sigma)
    monkeypatch.setattr(module, "kernel_for", take_the_kernel)
    level = sigma.to(DEVICE) if isinstance(sigma, Tensor) else sigma
    found = stage(noisy.to(DEVICE), guide.to(DEVICE), level, autocovariance=None)
    assert (found.cpu() - expected).abs().max() < 5e-3
    nl_bayes(noisy, guide, 1.2, count=100, search_radius=(2, 9, 9), patch=2, step=2)
    stage(noisy, guide, 1.2, joint=True)
    assert offered[0] is not None
    assert offered[0].kernel == ("bayes", (4, 4, 4), 9, False, across, varying)
    assert offered[1:] == [None, None]


def test_what_is_the_same_for_all_groups_is_padded() -> None:
    noise, size = whitening(LAGS, (2, 3, 3)), (2, 3, 3)
    basis, spectrum, whiten, colour, taper = gpu.constants(size, 32, noise, torch.empty(0, dtype=torch.float64))
    torch.testing.assert_close(basis[:18, :18], dct_basis(size))
    torch.testing.assert_close(spectrum[:18], (dct_basis(size) @ noise.covariance @ dct_basis(size).T).diagonal())
    torch.testing.assert_close(whiten[:18, :18] @ colour[:18, :18], torch.eye(18, dtype=torch.float64))
    assert not whiten[18:].any()
    torch.testing.assert_close(taper[:18], taper_of(size))
    assert not taper[18:].any()
    assert (spectrum[18:] == 1).all()


@pytest.mark.parametrize(("shape", "count"), [((5, 30, 30), 48), ((1, 30, 30), 64), ((4, 4, 4), 48)])
def test_a_trial_has_the_groups_of_the_grid_and_some_of_them_are_steep(shape: Axes, count: int) -> None:
    grid = Grid.of(shape, 6 if shape[0] == 1 else 4, 3, count, (4, 4, 4) if shape[0] > 1 else (0, 10, 10))
    grids: list[Grid] = []

    def run(noisy: Tensor, guide: Tensor, sigma: Tensor, small: Grid, *rest: object, **named: object) -> Tensor:
        grids.append(small)
        assert sigma.shape == noisy.shape[1:] == small.shape
        assert guide.max() > 990
        assert guide.min() < 10
        return noisy

    trial = gpu.trial(grid, None, across=True, varying=True)
    trial.solve(run, torch.device("cpu"), torch.float32)
    assert (grids[0].size, grids[0].count) == (grid.size, grid.count)
    assert math.prod(grids[0].references) < 200


@pytest.mark.parametrize("across", [False, True])
def test_the_kernel_passes_its_trial_and_a_wrong_one_does_not(across: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_passed", {})
    monkeypatch.setattr(gpu, "ROOM", 3)
    grid = Grid.of((4, 7, 7), 3, 3, 6, (1, 1, 1))
    trial = gpu.trial(grid, None, across, varying=False)
    alone = channels_alone(lambda n, g, v: filter_group(n, g, v, dct_basis((3, 3, 3)).to(n), across=across))
    plain = partial(filter_volume, filter_channels=alone)
    right = partial(gpu.filter_volume, strength=1.0, across=across, steepest=STEEPEST)
    assert dispatch.passes(trial, right, plain, torch.device(DEVICE))
    for number, change in enumerate(({"strength": 30.0}, {"across": not across})):
        wrong = partial(right, **change)
        assert not dispatch.passes(trial._replace(kernel=number), wrong, plain, torch.device(DEVICE))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("shape", "patch", "count"), [
    ((1, 24, 25, 26), 4, 48), ((1, 24, 25, 26), 4, 64), ((1, 24, 25, 26), 3, 32), ((1, 1, 60, 61), 6, 48)
])  # fmt: skip
def test_it_is_used_on_a_gpu_and_gives_the_same_bits_every_time(
    shape: tuple[int, ...],
    patch: int,
    count: int,
    across: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    noisy, guide = (volume.cuda() for volume in volumes(*shape))
    radius = (4, 4, 4) if shape[1] > 1 else (0, 10, 10)
    stage = partial(nl_bayes, patch=patch, count=count, search_radius=radius, across=across)
    found = [stage(noisy, guide) for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert "GPU kernel" not in caplog.text
    expected = stage(noisy.double(), guide.double())
    assert (found[0] - expected).abs().max() < 5e-3
    monkeypatch.setattr(gpu, "filter_volume", None)
    with pytest.raises(TypeError):
        stage(noisy, guide)
