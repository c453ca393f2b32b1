"""Covariances and their unconstrained parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans.blur import COVARIANCE_TYPES, covariance_to_log_cholesky, log_cholesky_to_covariance

COUNTS = {1: 1, 2: 3, 3: 6}


def random_parameters(covariance_type: str, dimensions: int) -> Tensor:
    random = torch.Generator().manual_seed(3)
    form = {"spherical": (), "diagonal": (dimensions,), "full": (COUNTS[dimensions],)}[covariance_type]
    return torch.randn(4, 5, *form, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dimensions", COUNTS)
def test_parameters_and_covariances_are_each_others_inverse(dimensions: int, covariance_type: str) -> None:
    parameters = random_parameters(covariance_type, dimensions)
    covariance = log_cholesky_to_covariance(parameters, covariance_type)
    torch.testing.assert_close(covariance_to_log_cholesky(covariance, covariance_type), parameters)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dimensions", COUNTS)
def test_derivatives_are_right_both_ways(dimensions: int, covariance_type: str) -> None:
    parameters = random_parameters(covariance_type, dimensions)[:1, :2].requires_grad_()
    assert torch.autograd.gradcheck(lambda p: log_cholesky_to_covariance(p, covariance_type), (parameters,))
    covariance = log_cholesky_to_covariance(parameters.detach(), covariance_type).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: covariance_to_log_cholesky(c, covariance_type), (covariance,))


def test_any_parameters_give_a_positive_definite_matrix() -> None:
    parameters = 3 * random_parameters("full", 3)
    matrices = log_cholesky_to_covariance(parameters)
    assert torch.equal(matrices, matrices.mT)
    assert bool((torch.linalg.eigvalsh(matrices) > 0).all())


def test_the_order_is_the_lower_triangle_row_by_row() -> None:
    parameters = torch.tensor([np.log(2.0), 5.0, np.log(3.0), 7.0, 11.0, np.log(13.0)])
    lower = torch.tensor([[2.0, 0, 0], [5, 3, 0], [7, 11, 13]], dtype=torch.float64)
    torch.testing.assert_close(log_cholesky_to_covariance(parameters), lower @ lower.T)


def test_parameters_of_simple_types_are_logarithms_of_standard_deviations() -> None:
    assert log_cholesky_to_covariance(np.log([2.0, 3.0]), "diagonal") == pytest.approx([4, 9])
    assert covariance_to_log_cholesky(np.array(4.0), "spherical") == pytest.approx(np.log(2))


def test_numpy_comes_back_as_numpy_in_its_precision() -> None:
    for dtype in (np.float32, np.float64):
        covariance = log_cholesky_to_covariance(np.zeros((2, 3), dtype))
        assert isinstance(covariance, np.ndarray)
        assert covariance.dtype == dtype
        assert covariance_to_log_cholesky(covariance).shape == (2, 3)


def test_what_is_no_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="positive definite"):
        covariance_to_log_cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="covariance"):
        covariance_to_log_cholesky(torch.tensor([1.0, -1.0]), "diagonal")
    with pytest.raises(ValueError, match="shape"):
        covariance_to_log_cholesky(torch.ones(2, 3))
    with pytest.raises(ValueError, match="1, 3 or 6 numbers"):
        log_cholesky_to_covariance(torch.ones(2, 4))
    with pytest.raises(ValueError, match="covariance_type='round'"):
        log_cholesky_to_covariance(torch.ones(3), "round")
    with pytest.raises(TypeError, match="parameters"):
        log_cholesky_to_covariance("three")
