"""Eigenvectors by the GPU kernel against LAPACK in float64; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nlmeans.kernels import dispatch
from nlmeans.patches.low_rank.spectrum import eigenvectors, eigenvectors_on_cpu
from tests.nlmeans.patches.tensors import normal

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

from nlmeans.patches.low_rank import eigen_gpu
from nlmeans.patches.low_rank.eigen_gpu import eigen_trial, eigenvectors_on_gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def gram(matrices: int, size: int, rank: int = 0) -> Tensor:
    """Symmetric matrices of noise and of signal that is 10⁴ times as strong, in float32."""
    rows = normal(matrices, size, size + 3)
    if rank:
        rows = rows + 100 * normal(matrices, size, rank, seed=1) @ normal(matrices, rank, size + 3, seed=2)
    return (rows @ rows.mT).float()


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("size", [1, 2, 5, 16, 17])
def test_the_kernel_is_as_exact_as_lapack_in_float32(size: int, rank: int) -> None:
    matrices = gram(2, size, rank)
    values, vectors = (found.cpu().double() for found in eigenvectors_on_gpu(matrices.to(DEVICE)))
    expected = torch.linalg.eigvalsh(matrices.double())
    largest = float(expected.max())
    assert (values - expected).abs().max() < 2e-6 * largest
    assert (vectors * values[:, None] @ vectors.mT - matrices).abs().max() < 4e-6 * largest
    assert (vectors.mT @ vectors - torch.eye(size)).abs().max() < 2e-6


def test_indefinite_and_diagonal_matrices_and_those_with_equal_values() -> None:
    plain = torch.stack([torch.diag(torch.tensor([3.0, -1.0, 0.0])), torch.ones(3, 3), torch.zeros(3, 3)])
    values, vectors = (found.cpu() for found in eigenvectors_on_gpu(plain.to(DEVICE)))
    torch.testing.assert_close(values, torch.tensor([[-1.0, 0, 3], [0, 0, 3], [0, 0, 0]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(vectors * values[:, None] @ vectors.mT, plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_of_a_matrix_does_not_matter(factor: float) -> None:
    matrices = gram(1, 6)
    values = eigenvectors_on_gpu((factor * matrices).to(DEVICE))[0].cpu()
    torch.testing.assert_close(values / factor, torch.linalg.eigvalsh(matrices), rtol=1e-5, atol=0)


def test_no_matrices_and_transposed_ones() -> None:
    values, vectors = eigenvectors_on_gpu(torch.empty(0, 5, 5, device=DEVICE))
    assert (values.shape, vectors.shape) == ((0, 5), (0, 5, 5))
    matrices = gram(2, 5).to(DEVICE)
    view = matrices.mT
    torch.testing.assert_close(eigenvectors_on_gpu(view)[0], eigenvectors_on_gpu(matrices)[0])


def test_the_kernel_passes_its_trial_and_a_wrong_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_passed", {})
    trial, device = eigen_trial(12), torch.device(DEVICE)
    assert dispatch.passes(trial, eigenvectors_on_gpu, eigenvectors_on_cpu, device)
    monkeypatch.setattr(eigen_gpu, "TOLERANCE", 0.1)
    assert not dispatch.passes(trial._replace(kernel="wrong"), eigenvectors_on_gpu, eigenvectors_on_cpu, device)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
@pytest.mark.parametrize("size", [16, 30, 64, 125])
def test_it_is_used_on_a_gpu_and_repeats(
    size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    matrices = gram(100, size, 2).cuda()
    values, vectors = eigenvectors(matrices)
    assert "GPU kernel" not in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(eigenvectors(matrices), (values, vectors), strict=True))
    expected = torch.linalg.eigvalsh(matrices.cpu().double())
    assert (values.cpu() - expected).abs().max() < 3e-6 * expected.max()
    monkeypatch.setattr("nlmeans.patches.low_rank.spectrum.eigenvectors_on_gpu", None)
    assert (eigenvectors(matrices)[0] - values).abs().max() < 3e-6 * expected.max()
