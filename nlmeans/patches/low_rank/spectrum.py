"""The singular values of small matrices of signal and noise: which of them are noise, and how far the others shrink.

References:
    M. Gavish, D. L. Donoho, "Optimal shrinkage of singular values", IEEE Transactions on Information Theory 63(4),
    2017, doi:10.1109/TIT.2017.2653801.
    S. Kritchman, B. Nadler, "Determining the number of components in a factor model from limited noisy data",
    Chemometrics and Intelligent Laboratory Systems 94(1), 2008, doi:10.1016/j.chemolab.2008.06.002.
    I. M. Johnstone, "On the distribution of the largest eigenvalue in principal components analysis", Annals of
    Statistics 29(2), 2001, doi:10.1214/aos/1009210544.
    S. Kuriki, A. Takemura, "Tail probabilities of the maxima of multilinear forms and their applications", Annals of
    Statistics 29(2), 2001, doi:10.1214/aos/1009210545.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.modes import kernel_threads, shared_among
from nlmeans.kernels.dispatch import kernel_for
from nlmeans.kernels.turns import in_threads
from nlmeans.patches.low_rank.eigen_gpu import LARGEST_SIZE, eigen_trial, eigenvectors_on_gpu

LEADING, ITERATIONS = 16, 6
"""Eigenpairs that are iterated together, and how often: exact to 0.005 sigma where fewer stand out of the noise."""


class Shrunk(NamedTuple):
    """Matrices with shrunk singular values."""

    matrix: Tensor
    """(matrices, rows, columns)."""
    rank: Tensor
    """Singular values that are kept, (matrices,)."""
    variance: Tensor
    """Variance of the noise, given or measured, (matrices,)."""


def shrink_singular_values(matrix: Tensor, variance: Tensor | None, removed: int = 0, leading: int = LEADING) -> Shrunk:
    """Shrink the singular values of each matrix of signal and white noise so that the expected squared error is least.

    The matrices are m × n; β = min / max of m and n. A singular value y, in units of σ√max(m, n), becomes
    √((y²−β−1)²−4β)/y, and 0 if it is below 1+√β (Gavish and Donoho 2017).

    Args:
        matrix: (matrices, rows, columns), floating point.
        variance: variance of the noise, (matrices,); None measures it, see `variance_of_rest`.
        removed: dimensions of the rows in which there is no noise any more: 1 if their mean was subtracted.
        leading: singular values to look at first; matrices that keep all of them are computed anew with twice as many.
    """
    rows, columns = matrix.shape[1:]
    gram = matrix @ matrix.mT if rows <= columns else matrix.mT @ matrix
    energies, vectors = leading_eigenpairs(gram, leading)
    level = variance
    if level is None:
        level = variance_of_rest(energies, gram.diagonal(dim1=1, dim2=2).sum(1), rows - removed, columns)
    gain = shrunk_gain(energies / level[:, None].clamp_min(torch.finfo(matrix.dtype).tiny), rows, columns)
    shrunk = vectors * gain[:, None, :]
    found = Shrunk(
        shrunk @ (vectors.mT @ matrix) if rows <= columns else (matrix @ shrunk) @ vectors.mT,
        gain.count_nonzero(1).to(matrix.dtype),
        level.clone(),
    )
    many = (found.rank >= leading).nonzero()[:, 0]
    if energies.shape[1] < min(rows, columns) and len(many):
        given = None if variance is None else variance[many]
        for values, exact in zip(found, shrink_singular_values(matrix[many], given, removed, 2 * leading), strict=True):
            values[many] = exact
    return found


def shrunk_gain(energies: Tensor, rows: int, columns: int) -> Tensor:
    """Return the factors by which singular values of m × n matrices shrink; see `shrink_singular_values`.

    Args:
        energies: squared singular values in units of sigma².
        rows: m.
        columns: n.
    """
    short, long = min(rows, columns), max(rows, columns)
    ratio, scaled = short / long, energies / long
    gain = ((scaled - ratio - 1).square() - 4 * ratio).clamp_min(0).sqrt() / scaled.clamp_min(ratio)
    return torch.where(scaled > (1 + math.sqrt(ratio)) ** 2, gain, 0)


def variance_of_rest(energies: Tensor, trace: Tensor, rows: int, columns: int) -> Tensor:
    """Measure the variance of the noise by what is left of the squared singular values without those of the signal.

    Those of noise are below σ²(√m + √n)². What is left by r others are (m − r)(n − r) degrees of freedom (Kritchman and
    Nadler 2008). r and σ² are found in turn.

    Args:
        energies: the largest squared singular values, rising, (matrices, k).
        trace: the sum of all, (matrices,).
        rows: m.
        columns: n.
    """
    short, long = min(rows, columns), max(rows, columns)
    falling = energies.flip(1)[:, : short - 1].clamp_min(0)
    kept = torch.cat([torch.zeros_like(trace)[:, None], falling.cumsum(1)], dim=1)
    rank = torch.zeros_like(trace, dtype=torch.long)
    variance = trace / (short * long)
    for _ in range(SETTLED):
        edge = edge_of_noise(variance, short, long)
        rank = (falling > edge[:, None]).sum(1)
        rest = (trace - kept.gather(1, rank[:, None])[:, 0]).clamp_min(0)
        variance = rest / ((short - rank) * (long - rank))
    return variance


def edge_of_noise(variance: Tensor, rows: int, columns: int) -> Tensor:
    """Return the largest squared singular value of noise."""
    return variance * (math.sqrt(rows) + math.sqrt(columns)) ** 2


def surely_signal(rows: int, columns: int, chance: float) -> float:
    """Return the squared singular value that white noise of variance 1 exceeds with this small chance.

    The largest one of noise follows the law of Tracy and Widom around the edge (Johnstone 2001), whose upper tail is
    exp(−⅔ z^(3/2)) / (4 √π z^(3/4)).

    >>> round(surely_signal(125, 60, 1e-3) / float(edge_of_noise(torch.ones(()), 125, 60)), 2)
    1.1
    """
    m, n = math.sqrt(rows - 0.5), math.sqrt(columns - 0.5)
    z = 1.0
    for _ in range(SETTLED):
        z = max(-1.5 * math.log(chance * 4 * math.sqrt(math.pi) * z**0.75), 1.0) ** (2 / 3)
    deviation: float = (m + n) * (1 / m + 1 / n) ** (1 / 3)
    return (m + n) ** 2 + z * deviation


def surely_signal_of_any(rows: int, columns: int, choices: int, chance: float) -> float:
    """Return the squared singular value that any set of rows exceeds with this small chance.

    The law of Tracy and Widom does not hold so far above the edge. There the tail is that of the highest point of a
    Gaussian field, √π (x/2)^(k/2) exp(−x/2) / (Γ(m/2) Γ(n/2) (1 − k/x)) with k = m + n − 3 (Kuriki and Takemura 2001).

    Args:
        rows: m, the size of a set.
        columns: n.
        choices: how many rows there are to choose from.
        chance: for the largest of all sets.

    >>> from math import comb, log
    >>> x = surely_signal_of_any(1, 2, 1000, 1e-2)  # the squared length of a vector of two numbers: exp(−x/2)
    >>> round(x, 3), round(2 * log(1000 / 1e-2), 3)
    (23.026, 23.026)
    """
    m, n, k = rows, columns, rows + columns - 3
    sets = math.lgamma(choices + 1) - math.lgamma(m + 1) - math.lgamma(choices - m + 1)
    constant = math.log(math.pi) / 2 - math.lgamma(m / 2) - math.lgamma(n / 2) - math.log(chance) + sets
    edge = (math.sqrt(m) + math.sqrt(n)) ** 2
    energy = 1.5 * edge
    for _ in range(MOST_STEPS):
        excess = constant + k / 2 * math.log(energy / 2) - energy / 2 - math.log(max(1 - k / energy, LEAST_SHARE))
        energy = max(energy + excess / max(0.5 - k / 2 / energy, LEAST_SHARE), edge)
    return energy


MOST_STEPS, LEAST_SHARE = 40, 0.05
"""Newton's steps, and the least slope that they count with."""

