"""The sliding DCT on CPU threads against the plain version in float64."""

from __future__ import annotations

import pytest
import torch

from nlmeans.patches.dct import cpu
from nlmeans.patches.dct.sliding import hard_threshold, wiener_filter
from nlmeans.patches.kernel_constants import EDGE


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("shape", [(9, 6, 37), (1, 9, 20), (5, 1, 17), (4, 4, 4), (3, 9, 9)])
def test_the_kernel_for_float32_is_as_exact_as_its_numbers(shape: tuple[int, int, int], varying: bool) -> None:
    generator = torch.manual_seed(0)
    pilot = 20 * torch.rand(2, *shape, dtype=torch.float64, generator=generator)
    noisy = pilot + torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    sigma = 0.5 + torch.rand(shape, dtype=torch.float64, generator=generator) if varying else 1.3
    single = sigma.float() if isinstance(sigma, torch.Tensor) else sigma
    hard = hard_threshold(noisy, sigma, stride=1)
    torch.testing.assert_close(hard_threshold(noisy.float(), single, stride=1), hard.float(), rtol=0, atol=1e-4)
    soft = wiener_filter(noisy, pilot, sigma)
    torch.testing.assert_close(wiener_filter(noisy.float(), pilot.float(), single), soft.float(), rtol=0, atol=1e-4)


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(1, 13, 9, 20, generator=torch.manual_seed(0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    one = hard_threshold(z, stride=1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(hard_threshold(z, stride=1), one)


def test_it_serves_a_patch_of_four_voxels_at_every_voxel() -> None:
    assert cpu.serves((EDGE, EDGE, EDGE), (1, 1, 1))
    assert cpu.serves((1, EDGE, EDGE), (1, 1, 1))
    assert not cpu.serves((EDGE, EDGE, EDGE), (2, 2, 2))
    assert not cpu.serves((3, EDGE, EDGE), (1, 1, 1))
    assert not cpu.serves((EDGE, EDGE, 1), (1, 1, 1))


def test_it_is_used_for_float32_with_a_stride_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = cpu.filter_channel

    def spied(*arguments: object, **named: object) -> torch.Tensor:
        calls.append(named)
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(cpu, "filter_channel", spied)
    z = torch.randn(1, 6, 7, 8, generator=torch.manual_seed(0))
    hard_threshold(z, stride=1)
    assert len(calls) == 1
    hard_threshold(z, stride=2)
    hard_threshold(z.double(), stride=1)
    assert len(calls) == 1


def test_the_progress_rises_to_the_end() -> None:
    told: list[float] = []
    hard_threshold(torch.randn(2, 20, 22, 24), stride=1, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) > 6