SETTLED = 8
"""Rounds after which what is found in turn no longer changes."""


def leading_eigenpairs(matrices: Tensor, count: int = LEADING) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues of symmetric matrices, (groups, K, K), rising, and their eigenvectors.

    Subspace iteration needs products of matrices only, on a CPU and a GPU alike. All eigenpairs of small matrices, by
    `eigenvectors`, are returned where that costs no more.
    """
    size = matrices.shape[1]
    if size <= 2 * count:
        return eigenvectors(matrices)
    scale = matrices.diagonal(dim1=1, dim2=2).sum(1).clamp_min(torch.finfo(matrices.dtype).tiny)[:, None, None]
    scaled = matrices / scale
    start = torch.randn(size, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = start.to(matrices).expand(len(matrices), size, count)
    for _ in range(ITERATIONS):  # without two products in a row, which would drown weak components in rounding
        basis = orthonormal(scaled @ basis)
    basis = orthonormal(basis)  # twice, for accuracy
    small = basis.mT @ scaled @ basis
    values, rotation = eigenvectors((small + small.mT) / 2)
    return values * scale[:, 0], basis @ rotation


def orthonormal(basis: Tensor) -> Tensor:
    """Return a nearly orthonormal basis of the columns, by Cholesky's factor of their inner products."""
    products = basis.mT @ basis
    inverse = products.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(basis.dtype).tiny).rsqrt()
    products = products * inverse[:, :, None] * inverse[:, None]
    products.diagonal(dim1=1, dim2=2).add_(4 * basis.shape[1] * torch.finfo(basis.dtype).eps)
    lower = torch.linalg.cholesky_ex(products)[0]
    rows: Tensor = torch.linalg.solve_triangular(lower, (basis * inverse[:, None]).mT, upper=False)
    return rows.mT


def eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of symmetric matrices, (groups, K, K), rising, and their eigenvectors.

    torch would process one matrix after the other on a GPU, which is slower than the CPU. So what the kernel for GPUs
    does not take goes through the CPU.
    """
    size = matrices.shape[1]
    gpu = eigenvectors_on_gpu if size <= LARGEST_SIZE else None
    run = kernel_for([matrices], plain=eigenvectors_on_cpu, gpu=gpu, trial=eigen_trial(size))
    return run(matrices)


def eigenvectors_on_cpu(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors by LAPACK, with one thread per matrix.

    Several threads on one small matrix mostly wait for each other: where other processes keep the cores busy, they take
    a hundred times as long.
    """
    source, threads = matrices.cpu(), kernel_threads()
    values, vectors = torch.empty_like(source[..., 0]), torch.empty_like(source)

    def work(first: int, last: int) -> None:
        with shared_among(threads):
            values[first:last], vectors[first:last] = torch.linalg.eigh(source[first:last])

    in_threads(work, len(source))
    return values.to(matrices.device), vectors.to(matrices.device)
